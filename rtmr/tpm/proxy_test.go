//go:build linux

package tpm_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"tallystick/rtmr"
	"tallystick/rtmr/devicetest"
	"tallystick/rtmr/tpm"
)

// proxied is a process that is a TPM of the vTPM proxy's.
type proxied struct {
	*exec.Cmd
	path string // the device that the kernel shares
}

// startProxied starts a TPM in this guest, which has no other, and waits until the
// kernel has it.
func startProxied(t *testing.T) *proxied {
	t.Helper()
	shared := func() []string { paths, _ := filepath.Glob("/dev/tpmrm*"); return paths }
	waitUntil(t, "no TPM", func() bool { return len(shared()) == 0 })
	p := &proxied{Cmd: exec.Command("swtpm", "chardev", "--vtpm-proxy", "--tpm2", "--tpmstate", "dir="+t.TempDir(),
		"--locality", "allow-set-locality", "--flags", "not-need-init")}
	var out bytes.Buffer
	p.Stdout, p.Stderr = &out, &out
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Process.Kill()
		p.Wait()
		if t.Failed() {
			t.Logf("swtpm: %s", out.String())
		}
	})
	waitUntil(t, "a TPM", func() bool { return len(shared()) == 1 })
	p.path = shared()[0]
	return p
}

func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for started := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(started) > time.Minute {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

// end kills the TPM and waits until the kernel has none.
func (p *proxied) end(t *testing.T) {
	t.Helper()
	p.Process.Kill()
	p.Wait()
	waitUntil(t, "the TPM is gone", func() bool { _, err := os.Stat(p.path); return os.IsNotExist(err) })
}

func testProxy(t *testing.T) {
	if _, err := tpm.Open(tpm.Options{}); !errors.Is(err, rtmr.ErrNotSupported) {
		t.Errorf("a guest without a TPM: %v, expected ErrNotSupported", err)
	}
	t.Run("device", func(t *testing.T) {
		p := startProxied(t)
		d := openTPM(t, p.path)
		if name := d.Describe().Name; !strings.HasPrefix(name, "TPM 2.0 at "+p.path+" (vtpm-proxy), IBM SW TPM") {
			t.Errorf("%q", name)
		}
		devicetest.Run(t, d)
		k, err := d.PrimaryKey(ctx, tpm.ECC, tpm.Null)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		q, err := d.Quote(ctx, k, []byte("nonce"), nil)
		if err != nil {
			t.Fatal(err)
		}
		verify(t, q, []byte("nonce"))
	})
	t.Run("gone before", testGoneBefore)
	t.Run("gone meanwhile", testGoneMeanwhile)
	t.Run("stopped", testStopped)
}

// testGoneBefore: nothing was sent to a TPM that is not there any more.
func testGoneBefore(t *testing.T) {
	p := startProxied(t)
	d := openTPM(t, p.path)
	info := d.Describe().Registers[10]
	if err := d.Extend(ctx, pcr10, hashes(info, "x")); err != nil {
		t.Fatal(err)
	}
	p.end(t)
	for range 2 {
		err := d.Extend(ctx, pcr10, hashes(info, "x"))
		if err == nil || errors.Is(err, rtmr.ErrUnknown) || !errors.Is(err, syscall.EPIPE) {
			t.Errorf("extend: %v, expected EPIPE that is not ErrUnknown", err)
		}
		t.Log(err)
	}
	if _, err := d.Read(ctx); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("read: %v, expected EPIPE", err)
	}
	if _, err := tpm.Open(tpm.Options{Path: p.path}); !errors.Is(err, rtmr.ErrNotSupported) {
		t.Errorf("open: %v, expected ErrNotSupported", err)
	}
}

// testGoneMeanwhile kills a TPM under extends: the last of them says so.
func testGoneMeanwhile(t *testing.T) {
	for i := range 5 {
		p := startProxied(t)
		d := openTPM(t, p.path)
		info := d.Describe().Registers[10]
		var extends atomic.Int64
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			for err == nil {
				if err = d.Extend(ctx, pcr10, hashes(info, "x")); err == nil {
					extends.Add(1)
				}
			}
		}()
		waitUntil(t, "some extends", func() bool { return extends.Load() > int64(3+i) })
		p.end(t)
		<-done
		t.Log(err)
		if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECANCELED) {
			t.Errorf("%v, expected EPIPE or ECANCELED", err)
		}
	}
}

// testStopped stops a TPM, so that an extend hangs in the kernel, and kills it:
// whether it was extended nobody can say.
func testStopped(t *testing.T) {
	p := startProxied(t)
	d := openTPM(t, p.path)
	info := d.Describe().Registers[10]
	var err error
	started := make(chan struct{})
	tpm.Hook(d, func(command []byte) {
		if tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) == tpm2.TPMCCPCRExtend {
			p.Process.Signal(syscall.SIGSTOP)
			close(started)
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = d.Extend(ctx, pcr10, hashes(info, "x"))
	}()
	<-started
	p.end(t)
	<-done
	if !errors.Is(err, rtmr.ErrUnknown) {
		t.Errorf("%v, expected ErrUnknown", err)
	}
	t.Log(err)
}
