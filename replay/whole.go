package replay

import (
	"slices"

	"tallystick/rtmr"
)

// The faults of whole logs, and the profiles by which producers are known to
// deviate.
const (
	FaultPaddedSHA1      FaultKind = "padded-sha1"      // SHA-1 padded with zeros was extended in another bank
	FaultViolations      FaultKind = "violations"       // violations were extended as another digest than logged
	FaultComputed        FaultKind = "computed-digests" // what the data hash to was extended, not the logged digests
	FaultStartupLocality FaultKind = "startup-locality" // PCR 0 began at 00..0L
	FaultBootAggregate   FaultKind = "boot-aggregate"   // boot_aggregate was not extended, or twice
	FaultKexec           FaultKind = "kexec"            // the register has the list only from a later boot_aggregate on
	FaultRegisterColumn  FaultKind = "register-column"  // another register's log was extended into this one
	FaultLogMissing      FaultKind = "log-not-extended" // nothing of a log was extended
	FaultLogRepeated     FaultKind = "log-extended-twice"
	FaultLogOrder        FaultKind = "log-order"    // the logs were extended in another order
	FaultEarlierList     FaultKind = "earlier-list" // another log was extended before this one
	FaultLaterList       FaultKind = "later-list"   // or after
	FaultOtherLog        FaultKind = "other-log"    // or in its place
)

// ofOneBank reports whether a fault is of a bank's digests, so that other banks
// say nothing about it.
func (k FaultKind) ofOneBank() bool {
	return k == FaultPaddedSHA1 || k == FaultComputed || k == FaultAltered || k == FaultReplaced
}

// whole is a fault of a whole log. It makes no edit where the log gives no
// occasion for it.
type whole func(t *tape, e *edit) (ok bool)

// section is a run of a tape's steps that are of one log.
type section struct{ log, from, to int }

// sections returns a tape's logs in their order. Steps that are of no log
// belong to the one before.
func (t *tape) sections() (all []section) {
	for i, st := range t.steps {
		if n := len(all); n > 0 && (st == nil || all[n-1].log == st.Log) {
			all[n-1].to = i + 1
		} else if st != nil {
			all = append(all, section{st.Log, i, i + 1})
		}
	}
	return all
}

// wholes returns the faults of whole logs that a tape may have.
func (s *search) wholes(t *tape) (all []whole) {
	sections := t.sections()
	scopes := []section{{-1, 0, len(t.steps)}}
	if len(sections) > 1 {
		scopes = append(scopes, sections...)
	}
	for _, sc := range scopes {
		all = append(all, rewritings(sc)...)
	}
	if pcr0, _ := rtmr.PCR(0).Register(); t.reg == pcr0 {
		// TCG PFP 1.06 §10.4.5.3: 0, 3 and 4 are the localities that start one.
		for _, l := range []int8{0, 3, 4, 1, 2} {
			all = append(all, startsAt(l))
		}
	}
	all = append(all, aggregates(t)...)
	all = append(all, orders(t, sections)...)
	for _, o := range s.tapes {
		if o.reg != t.reg && len(o.steps) > 0 {
			all = append(all, column(o, sections)...)
		}
	}
	for _, o := range s.others {
		all = append(all, besides(o)...)
	}
	return all
}

// rewritings are the profiles by which every digest of some kind is another.
func rewritings(sc section) []whole {
	violation := func(f form) func(*tape, int) item {
		return func(t *tape, i int) item {
			if st := t.steps[i]; st != nil && st.Violation {
				return as(i, f)
			}
			return own(i, 1)
		}
	}
	// A kernel that pads because it lacks a hash extends a violation whole
	// (ima_queue.c, ima_init_digests); one before 5.8 pads it too.
	padded := func(violations bool) func(*tape, int) item {
		return func(t *tape, i int) item {
			if st := t.steps[i]; st != nil && st.SHA1 != nil && (violations || !st.Violation) {
				return as(i, paddedSHA1)
			}
			return own(i, 1)
		}
	}
	return []whole{
		rewritten(FaultPaddedSHA1, paddedSHA1, sc, padded(true)),
		rewritten(FaultPaddedSHA1, paddedSHA1, sc, padded(false)),
		rewritten(FaultViolations, zeros, sc, violation(zeros)),
		rewritten(FaultViolations, ones, sc, violation(ones)),
		rewritten(FaultViolations, ones20, sc, violation(ones20)),
		rewritten(FaultComputed, computed, sc, func(t *tape, i int) item {
			if st := t.steps[i]; st != nil && len(st.Computed) > 0 {
				return as(i, computed)
			}
			return own(i, 1)
		}),
	}
}

// rewritten returns the fault that the steps of a section extended what the
// function says. A digest that is not known in some bank is left as it is.
func rewritten(k FaultKind, f form, sc section, extended func(*tape, int) item) whole {
	return func(t *tape, e *edit) bool {
		var put []item
		n, first := 0, -1
		for i := sc.from; i < sc.to; i++ {
			it := extended(t, i)
			if it.form != asLogged && it.known(t) {
				n++
				if first < 0 {
					first = i
				}
			} else {
				it = own(i, 1)
			}
			put = append(put, it)
		}
		if n == 0 {
			return false
		}
		e.add(fault{kind: k, at: first, n: n, with: made(f), log: sc.log}, sc.from, sc.to, put...)
		return true
	}
}

// known reports whether the item has a digest in some bank of the tape.
func (it *item) known(t *tape) bool {
	var buf [rtmr.MaxDigestSize]byte
	return slices.ContainsFunc(t.banks, func(s *strip) bool { return it.digests(t, s.alg, &buf) != nil })
}

func startsAt(locality int8) whole {
	return func(t *tape, e *edit) bool {
		for _, s := range t.banks {
			if s.start[s.size-1] != byte(locality) {
				e.add(fault{kind: FaultStartupLocality, at: 0, n: int(locality)}, 0, 0)
				e.locality = locality
				return true
			}
		}
		return false
	}
}

// maxAggregates bounds how many boot_aggregates of a tape are looked at: one
// for each kexec.
const maxAggregates = 16

func aggregates(t *tape) (all []whole) {
	n := 0
	for i, st := range t.steps {
		if st == nil || !st.Aggregate {
			continue
		}
		if n++; n > maxAggregates {
			break
		}
		all = append(all, at(FaultBootAggregate, i, 1, i, i+1), at(FaultBootAggregate, i, 2, i+1, i+1, own(i, 1)))
		if i > 0 {
			all = append(all, at(FaultKexec, i, i, 0, i))
		}
	}
	return all
}

// at returns a fault of one splice.
func at(k FaultKind, at, n, from, to int, put ...item) whole {
	return func(t *tape, e *edit) bool {
		e.add(fault{kind: k, at: at, n: n}, from, to, put...)
		return true
	}
}

// maxOrdered is how many logs of one register are tried in all orders.
const maxOrdered = 5

// orders are the faults of which logs were extended, how often, in what order.
func orders(t *tape, sections []section) (all []whole) {
	for _, sc := range sections {
		sc := sc
		all = append(all, func(t *tape, e *edit) bool {
			e.add(fault{kind: FaultLogMissing, at: sc.from, n: sc.to - sc.from, log: sc.log}, sc.from, sc.to)
			return true
		}, func(t *tape, e *edit) bool {
			e.add(fault{kind: FaultLogRepeated, at: sc.from, n: sc.to - sc.from, log: sc.log}, sc.to, sc.to, own(sc.from, sc.to-sc.from))
			return true
		})
	}
	n := len(t.steps)
	if len(sections) < 2 {
		return all
	}
	all = append(all, func(t *tape, e *edit) bool {
		e.add(fault{kind: FaultLogMissing, n: n, log: -1}, 0, n)
		return true
	}, func(t *tape, e *edit) bool {
		e.add(fault{kind: FaultLogRepeated, n: n, log: -1}, n, n, own(0, n))
		return true
	})
	if len(sections) > maxOrdered {
		return all
	}
	permute(sections, 0, func(order []section) {
		if slices.IsSortedFunc(order, func(a, b section) int { return a.from - b.from }) {
			return
		}
		var put []item
		for _, sc := range order {
			put = append(put, own(sc.from, sc.to-sc.from))
		}
		all = append(all, at(FaultLogOrder, 0, n, 0, n, put...))
	})
	return all
}

func permute(all []section, k int, f func([]section)) {
	if k == len(all) {
		f(all)
		return
	}
	for i := k; i < len(all); i++ {
		all := slices.Clone(all)
		all[k], all[i] = all[i], all[k]
		permute(all, k+1, f)
	}
}

// column are the faults of a log whose register column is read wrongly: by one
// where it is 0-based and taken for 1-based, or as a PCR where it is an RTMR.
func column(o *tape, sections []section) (all []whole) {
	add := func(at int, from, to func(n int) int, put ...item) {
		all = append(all, func(t *tape, e *edit) bool {
			n := len(t.steps)
			e.add(fault{kind: FaultRegisterColumn, at: at, reg: o.reg, log: -1}, from(n), to(n), put...)
			return true
		})
	}
	zero, end := func(int) int { return 0 }, func(n int) int { return n }
	every := item{of: o, n: len(o.steps)}
	add(0, zero, end, every)
	if len(sections) == 0 {
		return all
	}
	add(0, end, end, every)
	add(0, zero, zero, every)
	theirs := o.sections()
	if len(sections) == 1 && len(theirs) == 1 {
		return all
	}
	for _, sc := range theirs { // one log's column alone
		put := item{of: o, step: sc.from, n: sc.to - sc.from}
		for _, own := range sections {
			if own.log == sc.log {
				all = append(all, ofLog(sc, o, own.from, own.to, put))
			}
		}
		for _, own := range sections {
			all = append(all, ofLog(sc, o, own.to, own.to, put))
		}
	}
	return all
}

func ofLog(sc section, o *tape, from, to int, put item) whole {
	return func(t *tape, e *edit) bool {
		e.add(fault{kind: FaultRegisterColumn, at: from, reg: o.reg, log: sc.log}, from, to, put)
		return true
	}
}

// besides are the faults that a candidate log tells: it was extended before
// this one, as before a kexec, or after it, or in its place.
func besides(o *tape) []whole {
	put := item{of: o, n: len(o.steps)}
	return []whole{
		// The candidate alone comes first: what it explains does not take both.
		func(t *tape, e *edit) bool {
			e.add(fault{kind: FaultOtherLog, n: len(o.steps)}, 0, len(t.steps), put)
			return len(t.steps) > 0
		},
		at(FaultEarlierList, 0, len(o.steps), 0, 0, put),
		func(t *tape, e *edit) bool {
			e.add(fault{kind: FaultLaterList, at: len(t.steps), n: len(o.steps)}, len(t.steps), len(t.steps), put)
			return len(t.steps) > 0
		},
	}
}
