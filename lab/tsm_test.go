//go:build linux

package lab_test

import (
	"bytes"
	"crypto/sha512"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tallystick/lab"
)

// tsm is a guest with labtsm, and what its registers are to hold.
type tsm struct {
	*testing.T
	*lab.Guest
	want [4][sha512.Size384]byte
}

func (m *tsm) file(i int) string { return fmt.Sprintf("%srtmr%d:sha384", lab.TSMDir, i) }

// extended folds a digest as the hardware does.
func (m *tsm) extended(i int, digest []byte) {
	m.want[i] = sha512.Sum384(append(m.want[i][:], digest...))
}

// check holds every register against what it is to hold.
func (m *tsm) check(when string) {
	m.Helper()
	for i := range m.want {
		if got := m.Get(m.file(i)); !bytes.Equal(got, m.want[i][:]) {
			m.Errorf("%s: rtmr%d is %x, expected %x", when, i, got, m.want[i])
		}
	}
}

func (m *tsm) set(param, value string) { m.Put(lab.TSMParams+param, []byte(value)) }

// TestTSM holds the double of TDX's registers against SHA-384, and against what
// the kernel's interface says of writes of another size, and has it fail.
func TestTSM(t *testing.T) {
	m := &tsm{T: t, Guest: lab.Machine{Kernel: "7.3", Firmware: lab.SeaBIOS, TPM: lab.NoTPM, TSM: true}.Start(t)}
	digest := func(b byte) []byte { return bytes.Repeat([]byte{b}, sha512.Size384) }
	m.check("at the start")
	mrtd := sha512.Sum384([]byte("labtsm"))
	if got := m.Get(lab.TSMDir + "mrtd:sha384"); !bytes.Equal(got, mrtd[:]) {
		t.Errorf("mrtd is %x", got)
	}
	for n := range 12 {
		i := n % len(m.want)
		m.Put(m.file(i), digest(byte(n)))
		m.extended(i, digest(byte(n)))
		m.check(fmt.Sprint("after extend ", n))
	}

	for _, size := range []int{1, 47} {
		if err := m.Write(m.file(2), digest(9)[:size]); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%d bytes: %v, expected EINVAL", size, err)
		}
		m.check(fmt.Sprint("after a write of ", size))
	}
	// The kernel takes the file's size of what is written, and refuses the rest,
	// which is beyond its end (fs/kernfs/file.c, fs/sysfs/file.c).
	if err := m.Write(m.file(2), append(digest(9), 9)); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("49 bytes: %v, expected EFBIG", err)
	}
	m.extended(2, digest(9))
	m.check("after a write of 49 bytes, of which 48 are an extend")
	if err := m.Write(lab.TSMDir+"mrtd:sha384", digest(1)); err == nil {
		t.Error("mrtd was written")
	}

	m.set("fail", "4")
	if err := m.Write(m.file(2), digest(1)); !errors.Is(err, syscall.EIO) {
		t.Errorf("a failing extend: %v, expected EIO", err)
	}
	m.Put(m.file(1), digest(1)) // the others go on
	m.extended(1, digest(1))
	m.check("after a failed extend")
	m.set("fail_after", "1")
	m.Put(m.file(2), digest(2))
	m.extended(2, digest(2))
	m.set("fail_late", "Y")
	if err := m.Write(m.file(2), digest(3)); !errors.Is(err, syscall.EIO) {
		t.Errorf("an extend that fails late: %v, expected EIO", err)
	}
	m.set("fail", "0")
	m.Put(m.file(2), digest(4)) // which has the library read the registers anew
	m.extended(2, digest(3))
	m.extended(2, digest(4))
	m.check("after an extend that failed late")

	m.set("bypass", "3")
	m.check("after an extend past sysfs, which does not see it")
	m.Put(m.file(3), digest(5))
	m.extended(3, digest(0))
	m.extended(3, digest(5))
	m.check("after an extend past sysfs and one through it")

	if trace := traced(m, func() { m.Put(m.file(0), digest(6)) }); !strings.Contains(trace, "tsm_mr_write") || !strings.Contains(trace, strings.Repeat("06", sha512.Size384)) {
		t.Errorf("the tracepoint of an extend: %s", trace)
	}
	m.extended(0, digest(6))
	m.quotes()
	m.Stop()
}

// quotes holds a quote's fields against what is to be there, and has quotes fail.
func (m *tsm) quotes() {
	const entry = "/sys/kernel/config/tsm/report/test/"
	m.Guest.Run("mkdir", entry)
	nonce := digest64(7)
	m.Put(entry+"inblob", nonce)
	quote := m.Get(entry + "outblob")
	// The offsets of a version 4 quote: header 48 bytes, MRTD 184, RTMR0 376, ..,
	// REPORTDATA 568 (Intel's TDX DCAP Quoting Library API, A.3).
	mrtd := sha512.Sum384([]byte("labtsm"))
	want := slices.Concat(m.want[0][:], m.want[1][:], m.want[2][:], m.want[3][:], nonce)
	if !bytes.HasPrefix(quote, []byte{4, 0, 2, 0, 0x81, 0, 0, 0}) || !bytes.Equal(quote[184:232], mrtd[:]) || !bytes.Equal(quote[376:632], want) {
		m.Errorf("the quote is %x, expected MRTD %x and the registers and REPORTDATA %x", quote, mrtd, want)
	}
	if provider, generation := m.Get(entry+"provider"), m.Get(entry+"generation"); string(provider) != "tdx_guest\n" || string(generation) != "1\n" {
		m.Errorf("provider %q, generation %q", provider, generation)
	}
	m.set("quote_fail", "1")
	m.set("quote_errno", "110")
	m.Put(entry+"inblob", nonce)
	if _, err := m.Read(entry + "outblob"); !errors.Is(err, syscall.ETIMEDOUT) {
		m.Errorf("a failing quote: %v, expected ETIMEDOUT", err)
	}
	if again := m.Get(entry + "outblob"); !bytes.Equal(again, quote) {
		m.Errorf("the quote after one that failed is %x", again)
	}
	m.Guest.Run("rmdir", entry)
}

func digest64(b byte) []byte { return bytes.Repeat([]byte{b}, sha512.Size) }

// traced runs f and returns what the library's tracepoints told meanwhile.
func traced(m *tsm, f func()) string {
	const events = "/sys/kernel/tracing/events/tsm_mr/enable"
	m.Put(events, []byte("1"))
	f()
	m.Put(events, []byte("0"))
	return string(m.Get("/sys/kernel/tracing/trace"))
}
