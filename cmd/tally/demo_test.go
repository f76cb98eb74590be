//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// built are both programs, in a folder from where any user may run them.
func built(t *testing.T) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tally-built-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "build", "-o", dir, "../../cmd/tally", "../../cmd/tallyd").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// demo is tally demo, whose temporary files go into a folder of the test's.
func demo(t *testing.T, dir string, args ...string) (cmd *exec.Cmd, temp string) {
	t.Helper()
	temp = filepath.Join(dir, "temp "+strings.ReplaceAll(t.Name(), "/", " "))
	if err := os.Mkdir(temp, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(temp, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(filepath.Join(dir, "tally"), append([]string{"demo"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp, "NO_COLOR=1")
	return cmd, temp
}

// nothingLeft reports what a demo left behind.
func nothingLeft(t *testing.T, dir, temp string) {
	t.Helper()
	left, err := os.ReadDir(temp)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || bytes.Contains(mounts, []byte("tally-demo")) {
		t.Errorf("still mounted (%v):\n%s", err, mounts)
	}
	if running := helpers(dir); len(running) > 0 {
		t.Errorf("still running: %v", running)
	}
}

// helpers are the processes of the folder's tallyd.
func helpers(dir string) (processes []string) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && exe == filepath.Join(dir, "tallyd") {
			processes = append(processes, filepath.Dir(link))
		}
	}
	return processes
}

func TestDemo(t *testing.T) {
	dir := built(t)
	t.Run("whole", func(t *testing.T) { demoWhole(t, dir) })
	t.Run("fails", func(t *testing.T) { demoFails(t, dir) })
	t.Run("ends", func(t *testing.T) { demoEnds(t, dir) })
}

// demoWhole is the demo as this user, and as one who has no rights.
func demoWhole(t *testing.T, dir string) {
	for _, user := range []string{"self", "nobody"} {
		t.Run(user, func(t *testing.T) {
			cmd, temp := demo(t, dir)
			device, accept, alone := "bpf", "--accept-self-asserted", "    chain      self-asserted: "
			if user == "nobody" {
				if os.Geteuid() != 0 {
					t.Skip("no user namespace: to become another user takes root")
				}
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			}
			out, err := cmd.CombinedOutput()
			if refused := regexp.MustCompile(`for this kernel refuses it others\n\((.*)\)`).FindSubmatch(out); refused != nil {
				if user == "self" && os.Geteuid() == 0 {
					t.Skipf("no BPF: %s", refused[1])
				}
				device, accept, alone = "memory", "--insecure-skip-signature", "    signature  missing: "
			} else if user == "nobody" {
				t.Error("nobody has registers in the kernel")
			}
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			for _, want := range []string{
				`^pcr10 .* 416 events  DIFFERS: the TPM held 46903739693e300d`,
				`^\$ tallyd run --device ` + device + ` .*--root root --state state`,
				`^device    ` + device + `: `,
				`^ima +208 entries`,
				`^\$ kill -9 [0-9]+$`,
				`^ima +416 entries`,
				`^extended before, with the same key$`,
				`^pcr0  +27fcccfa[0-9a-f]{56}  equals the TPM's$`,
				`^pcr10 +46903739[0-9a-f]{56}  equals the TPM's$`,
				`^UNTRUSTED: `,
				`^` + alone,
				`^\$ tally reconcile ` + accept + ` .*evidence.cmw\nRECONCILED: the logs explain all [0-9]+ quoted values`,
				`^\$ tally reconcile .*altered.cmw\nDIVERGED: `,
				`^  cel-journal: entry [0-9]+, .*/bim/busybox: the data do not hash`,
				`^\$ tally reconcile .*hidden.cmw\nDIVERGED: the logs do not fold to what is quoted of pcr10`,
				`^  proven: pcr10 sha1, sha256, sha384: .*/opt/crowd/170\) was extended before entry [0-9]+ .*/opt/crowd/171\)`,
			} {
				if !regexp.MustCompile(`(?m)` + want).Match(out) {
					t.Errorf("without %q:\n%s", want, out)
				}
			}
			nothingLeft(t, dir, temp)
		})
	}
}

// demoFails is with helpers that do other than the demo says.
func demoFails(t *testing.T, dir string) {
	for name, c := range map[string]struct{ script, says string }{
		"no helper":    {"exit 1", "tallyd run ended (exit status 1)"},
		"other values": {`[ "$1" != values ] || exec echo '{"sha256":{"pcr10":"` + strings.Repeat("11", 32) + `"}}'`, "not as it should be: sha1 pcr0 is , and the TPM's was bd0110293e46"},
		"twice":        {`[ "$1" != extend ] || exit 0`, `does not say "extended before"`},
		"other nonce":  {`[ "$1" != evidence ] || set -- evidence --nonce cafe "$4" "$5" "$6" "$7"`, "not as it should be: tally reconcile "},
	} {
		t.Run(name, func(t *testing.T) {
			tallyd := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			script := fmt.Sprintf("#!/bin/sh\n%s\nexec %s/tallyd \"$@\"\n", c.script, dir)
			if err := os.WriteFile(tallyd, []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd, temp := demo(t, dir, "--tallyd", tallyd)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 2 || !bytes.Contains(out, []byte(c.says)) {
				t.Errorf("%v, expected exit status 2 and %q:\n%s", err, c.says, out)
			}
			if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// demoEnds is with signals: whatever ends the demo ends its helper too, and one that it
// can catch leaves no file behind.
func demoEnds(t *testing.T, dir string) {
	for _, signal := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGKILL} {
		t.Run(unix.SignalName(signal), func(t *testing.T) {
			cmd, temp := demo(t, dir)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if printed := readUntil(t, out, "$ tallyd run"); len(helpers(dir)) == 0 {
				t.Fatalf("no helper runs:\n%s", printed)
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, out)
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || signal != unix.SIGKILL && exit.ExitCode() != 2 {
				t.Errorf("%v, expected a failure", err)
			}
			for deadline := time.Now().Add(10 * time.Second); len(helpers(dir)) > 0 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			if signal == unix.SIGKILL {
				os.RemoveAll(temp)
				os.Mkdir(temp, 0o700)
			}
			nothingLeft(t, dir, temp)
		})
	}
}

// readUntil reads until the text was printed.
func readUntil(t *testing.T, r io.Reader, text string) (printed []byte) {
	t.Helper()
	for b := make([]byte, 4096); !bytes.Contains(printed, []byte(text)); {
		n, err := r.Read(b)
		printed = append(printed, b[:n]...)
		if err != nil {
			t.Fatalf("%v before %q:\n%s", err, text, printed)
		}
	}
	return printed
}
