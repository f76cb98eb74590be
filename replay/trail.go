package replay

import "tallystick/rtmr"

// Trail is what a replay extended into one register of one bank, in order: all
// that is needed to fold it again with a difference.
type Trail struct {
	Register rtmr.Register
	Alg      rtmr.Alg
	Start    []byte // the value before the first step
	// Digests are the extended digests, Alg.Size() bytes a step, one after another.
	Digests []byte
	Steps   []*Step // which entry each is of; banks of one register share them
}

// Step is one entry that extended a register.
type Step struct {
	Log, Entry int   // the entry's place: its log, from 0, and its index in it
	Offset     int64 // of its first byte in the log
	Type       string
	Detail     string // at most 4 KiB
	Violation  bool   // an IMA violation
	Aggregate  bool   // IMA's boot_aggregate
	// SHA1 is what the entry extends into the SHA-1 bank; nil if not known. A
	// kernel that pads SHA-1 into other banks extended this.
	SHA1 []byte
	// Computed are the digests that the entry's own data give, in those banks
	// where they contradict the recorded one.
	Computed []rtmr.Digest
}
