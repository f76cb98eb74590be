//go:build linux

package tdx_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gotdx "github.com/google/go-tdx-guest/rtmr"
	"golang.org/x/sys/unix"

	"tallystick/lab"
	"tallystick/quote"
	"tallystick/rtmr"
	"tallystick/rtmr/devicetest"
	"tallystick/rtmr/tdx"
)

// inGuest is the tests that take labtsm. Each begins with all faults off.
func inGuest(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Device", testDevice},
		{"Registers", testRegisters},
		{"Denied", testDenied},
		{"Read", testRead},
		{"Compatible", testCompatible},
		{"Processes", testProcesses},
		{"Failed", testFailed},
		{"Meanwhile", testMeanwhile},
		{"Busy", testBusy},
		{"Interrupted", testInterrupted},
		{"Report", testReport},
		{"Quote", testQuote},
		{"QuoteFailed", testQuoteFailed},
		{"QuoteForm", testQuoteForm},
		{"QuoteCancelled", testQuoteCancelled},
		{"QuoteRace", testQuoteRace},
		{"QuoteOther", testQuoteOther},
		{"Gone", testGone},
	} {
		t.Run(test.name, func(t *testing.T) {
			for param, value := range map[string]string{
				"fail": "0", "fail_errno": "5", "fail_after": "0", "fail_times": "0", "fail_late": "N", "delay_ms": "0",
				"quote_fail": "0", "quote_errno": "16", "quote_delay_ms": "0", "quote_stale": "0", "quote_size": "4294967295",
			} {
				set(t, param, value)
			}
			test.run(t)
		})
	}
}

func set(t testing.TB, param, value string) {
	t.Helper()
	if err := os.WriteFile(lab.TSMParams+param, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// counter reads one of labtsm's parameters.
func counter(t testing.TB, param string) int {
	t.Helper()
	text, err := os.ReadFile(lab.TSMParams + param)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// load loads labtsm anew, with its registers at zero.
func load(t testing.TB, params string) {
	t.Helper()
	if err := unix.DeleteModule("labtsm", 0); err != nil && !errors.Is(err, unix.ENOENT) {
		t.Fatal(err)
	}
	f, err := os.Open(lab.TSMModule)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), params, 0); err != nil {
		t.Fatal(err)
	}
}

// noNode is for a process that has the registers' files alone.
const noNode = "/dev/no-tdx_guest"

func open(t testing.TB, opts tdx.Options) *tdx.Device {
	t.Helper()
	d, err := tdx.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var (
	rtmr2 = rtmr.MustParse("rtmr2")
	rtmr3 = rtmr.MustParse("rtmr3")
)

func digest(b byte) []rtmr.Digest {
	return []rtmr.Digest{{Alg: rtmr.SHA384, Sum: bytes.Repeat([]byte{b}, sha512.Size384)}}
}

// value is what the hardware holds, which its double keeps in a TDREPORT.
func value(t testing.TB, r rtmr.Register) rtmr.Hex {
	t.Helper()
	report, err := open(t, tdx.Options{}).Report(t.Context(), [64]byte{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := quote.Open(report, quote.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return q.Values[rtmr.SHA384][r]
}

func fold(value rtmr.Hex, digests ...[]rtmr.Digest) rtmr.Hex {
	for _, d := range digests {
		sum := sha512.Sum384(append(bytes.Clone(value), d[0].Sum...))
		value = sum[:]
	}
	return value
}

func testDevice(t *testing.T) {
	devicetest.Run(t, open(t, tdx.Options{}))
	t.Run("files", func(t *testing.T) { devicetest.Run(t, open(t, tdx.Options{Node: noNode})) })
}

func testRegisters(t *testing.T) {
	defer load(t, "")
	for rtmrs, want := range map[int]string{
		1: "[{mrtd [sha384] false} {rtmr0 [sha384] true}]",
		6: "[{mrtd [sha384] false} {rtmr0 [sha384] true} {rtmr1 [sha384] true} {rtmr2 [sha384] true} {rtmr3 [sha384] true}]",
	} {
		load(t, fmt.Sprint("rtmrs=", rtmrs))
		if got := fmt.Sprint(open(t, tdx.Options{}).Describe().Registers); got != want {
			t.Errorf("%d registers: %s, expected %s", rtmrs, got, want)
		}
	}
}

// testDenied is about a user who is not root: files can be read, and that is all.
func testDenied(t *testing.T) {
	as := func(user uint32, what string) string {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "TDX_TEST="+what)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return strings.TrimSpace(string(out))
	}
	before := value(t, rtmr2)
	if got, want := as(65534, "denied"), "open <nil>\nread "+before.String()+" <nil>\nextend true\nreport true\nquote true"; got != want {
		t.Errorf("another user: %s, expected %s", got, want)
	}
	file := filepath.Join(tdx.DefaultDir, "rtmr0:sha384")
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(file, 0o644)
	if got := as(65534, "denied"); got != "open denied" {
		t.Errorf("another user, with a file that cannot be read: %s", got)
	}
	if got := value(t, rtmr2); !bytes.Equal(got, before) {
		t.Errorf("%s is %s, expected %s", rtmr2, got, before)
	}
}

// TestMain is also what a test runs in a process of its own.
func TestMain(m *testing.M) {
	switch os.Getenv("TDX_TEST") {
	case "":
		os.Exit(m.Run())
	case "denied":
		denied()
	case "quote":
		quoteOnce()
	case "short":
		extendShort(os.Getenv("TDX_DIR"))
	case "extend":
		d, err := tdx.Open(tdx.Options{})
		for n := 0; n < 20 && err == nil; n++ {
			err = d.Extend(context.Background(), rtmr3, digest(4))
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

func denied() {
	ctx := context.Background()
	d, err := tdx.Open(tdx.Options{})
	if errors.Is(err, rtmr.ErrDenied) {
		fmt.Println("open denied")
		return
	}
	fmt.Println("open", err)
	values, err := d.Read(ctx, rtmr2)
	fmt.Println("read", values[rtmr.SHA384][rtmr2], err)
	fmt.Println("extend", errors.Is(d.Extend(ctx, rtmr2, digest(1)), rtmr.ErrDenied))
	_, err = d.Report(ctx, [64]byte{})
	fmt.Println("report", errors.Is(err, rtmr.ErrDenied))
	_, err = d.Quote(ctx, [64]byte{})
	fmt.Println("quote", errors.Is(err, rtmr.ErrDenied))
}

// testRead is about an extend that does not go through sysfs: the TDX module's
// registers show it, the files do not.
func testRead(t *testing.T) {
	d, files := open(t, tdx.Options{}), open(t, tdx.Options{Node: noNode})
	read := func(d *tdx.Device) rtmr.Hex {
		t.Helper()
		values, err := d.Read(t.Context(), rtmr2)
		if err != nil {
			t.Fatal(err)
		}
		return values[rtmr.SHA384][rtmr2]
	}
	before := read(d)
	if got := read(files); !bytes.Equal(got, before) {
		t.Errorf("the file has %s, expected %s", got, before)
	}
	set(t, "bypass", "2")
	if got := read(files); !bytes.Equal(got, before) {
		t.Errorf("the file shows an extend past it: %s, so this test is of another kernel", got)
	}
	want := fold(before, digest(0))
	for _, d := range []*tdx.Device{d, files} { // the report refreshes the files
		if got := read(d); !bytes.Equal(got, want) {
			t.Errorf("read %s, expected %s", got, want)
		}
	}
}

// testCompatible holds extends against go-tdx-guest's, which write to the same files.
func testCompatible(t *testing.T) {
	d := open(t, tdx.Options{})
	before := value(t, rtmr2)
	if err := gotdx.ExtendDigestSysfs(2, digest(1)[0].Sum); err != nil {
		t.Fatal(err)
	}
	if err := d.Extend(t.Context(), rtmr2, digest(2)); err != nil {
		t.Fatal(err)
	}
	if err := gotdx.ExtendDigest(2, digest(3)[0].Sum); err != nil {
		t.Fatal(err)
	}
	if got, want := value(t, rtmr2), fold(before, digest(1), digest(2), digest(3)); !bytes.Equal(got, want) {
		t.Errorf("%s is %s, expected %s", rtmr2, got, want)
	}
}

func testProcesses(t *testing.T) {
	want := value(t, rtmr3)
	var procs []*exec.Cmd
	for range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "TDX_TEST=extend")
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		procs = append(procs, cmd)
		for range 20 {
			want = fold(want, digest(4))
		}
	}
	for _, p := range procs {
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
	}
	if got := value(t, rtmr3); !bytes.Equal(got, want) {
		t.Errorf("%s is %s, expected %s", rtmr3, got, want)
	}
}

// outcome is what Extend's error is to be, and how often the register was extended.
type outcome struct {
	is, not  []error
	extended int
}

func (o outcome) check(t *testing.T, d *tdx.Device, digests []rtmr.Digest, meanwhile ...[]rtmr.Digest) {
	t.Helper()
	before, n := value(t, rtmr2), counter(t, "extends")
	err := d.Extend(t.Context(), rtmr2, digests)
	if (err == nil) != (len(o.is) == 0) {
		t.Errorf("%v, expected %v", err, o.is)
	}
	for _, e := range o.is {
		if !errors.Is(err, e) {
			t.Errorf("%v, expected %v", err, e)
		}
	}
	for _, e := range o.not {
		if errors.Is(err, e) {
			t.Errorf("%v, expected not to be %v", err, e)
		}
	}
	want := fold(before, meanwhile...)
	for range o.extended {
		want = fold(want, digests)
	}
	if got, extends := value(t, rtmr2), counter(t, "extends")-n-len(meanwhile); !bytes.Equal(got, want) || extends != o.extended {
		t.Errorf("%s is %s after %d extends, expected %s after %d", rtmr2, got, extends, want, o.extended)
	}
}

func testFailed(t *testing.T) {
	brief := tdx.Options{Node: noNode, Patience: 50 * time.Millisecond}
	for _, c := range []struct {
		name       string
		opts       tdx.Options
		errno      unix.Errno
		late       bool
		quotesFail int
		outcome
	}{
		{"before the extend", tdx.Options{}, unix.EIO, false, 0, outcome{[]error{unix.EIO}, []error{rtmr.ErrUnknown}, 0}},
		{"after the extend", tdx.Options{}, unix.EIO, true, 0, outcome{extended: 1}},
		{"before the extend, read back from a quote", tdx.Options{Node: noNode}, unix.EIO, false, 0, outcome{[]error{unix.EIO}, []error{rtmr.ErrUnknown}, 0}},
		{"after the extend, read back from a quote", tdx.Options{Node: noNode}, unix.EIO, true, 0, outcome{extended: 1}},
		{"after the extend, read back from a quote that is late", tdx.Options{Node: noNode}, unix.EIO, true, 2, outcome{extended: 1}},
		{"before the extend, and not read back", brief, unix.EIO, false, 1 << 20, outcome{[]error{rtmr.ErrUnknown, unix.EIO}, []error{rtmr.ErrBusy}, 0}},
		{"after the extend, and not read back", brief, unix.EIO, true, 1 << 20, outcome{[]error{rtmr.ErrUnknown, unix.EIO}, []error{rtmr.ErrBusy}, 1}},
		{"an error that says nothing was done, and not read back", brief, unix.ENXIO, false, 1 << 20, outcome{[]error{rtmr.ErrNotSupported, unix.ENXIO}, []error{rtmr.ErrUnknown}, 0}},
		{"the same, after the extend", tdx.Options{}, unix.ENXIO, true, 0, outcome{extended: 1}},
		{"no access", tdx.Options{}, unix.EACCES, false, 0, outcome{[]error{rtmr.ErrDenied, unix.EACCES}, []error{rtmr.ErrUnknown}, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			set(t, "fail", "4")
			set(t, "fail_errno", strconv.Itoa(int(c.errno)))
			set(t, "fail_late", map[bool]string{false: "N", true: "Y"}[c.late])
			set(t, "quote_fail", strconv.Itoa(c.quotesFail))
			c.check(t, open(t, c.opts), digest(7))
		})
	}
}

// testMeanwhile is about extends of others, of zeros, between the first reading and
// the write.
func testMeanwhile(t *testing.T) {
	for _, c := range []struct {
		name   string
		digest byte
		errno  unix.Errno
		late   bool
		outcome
	}{
		{"it fails", 7, unix.EIO, false, outcome{[]error{rtmr.ErrUnknown, unix.EIO}, nil, 0}},
		{"it fails late", 7, unix.EIO, true, outcome{[]error{rtmr.ErrUnknown, unix.EIO}, nil, 1}},
		{"it is refused", 7, unix.ENXIO, false, outcome{[]error{unix.ENXIO}, []error{rtmr.ErrUnknown}, 0}},
		// The register was extended by this digest, once; who did it cannot be told.
		{"the same digest", 0, unix.EIO, false, outcome{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			set(t, "fail", "4")
			set(t, "fail_errno", strconv.Itoa(int(c.errno)))
			set(t, "fail_late", map[bool]string{false: "N", true: "Y"}[c.late])
			set(t, "delay_ms", "1000")
			waiting := whenWithin(t, "labtsm_write", func() { set(t, "bypass", "2") })
			c.check(t, open(t, tdx.Options{}), digest(c.digest), digest(0))
			waiting.Wait()
		})
	}
}

// within reports whether a thread of a process is in a function of the kernel.
func within(function string, pid int) bool {
	stacks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stack", pid))
	for _, stack := range stacks {
		if text, _ := os.ReadFile(stack); strings.Contains(string(text), function) {
			return true
		}
	}
	return false
}

// until waits for a condition and reports whether it came.
func until(condition func() bool) bool {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if condition() {
			return true
		}
	}
	return false
}

// whenWithin calls f when a thread of this process is in a function of the kernel.
func whenWithin(t *testing.T, function string, f func()) *sync.WaitGroup {
	var wg sync.WaitGroup
	wg.Go(func() {
		if !until(func() bool { return within(function, os.Getpid()) }) {
			t.Errorf("no thread gets into %s", function)
		}
		f()
	})
	return &wg
}

func testBusy(t *testing.T) {
	set(t, "fail_errno", "16")
	t.Run("and then not", func(t *testing.T) {
		set(t, "fail_times", "3")
		set(t, "fail", "4")
		outcome{extended: 1}.check(t, open(t, tdx.Options{}), digest(1))
		if n := counter(t, "fail"); n != 0 {
			t.Errorf("it did not fail three times")
		}
	})
	t.Run("for ever", func(t *testing.T) {
		set(t, "fail", "4")
		outcome{[]error{rtmr.ErrBusy, unix.EBUSY}, []error{rtmr.ErrUnknown}, 0}.check(t, open(t, tdx.Options{Patience: 100 * time.Millisecond}), digest(1))
	})
	t.Run("until the context ends", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := open(t, tdx.Options{}).Extend(ctx, rtmr2, digest(1)); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, unix.EBUSY) {
			t.Errorf("%v, expected DeadlineExceeded and EBUSY", err)
		}
	})
}

// interrupt sends signals to the calling thread until stop is called. SIGUSR1 has a
// handler, so that system calls are interrupted.
func interrupt(t *testing.T) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGUSR1)
	pid, thread := os.Getpid(), unix.Gettid()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				if err := unix.Tgkill(pid, thread, unix.SIGUSR1); err != nil {
					t.Error(err)
				}
			}
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		wg.Wait()
		signal.Stop(signals)
	})
}

func testInterrupted(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	set(t, "delay_ms", "3000")
	d := open(t, tdx.Options{})

	stop := interrupt(t)
	defer stop()
	f, err := os.OpenFile(filepath.Join(tdx.DefaultDir, "rtmr2:sha384"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before, n := value(t, rtmr2), counter(t, "extends")
	if _, err := unix.Pwrite(int(f.Fd()), digest(1)[0].Sum, 0); err != unix.EINTR {
		t.Fatalf("a write that a signal meets: %v, expected EINTR", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := d.Extend(ctx, rtmr2, digest(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an extend that signals do not let through: %v, expected DeadlineExceeded", err)
	}
	if got := value(t, rtmr2); !bytes.Equal(got, before) || counter(t, "extends") != n {
		t.Errorf("%s is %s, expected %s", rtmr2, got, before)
	}

	set(t, "delay_ms", "200")
	time.AfterFunc(500*time.Millisecond, stop)
	outcome{extended: 1}.check(t, d, digest(1))
}

func testReport(t *testing.T) {
	d := open(t, tdx.Options{})
	nonce := [64]byte([]byte(strings.Repeat("nonce---", 8)))
	report, err := d.Report(t.Context(), nonce)
	if err != nil {
		t.Fatal(err)
	}
	q, err := quote.Open(report, quote.Options{Nonce: nonce[:]})
	if err != nil {
		t.Fatal(err)
	}
	checkEvidence(t, q, quote.TDReport)
	if _, err := open(t, tdx.Options{Node: os.DevNull}).Report(t.Context(), nonce); !errors.Is(err, rtmr.ErrNotSupported) {
		t.Errorf("a device without the ioctl: %v, expected ErrNotSupported", err)
	}
}

// checkEvidence holds evidence against what the registers' files have, and its
// nonce against the one it was opened with.
func checkEvidence(t *testing.T, q *quote.Quote, kind quote.Kind) {
	t.Helper()
	files, err := open(t, tdx.Options{Node: noNode}).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(q.Values) != fmt.Sprint(files) || q.Kind != kind {
		t.Errorf("a %s of %v, expected a %s of %v", q.Kind, q.Values, kind, files)
	}
	for _, link := range q.Links {
		if (link.Name == quote.Nonce || link.Name == quote.Binding) && link.Status != quote.Verified {
			t.Errorf("%+v", link)
		}
		if link.Name == quote.Signature && link.Status == quote.Verified {
			t.Errorf("%+v, of registers that prove nothing", link)
		}
	}
}

func testQuote(t *testing.T) {
	d := open(t, tdx.Options{})
	if err := d.Extend(t.Context(), rtmr2, digest(9)); err != nil {
		t.Fatal(err)
	}
	nonce := [64]byte([]byte(strings.Repeat("nonce---", 8)))
	b, err := d.Quote(t.Context(), nonce)
	if err != nil {
		t.Fatal(err)
	}
	q, err := quote.Open(b, quote.Options{Nonce: nonce[:]})
	if err != nil {
		t.Fatal(err)
	}
	checkEvidence(t, q, quote.TDX)
	wantNoRequests(t)
}

const requests = "/sys/kernel/config/tsm/report"

// wantNoRequests waits until no request is left behind.
func wantNoRequests(t *testing.T) {
	t.Helper()
	var left []os.DirEntry
	if !until(func() bool { left, _ = os.ReadDir(requests); return len(left) == 0 }) {
		t.Errorf("left behind: %v", left)
	}
}

func testQuoteFailed(t *testing.T) {
	for _, c := range []struct {
		name  string
		errno int
		fails int
		want  error
		tries int // 0: many
	}{
		{"another quote in flight", int(unix.EBUSY), 3, nil, 4},
		{"a host that is slow", int(unix.ETIMEDOUT), 2, nil, 3},
		{"in flight for ever", int(unix.EBUSY), 1 << 20, rtmr.ErrBusy, 0},
		{"slow for ever", int(unix.ETIMEDOUT), 1 << 20, rtmr.ErrBusy, 0},
		{"an error", int(unix.EIO), 1 << 20, unix.EIO, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			set(t, "quote_errno", strconv.Itoa(c.errno))
			set(t, "quote_fail", strconv.Itoa(c.fails))
			n := counter(t, "quotes")
			opts := tdx.Options{}
			if c.want == rtmr.ErrBusy {
				opts.Patience = 300 * time.Millisecond
			}
			quote, err := open(t, opts).Quote(t.Context(), [64]byte{1})
			if !errors.Is(err, c.want) || (err == nil) != (len(quote) > 0) {
				t.Errorf("%d bytes, %v, expected %v", len(quote), err, c.want)
			}
			if c.want != nil && !errors.Is(err, unix.Errno(c.errno)) {
				t.Errorf("%v, expected it to say %v", err, unix.Errno(c.errno))
			}
			if tries := counter(t, "quotes") - n; tries != c.tries && (c.tries != 0 || tries < 4) {
				t.Errorf("asked for %d times, expected %d", tries, c.tries)
			}
			wantNoRequests(t)
		})
	}
}

func testQuoteCancelled(t *testing.T) {
	set(t, "quote_delay_ms", "3000")
	d := open(t, tdx.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	waiting := whenWithin(t, "labtsm_quote", cancel)
	if _, err := d.Quote(ctx, [64]byte{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, expected Canceled", err)
	}
	if !within("labtsm_quote", os.Getpid()) {
		t.Error("a quote that was called off was waited for")
	}
	waiting.Wait()
	wantNoRequests(t)

	set(t, "quote_delay_ms", "0")
	set(t, "quote_fail", "1048576")
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := d.Quote(ctx, [64]byte{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, expected DeadlineExceeded", err)
	}
}

// testQuoteForm is about a host that gives something else than Intel's quote.
func testQuoteForm(t *testing.T) {
	d := open(t, tdx.Options{Node: noNode})
	set(t, "quote_size", "0") // the quoting service failed
	if _, err := d.Quote(t.Context(), [64]byte{}); !errors.Is(err, rtmr.ErrShort) {
		t.Errorf("an empty quote: %v, expected ErrShort", err)
	}
	for _, size := range []int{1, 100, 637} {
		set(t, "quote_size", strconv.Itoa(size))
		if quote, err := d.Quote(t.Context(), [64]byte{1}); err != nil || len(quote) != size {
			t.Errorf("%d bytes, %v, expected the host's %d", len(quote), err, size)
		}
	}
	set(t, "fail", "4")
	outcome{[]error{rtmr.ErrUnknown, unix.EIO}, nil, 0}.check(t, d, digest(1))
}

// testQuoteRace has somebody else write to requests, or remove them, while their
// quote is made.
func testQuoteRace(t *testing.T) {
	set(t, "quote_delay_ms", "500")
	write := func(request string) error {
		return os.WriteFile(filepath.Join(request, "inblob"), bytes.Repeat([]byte{0xEE}, 64), 0)
	}
	for _, c := range []struct {
		name  string
		n     int
		spoil func(request string) error
	}{
		{"written to", 3, write},
		{"removed", 3, os.Remove},
		{"written to for ever", 1 << 20, write},
		{"removed for ever", 1 << 20, os.Remove},
	} {
		t.Run(c.name, func(t *testing.T) {
			spoilt, out := spoil(t, c.n, c.spoil)
			if c.n > 3 {
				if spoilt < 2 || out != "busy" {
					t.Errorf("after %d requests: %s, expected busy", spoilt, out)
				}
			} else if b, err := hex.DecodeString(out); err != nil || spoilt != c.n {
				t.Errorf("after %d requests: %s", spoilt, out)
			} else {
				q, err := quote.Open(b, quote.Options{Nonce: raceNonce[:]})
				if err != nil {
					t.Fatal(err)
				}
				checkEvidence(t, q, quote.TDX)
			}
			wantNoRequests(t)
		})
	}
}

var raceNonce = [64]byte{1, 2, 3}

// quoteOnce is a process that asks for a quote.
func quoteOnce() {
	d, err := tdx.Open(tdx.Options{Patience: 3 * time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	b, err := d.Quote(context.Background(), raceNonce)
	switch {
	case errors.Is(err, rtmr.ErrBusy):
		fmt.Println("busy")
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Printf("%x\n", b)
	}
}

// spoil has another process ask for a quote, and calls f for the first n of its
// requests while that process is stopped. It returns how many there were, and what
// the process printed.
func spoil(t *testing.T, n int, f func(request string) error) (spoilt int, out string) {
	t.Helper()
	var stdout bytes.Buffer
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TDX_TEST=quote")
	cmd.Stdout = &stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	over := func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}
	seen := map[string]bool{}
	for len(seen) < n {
		// The first signal interrupts the quote, and the read of it begins anew
		// when the process goes on.
		until(func() bool { return within("labtsm_quote", cmd.Process.Pid) || over() })
		if over() {
			break
		}
		cmd.Process.Signal(unix.SIGSTOP)
		until(func() bool { return !within("labtsm_quote", cmd.Process.Pid) })
		entries, err := os.ReadDir(requests)
		if err != nil || len(entries) != 1 || seen[entries[0].Name()] {
			t.Errorf("requests %v, %v, expected one that is new beside %v", entries, err, seen)
			break
		}
		seen[entries[0].Name()] = true
		if err := f(filepath.Join(requests, entries[0].Name())); err != nil {
			t.Error(err)
		}
		cmd.Process.Signal(unix.SIGCONT)
		until(func() bool { _, err := os.Stat(filepath.Join(requests, entries[0].Name())); return err != nil })
	}
	cmd.Process.Signal(unix.SIGCONT)
	<-ended
	return len(seen), strings.TrimSpace(stdout.String())
}

func testQuoteOther(t *testing.T) {
	set(t, "quote_stale", "2")
	nonce := [64]byte{1, 2, 3}
	b, err := open(t, tdx.Options{}).Quote(t.Context(), nonce)
	if err != nil {
		t.Fatal(err)
	}
	q, err := quote.Open(b, quote.Options{Nonce: nonce[:]})
	if err != nil {
		t.Fatal(err)
	}
	checkEvidence(t, q, quote.TDX)

	set(t, "quote_stale", "1048576")
	if _, err := open(t, tdx.Options{Patience: 100 * time.Millisecond}).Quote(t.Context(), nonce); !errors.Is(err, rtmr.ErrBusy) {
		t.Errorf("quotes of another nonce for ever: %v, expected ErrBusy", err)
	}
	set(t, "quote_stale", "0")

	load(t, "devname=sev-guest")
	defer load(t, "")
	if _, err := tdx.Open(tdx.Options{}); !errors.Is(err, rtmr.ErrNotSupported) {
		t.Errorf("in an SEV-SNP guest: %v, expected ErrNotSupported", err)
	}
	d := open(t, tdx.Options{Dir: "/sys/devices/virtual/misc/sev-guest/measurements", Node: noNode})
	if _, err := d.Quote(t.Context(), nonce); !errors.Is(err, rtmr.ErrNotSupported) {
		t.Errorf("a quote of another provider: %v, expected ErrNotSupported", err)
	}
}

// testGone takes the driver away and brings it back.
func testGone(t *testing.T) {
	d := open(t, tdx.Options{})
	if err := unix.DeleteModule("labtsm", 0); err != nil {
		t.Fatal(err)
	}
	_, readErr := d.Read(t.Context())
	_, reportErr := d.Report(t.Context(), [64]byte{})
	_, quoteErr := d.Quote(t.Context(), [64]byte{})
	_, openErr := tdx.Open(tdx.Options{})
	for what, err := range map[string]error{
		"read": readErr, "report": reportErr, "quote": quoteErr, "open": openErr,
		"extend": d.Extend(t.Context(), rtmr2, digest(1)),
	} {
		var missing *rtmr.NotSupportedError
		if !errors.As(err, &missing) || errors.Is(err, rtmr.ErrUnknown) {
			t.Errorf("%s: %v, expected a NotSupportedError", what, err)
		}
	}
	load(t, "")
	outcome{extended: 1}.check(t, d, digest(1))
}
