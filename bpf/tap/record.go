//go:build linux

package tap

import (
	"bytes"
	"fmt"
	"time"
	"unsafe"

	"tallystick/rtmr"
)

// Source is what the kernel measures with.
type Source uint8

const (
	// IMA adds to its measurement list (ima_add_template_entry).
	IMA Source = iota
	// TSM extends a measurement register that somebody wrote to in sysfs
	// (tsm_mr_write, Linux 6.16).
	TSM

	numSources = iota
)

// String returns "ima" or "tsm".
func (s Source) String() string {
	switch s {
	case IMA:
		return "ima"
	case TSM:
		return "tsm"
	}
	return fmt.Sprintf("source(%d)", uint8(s))
}

// Record is one measurement that took place, and the process that caused it.
type Record struct {
	Source Source
	// Sequence counts the source's measurements since Open, from 1. One that is
	// missing was lost, once later ones and all before have been read: two
	// processors may hand over theirs in either order.
	Sequence uint64
	Time     time.Duration // since boot, in which the machine's sleep counts (CLOCK_BOOTTIME)

	PID      int    // of the process
	TID      int    // of its thread
	PPID     int    // of its parent process
	Comm     string // the thread's name, as whoever runs it chose
	CgroupID uint64

	// Register is the one that is extended, or no register where the kernel's
	// name for it, Name, is none of ours. IMA's is that of the list's PCR column.
	Register rtmr.Register
	Name     string

	// Violation is an IMA entry that has no digest.
	Violation bool
	// Digest is the entry's template hash, or what was written to the register;
	// its Sum is nil for a violation, and where its algorithm has no name here.
	Digest rtmr.Digest
}

// String returns the record on one line, with what others may have chosen
// escaped.
func (r Record) String() string {
	what := "no digest"
	if r.Violation {
		what = "violation"
	} else if r.Digest.Sum != nil {
		what = r.Digest.String()
	}
	return fmt.Sprintf("%s %d at %v: %s %s by %s (pid %d, tid %d, parent %d, cgroup %d)", r.Source, r.Sequence,
		r.Time, rtmr.Escape(r.Name), what, rtmr.Escape(r.Comm), r.PID, r.TID, r.PPID, r.CgroupID)
}

// decode reads a struct record of tap.h, in the machine's byte order.
func decode(raw []byte) (Record, error) {
	var t tapRecord
	b := unsafe.Slice((*byte)(unsafe.Pointer(&t)), unsafe.Sizeof(t))
	if len(raw) != len(b) {
		return Record{}, fmt.Errorf("tap: a record of %d bytes, expected %d", len(raw), len(b))
	}
	copy(b, raw)
	if t.Source >= numSources {
		return Record{}, fmt.Errorf("tap: a record of source %d, expected one below %d", t.Source, numSources)
	}
	r := Record{
		Source:    Source(t.Source),
		Sequence:  t.Sequence,
		Time:      time.Duration(t.Time),
		PID:       int(t.Pid),
		TID:       int(t.Tid),
		PPID:      int(t.Ppid),
		Comm:      cString(t.Comm[:]),
		CgroupID:  t.Cgroup,
		Violation: t.Violation != 0,
	}
	alg := rtmr.Alg(t.AlgId)
	if alg == 0 {
		alg = hashAlgs[t.HashAlgo]
	}
	if r.Source == IMA {
		r.Name = fmt.Sprintf("pcr%d", t.Pcr)
	} else {
		r.Name = cString(t.Name[:])
	}
	r.Register, _ = rtmr.ParseRegister(r.Name)
	if n := alg.Size(); n > 0 && !r.Violation && (r.Source == IMA || n == int(t.DigestSize)) {
		r.Digest = rtmr.Digest{Alg: alg, Sum: bytes.Clone(t.Digest[:n])}
	}
	return r, nil
}

func cString(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// hashAlgs are the kernel's numbers (enum hash_algo, linux/hash_info.h).
var hashAlgs = map[uint16]rtmr.Alg{
	2:  rtmr.SHA1,
	4:  rtmr.SHA256,
	5:  rtmr.SHA384,
	6:  rtmr.SHA512,
	17: rtmr.SM3,
	20: rtmr.SHA3256,
	21: rtmr.SHA3384,
	22: rtmr.SHA3512,
}
