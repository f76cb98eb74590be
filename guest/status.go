//go:build linux

package guest

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tallystick/eventlog/cel"
	"tallystick/ima"
	"tallystick/rtmr"
)

// Status is how a Helper fares. docs/json.md has its JSON, which is stable.
type Status struct {
	Helper  string           `json:"helper"` // name and version
	Started time.Time        `json:"started"`
	Device  rtmr.Description `json:"device"`
	Chosen  []string         `json:"chosen,omitempty"` // why it is this device

	IMA           int  `json:"ima"`           // entries of the kernel's list that were journaled since boot
	KernelExtends bool `json:"kernelExtends"` // the kernel extends its list itself, and the Helper does not follow it
	Lag           *Lag `json:"lag,omitempty"` // nil where the kernel does not say how long its list is
	Behind        int  `json:"behind"`        // in the journal and not in the registers

	Journal  JournalStatus `json:"journal"`
	Recovery Recovery      `json:"recovery"`

	BootLog *BootLogStatus `json:"bootLog,omitempty"` // nil where there is none
	Tap     []TapStatus    `json:"tap,omitempty"`
	Guard   *GuardStatus   `json:"guard,omitempty"`

	Evidence EvidenceStatus `json:"evidence"`

	Error     string `json:"error,omitempty"` // why the last try failed; "" once one did not
	LastError *Fault `json:"lastError,omitempty"`
}

// Lag is how far the Helper is behind the kernel's list.
type Lag struct {
	Measured int     `json:"measured"` // entries of the list as it is now
	Entries  int     `json:"entries"`  // of them, not yet journaled; 0 also where the list was trimmed below that
	Seconds  float64 `json:"seconds"`  // since it was not behind
}

// JournalStatus is the journal's.
type JournalStatus struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	Room   int64  `json:"room"` // bytes that are free in its file system; -1 if that cannot be told
	Counts        // of its records
}

// Counts are of a journal's records.
type Counts struct {
	Records      int `json:"records"`
	Applications int `json:"applications"` // measurements by applications
	Others       int `json:"others"`       // extends by others, which the tap told of
	Unexplained  int `json:"unexplained"`  // times that others extended, and nobody knows what
}

// Fault is an error and when it was.
type Fault struct {
	Text string    `json:"text"`
	Time time.Time `json:"time"`
}

// BootLogStatus is what became of the firmware's log.
type BootLogStatus struct {
	Path     string   `json:"path"`
	Extended bool     `json:"extended"` // by the Helper; else it was checked
	Events   int      `json:"events"`
	Match    []string `json:"match,omitempty"`  // registers that it folds to, such as "sha384 rtmr0"
	Differ   []string `json:"differ,omitempty"` // and that it does not
	Problem  string   `json:"problem,omitempty"`
}

// TapStatus is how one source of measurements is tapped.
type TapStatus struct {
	Source   string  `json:"source"`
	Method   string  `json:"method"`         // "" if it is polled
	Poll     float64 `json:"poll,omitempty"` // seconds
	Reason   string  `json:"reason,omitempty"`
	Measured uint64  `json:"measured"`
	Lost     uint64  `json:"lost"`   // measurements without a record
	Missed   uint64  `json:"missed"` // calls that may have measured
}

// GuardStatus is what the guard does.
type GuardStatus struct {
	State   string            `json:"state"` // "off", "armed" or "sealed"
	Reason  string            `json:"reason,omitempty"`
	Hooks   []string          `json:"hooks,omitempty"`
	Missing []string          `json:"missing,omitempty"`
	Restart string            `json:"restart,omitempty"` // why a restarted helper will not be admitted
	Denied  map[string]uint64 `json:"denied,omitempty"`
	Lost    uint64            `json:"lost"` // denials that nobody was told of
}

// EvidenceStatus is of the evidence that was made.
type EvidenceStatus struct {
	Made   int        `json:"made"`
	Failed int        `json:"failed"`
	Last   *time.Time `json:"last,omitempty"` // of a quote
	Error  *Fault     `json:"lastError,omitempty"`
	// QuoteSeconds is how long the last quote took, and HeldSeconds how much longer
	// extends waited. HeldMax is the longest of all.
	QuoteSeconds float64 `json:"quoteSeconds"`
	HeldSeconds  float64 `json:"heldSeconds"`
	HeldMax      float64 `json:"heldMaxSeconds"`
}

// About is what Status tells and a Helper does not know itself. All of it may be nil.
type About struct {
	Chosen  []string
	BootLog *BootLogStatus
	Tap     func() []TapStatus
	Guard   func() *GuardStatus
}

// Status returns how the Helper fares now. It waits for nobody.
func (h *Helper) Status() Status {
	now := h.extender.progress()
	about := &h.cfg.About
	s := Status{
		Helper: "tallyd " + Version, Started: h.started, Device: h.cfg.Device.Describe(), Chosen: about.Chosen,
		IMA: now.listed, Behind: now.behind,
		Journal:  JournalStatus{h.cfg.Journal, now.size, roomFor(h.cfg.Journal), now.counts},
		Recovery: h.extender.Recovery(), BootLog: about.BootLog, Evidence: h.proofs.status(),
	}
	if h.followMu.TryLock() { // else it is not known yet
		s.KernelExtends = h.kernelExtends
		h.followMu.Unlock()
	}
	if !s.KernelExtends {
		s.Lag = h.lagging(now.listed)
	}
	if about.Tap != nil {
		s.Tap = about.Tap()
	}
	if about.Guard != nil {
		s.Guard = about.Guard()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.LastError = h.fault; h.last != nil {
		s.Error = h.last.Error()
	}
	return s
}

// lagging holds what was journaled against the kernel's own count.
func (h *Helper) lagging(listed int) *Lag {
	text, err := os.ReadFile(filepath.Join(h.cfg.IMADir, "runtime_measurements_count"))
	if err != nil {
		return nil
	}
	measured, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil
	}
	l := &Lag{Measured: measured, Entries: max(0, measured-listed)}
	if l.Entries > 0 {
		h.lag.began()
		l.Seconds = h.lag.seconds()
	}
	return l
}

// lag is since when the Helper is behind the kernel's list, in nanoseconds of the
// Unix time; 0 if it is not.
type lag struct{ since atomic.Int64 }

func (l *lag) began() { l.since.CompareAndSwap(0, time.Now().UnixNano()) }
func (l *lag) ended() { l.since.Store(0) }

func (l *lag) seconds() float64 {
	if since := l.since.Load(); since != 0 {
		return max(0, time.Since(time.Unix(0, since)).Seconds())
	}
	return 0
}

// roomFor returns how many bytes are free in a file's file system, for root too.
func roomFor(path string) int64 {
	var fs unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &fs); err != nil {
		return -1
	}
	return int64(fs.Bavail) * fs.Bsize
}

// Values reads the registers while nothing is extended and nothing is behind, so that
// they are what the journal folds to unless others extend. It waits for a quote that is
// being made.
func (h *Helper) Values(ctx context.Context) (rtmr.Values, error) {
	if err := h.extender.mu.lockFor(ctx); err != nil {
		return nil, err
	}
	defer h.extender.unlock()
	if err := h.extender.catchUp(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	return h.cfg.Device.Read(ctx)
}

// progress is how far an Extender came.
type progress struct {
	size           int64 // of the journal
	behind, listed int
	counts         Counts
}

// publish has progress return what is so now. The lock is held.
func (e *Extender) publish() {
	e.now.Store(&progress{e.journal.Size(), len(e.behind), e.listed, e.journal.counts})
}

func (e *Extender) unlock() {
	e.publish()
	e.mu.Unlock()
}

// progress returns how far the Extender came. While it extends, or is quoted, that is
// what it was after its last record.
func (e *Extender) progress() progress {
	if e.mu.tryLock() {
		e.unlock()
	}
	return *e.now.Load()
}

// add counts a record.
func (c *Counts) add(m rtmr.Measurement) {
	c.Records++
	switch entry := m.Entry.(type) {
	case *ima.Entry: // whose template may have any name
		return
	case *cel.Entry:
		if entry.ContentType() == cel.ContentIMATemplate {
			return
		}
	}
	switch kind := m.Entry.Type(); {
	case strings.HasPrefix(kind, AppType):
		c.Applications++
	case kind == OtherType:
		c.Others++
	default:
		if b, ok, err := parseBase(m); ok && err == nil && b.Reason == foreign {
			c.Unexplained++
		}
	}
}
