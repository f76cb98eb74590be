package replay_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"tallystick/internal/testlogs"
	"tallystick/replay"
	"tallystick/rtmr"
)

// padded is a SHA-1 digest as some kernels extend it into another bank.
func padded(alg rtmr.Alg, sha1 []byte) []byte {
	return append(slices.Clone(sha1), make([]byte, alg.Size()-len(sha1))...)
}

// withViolations makes some entries of a list violations.
func withViolations(trails []*replay.Trail, at ...int) []*replay.Trail {
	for _, x := range trails {
		for _, i := range at {
			x.Steps[i].Violation = true
			copy(x.Digests[i*x.Alg.Size():], slices.Repeat([]byte{0xFF}, x.Alg.Size()))
		}
	}
	return trails
}

// TestExplainKinds: one fault each, as a machine would have it.
func TestExplainKinds(t *testing.T) {
	list := func() []*replay.Trail { return listOf(20, rtmr.SHA256, rtmr.SHA384) }
	twoLogs := func() []*replay.Trail {
		trails := list()
		for i, s := range trails[0].Steps {
			if i >= 8 {
				s.Log, s.Entry = 1, s.Entry-8
			}
			s.Aggregate = s.Entry == 0
		}
		return trails
	}
	for _, tc := range []struct {
		name   string
		trails []*replay.Trail
		edit   func(x *replay.Trail, e extended) extended
		kind   replay.FaultKind
		entry  int // -1 for none
		text   string
	}{
		{"padded_sha1_banks", list(), func(x *replay.Trail, e extended) extended {
			for i := range e {
				e[i] = padded(x.Alg, x.Steps[i].SHA1)
			}
			return e
		}, replay.FaultPaddedSHA1, 0, "20 entries extended SHA-1 padded with zeros"},
		{"padded_sha1_in_one_log_alone", twoLogs(), func(x *replay.Trail, e extended) extended {
			for i := 8; i < len(e); i++ {
				e[i] = padded(x.Alg, x.Steps[i].SHA1)
			}
			return e
		}, replay.FaultPaddedSHA1, 0, "12 entries of log 1 extended SHA-1"},
		{"padded_sha1_and_a_log_that_is_ahead", list(), func(x *replay.Trail, e extended) extended {
			for i := range e {
				e[i] = padded(x.Alg, x.Steps[i].SHA1)
			}
			return e[:15]
		}, replay.FaultPaddedSHA1, 0, "5 entries of it came after the quote"},
		{"violations_as_zeros", withViolations(list(), 3, 7, 8), func(x *replay.Trail, e extended) extended {
			for _, i := range []int{3, 7, 8} {
				e[i] = make([]byte, x.Alg.Size())
			}
			return e
		}, replay.FaultViolations, 3, "3 violations extended a digest of zeros"},
		{"one_violation_as_zeros", withViolations(list(), 3, 7, 8), func(x *replay.Trail, e extended) extended {
			e[7] = make([]byte, x.Alg.Size())
			return e
		}, replay.FaultAltered, 7, "extended as a digest of zeros"},
		{"a_violation_not_extended", withViolations(list(), 3, 7), func(x *replay.Trail, e extended) extended {
			return slices.Delete(e, 7, 8)
		}, replay.FaultViolationMissing, 7, "is in the log and was not extended"},
		{"entries_alike_are_told", withViolations(list(), 7, 8, 9), func(x *replay.Trail, e extended) extended {
			return slices.Delete(e, 8, 9)
		}, replay.FaultViolationMissing, 7, "one of 3 entries that are alike"},
		{"boot_aggregate_not_extended", list(), func(x *replay.Trail, e extended) extended { return e[1:] },
			replay.FaultBootAggregate, 0, "a boot_aggregate, was not extended"},
		{"kexec_register_has_only_the_second_list", twoLogs(), func(x *replay.Trail, e extended) extended { return e[8:] },
			replay.FaultKexec, 0, "another kernel's"},
		{"a_head_missing", list(), func(x *replay.Trail, e extended) extended { return e[5:] },
			replay.FaultHeadMissing, 0, "the register begins with entry 5"},
		{"a_log_not_extended", twoLogs(), func(x *replay.Trail, e extended) extended { return append(e[:8:8], e[8:8]...) },
			"", 0, ""}, // that is a log which is ahead
		{"a_log_extended_twice", twoLogs(), func(x *replay.Trail, e extended) extended {
			return slices.Concat(e[:8], e[:8], e[8:])
		}, replay.FaultLogRepeated, -1, "the 8 entries of log 0 were extended twice"},
		{"logs_in_another_order", twoLogs(), func(x *replay.Trail, e extended) extended {
			return slices.Concat(e[8:], e[:8])
		}, replay.FaultLogOrder, -1, "another order"},
		{"nothing_was_extended", list(), func(x *replay.Trail, e extended) extended { return nil },
			replay.FaultLogMissing, -1, "none of the 20 entries"},
		{"windows_caps_a_bank", list(), func(x *replay.Trail, e extended) extended {
			return append(e[:17], make([]byte, x.Alg.Size()))
		}, replay.FaultUnloggedZeros, -1, "a digest of zeros that no log has was extended before entry 17"},
		{"a_separator_of_an_error", list(), func(x *replay.Trail, e extended) extended {
			return append(e, x.Alg.AppendHash(nil, []byte{1, 0, 0, 0}))
		}, replay.FaultUnloggedSeparator, -1, "a separator of an error, 00000001 that no log has was extended after the last entry"},
		{"missing_from_a_log_that_is_ahead", list(), func(x *replay.Trail, e extended) extended {
			return slices.Delete(e, 9, 10)[:14]
		}, replay.FaultMissing, 9, "5 entries of it came after"},
		{"moved_earlier", list(), func(x *replay.Trail, e extended) extended {
			return slices.Insert(slices.Delete(e, 15, 16), 5, e[15])
		}, replay.FaultMoved, 15, "10 entries earlier than logged"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "moved_earlier" { // e[15] above is read when it is gone
				tc.edit = func(x *replay.Trail, e extended) extended {
					d := e[15]
					return slices.Insert(slices.Delete(e, 15, 16), 5, d)
				}
			}
			r := explain(t, tc.trails, hardware(tc.trails, tc.edit), replay.SearchOptions{})
			if tc.kind == "" {
				if len(r.Found) > 0 {
					t.Errorf("%+v", r.Found)
				}
				return
			}
			x := proven(t, r)
			if x.Kind != tc.kind || x.Entry != tc.entry || !strings.Contains(x.Text, tc.text) {
				t.Errorf("%s, entry %d: %s", x.Kind, x.Entry, x.Text)
			}
			if len(x.Banks) != 2 || len(x.Against) > 0 || len(x.Edits) != 1 {
				t.Errorf("in %v, against %v, %d edits", x.Banks, x.Against, len(x.Edits))
			}
			if r.Tried == 0 || r.Folds == 0 || len(r.NotTried) > 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestExplainTwoFaults: near each other, far apart, and with a profile.
func TestExplainTwoFaults(t *testing.T) {
	trails := listOf(100, rtmr.SHA256)
	for name, edit := range map[string]func(x *replay.Trail, e extended) extended{
		"near": func(x *replay.Trail, e extended) extended { return slices.Delete(slices.Delete(e, 40, 41), 30, 31) },
		"far": func(x *replay.Trail, e extended) extended {
			e[3], e[4] = e[4], e[3]
			return slices.Delete(e, 90, 91)
		},
		"with_a_profile": func(x *replay.Trail, e extended) extended {
			for i := range e {
				e[i] = padded(x.Alg, x.Steps[i].SHA1)
			}
			return slices.Delete(e, 50, 51)
		},
		"two_of_whole_logs": func(x *replay.Trail, e extended) extended {
			for i := range e {
				e[i] = padded(x.Alg, x.Steps[i].SHA1)
			}
			return e[1:]
		},
	} {
		t.Run(name, func(t *testing.T) {
			quoted := hardware(trails, edit)
			if x := proven(t, explain(t, trails, quoted, replay.SearchOptions{})); len(x.Edits) != 2 {
				t.Errorf("%d edits", len(x.Edits))
			}
			r := explain(t, trails, quoted, replay.SearchOptions{MaxEdits: 1})
			if r.Found[0].Proven || !slices.ContainsFunc(r.NotTried, func(s string) bool { return strings.Contains(s, "more than one fault at once") }) {
				t.Errorf("with one edit: %+v", r)
			}
		})
	}
}

func TestExplainThreeFaults(t *testing.T) {
	trails := listOf(60, rtmr.SHA256)
	quoted := hardware(trails, func(x *replay.Trail, e extended) extended {
		e = slices.Insert(slices.Delete(e, 40, 41), 33, e[33])
		e[30], e[31] = e[31], e[30]
		return e
	})
	if x := proven(t, explain(t, trails, quoted, replay.SearchOptions{MaxEdits: 3})); len(x.Edits) != 3 || x.Entry != 30 || x.Edits[2].Entry != 40 {
		t.Errorf("%+v", x)
	}
	if r := explain(t, trails, quoted, replay.SearchOptions{}); r.Found[0].Proven {
		t.Errorf("%+v", r.Found)
	}
}

// TestExplainOneBank: what differs in one bank is told of that bank, and a bank
// that speaks against an edit is named.
func TestExplainOneBank(t *testing.T) {
	trails := listOf(30, rtmr.SHA1, rtmr.SHA256)
	in := func(alg rtmr.Alg, edit func(e extended) extended) rtmr.Values {
		return hardware(trails, func(x *replay.Trail, e extended) extended {
			if x.Alg == alg {
				return edit(e)
			}
			return e
		})
	}
	x := proven(t, explain(t, trails, in(rtmr.SHA256, func(e extended) extended {
		e[12] = padded(rtmr.SHA256, trails[0].Steps[12].SHA1)
		return e
	}), replay.SearchOptions{}))
	if x.Kind != replay.FaultAltered || x.Entry != 12 || !slices.Equal(x.Banks, []rtmr.Alg{rtmr.SHA256}) || len(x.Against) > 0 {
		t.Errorf("%+v", x)
	}
	x = proven(t, explain(t, trails, in(rtmr.SHA256, func(e extended) extended { return slices.Delete(e, 12, 13) }), replay.SearchOptions{}))
	if x.Kind != replay.FaultMissing || x.Entry != 12 || !slices.Equal(x.Against, []rtmr.Alg{rtmr.SHA1}) {
		t.Errorf("%+v", x)
	}
	r := explain(t, trails, in(rtmr.SHA1, func(e extended) extended { e[5] = digestOf(rtmr.SHA1, 999); return e }), replay.SearchOptions{})
	if len(r.Found) != 1 || r.Found[0].Kind != replay.FaultOneBank || r.Found[0].Proven {
		t.Errorf("%+v", r.Found)
	}
	// Two banks, each with a fault of its own.
	r = explain(t, trails, hardware(trails, func(x *replay.Trail, e extended) extended {
		if x.Alg == rtmr.SHA1 {
			return slices.Delete(e, 3, 4)
		}
		return slices.Delete(e, 4, 5)
	}), replay.SearchOptions{})
	if len(r.Found) != 2 || !r.Found[0].Proven || !r.Found[1].Proven || r.Found[0].Entry != 3 || r.Found[1].Entry != 4 ||
		!slices.Equal(r.Found[0].Against, []rtmr.Alg{rtmr.SHA256}) {
		t.Errorf("%+v", r.Found)
	}
}

func TestExplainCandidates(t *testing.T) {
	trails := listOf(30, rtmr.SHA1, rtmr.SHA256)
	gone := digestOf(rtmr.SHA256, 1000)
	only256 := trails[1:]
	quoted := hardware(only256, func(x *replay.Trail, e extended) extended { return slices.Insert(e, 21, gone) })

	r := explain(t, only256, quoted, replay.SearchOptions{})
	if len(r.Found) == 0 || r.Found[0].Kind != replay.FaultUnloggedEntry || r.Found[0].Proven || r.Found[0].First != 0 || r.Found[0].Last != 30 {
		t.Errorf("without: %+v", r.Found)
	}
	opts := replay.SearchOptions{Candidates: []rtmr.Digest{{Alg: rtmr.SHA256, Sum: digestOf(rtmr.SHA256, 5000)}, {Alg: rtmr.SHA256, Sum: gone}, {Alg: rtmr.SHA256, Sum: []byte{1}}}}
	if x := proven(t, explain(t, only256, quoted, opts)); x.Kind != replay.FaultUnloggedEntry || x.First != 21 {
		t.Errorf("%+v", x)
	}
	quoted = hardware(only256, func(x *replay.Trail, e extended) extended { e[21] = gone; return e })
	if x := proven(t, explain(t, only256, quoted, opts)); x.Kind != replay.FaultReplaced || x.Entry != 21 {
		t.Errorf("%+v", x)
	}
	// A longer log of the same, in both banks.
	more := listOf(33, rtmr.SHA1, rtmr.SHA256)
	quoted = hardware(trails, func(x *replay.Trail, e extended) extended { return slices.Insert(e, 4, digestOf(x.Alg, 32)) })
	if x := proven(t, explain(t, trails, quoted, replay.SearchOptions{CandidateTrails: more})); x.Kind != replay.FaultUnloggedEntry || x.First != 4 || x.Entry != 32 || len(x.Banks) != 2 {
		t.Errorf("%+v", x)
	}
	// A register that no log has an entry of.
	empty := []*replay.Trail{{Register: pcr10, Alg: rtmr.SHA256, Start: make([]byte, 32)}}
	if x := proven(t, explain(t, empty, hardware(only256, unedited), replay.SearchOptions{CandidateTrails: only256})); x.Kind != replay.FaultEarlierList {
		t.Errorf("%+v", x)
	}
	if r := explain(t, empty, hardware(only256, unedited), replay.SearchOptions{}); len(r.Found) != 1 || r.Found[0].Proven {
		t.Errorf("%+v", r.Found)
	}
}

// TestExplainEarlier: older quotes bound the search, and cut several faults
// into one at a time.
func TestExplainEarlier(t *testing.T) {
	trails := listOf(300, rtmr.SHA256)
	at := func(n int, edit func(e extended) extended) rtmr.Values {
		return hardware(trails, func(x *replay.Trail, e extended) extended { return edit(e)[:n] })
	}
	as := func(e extended) extended { return e }
	one := func(e extended) extended { return slices.Delete(e, 120, 121) }
	three := func(e extended) extended {
		e = slices.Delete(e, 280, 281)
		e[200], e[201] = e[201], e[200]
		return one(e)
	}
	full := replay.SearchOptions{MaxEdits: 1}
	x := proven(t, explain(t, trails, at(299, one), full))
	full.Earlier = []rtmr.Values{at(50, as), at(100, as)}
	bounded := explain(t, trails, at(299, one), full)
	if y := proven(t, bounded); y.Entry != 120 || y.Entry != x.Entry {
		t.Errorf("%+v", y)
	}
	full.Earlier = []rtmr.Values{at(100, as), at(150, three), at(250, three)}
	if y := proven(t, explain(t, trails, at(298, three), full)); len(y.Edits) != 3 || y.Entry != 120 || y.Edits[1].Entry != 200 || y.Edits[2].Entry != 280 {
		t.Errorf("%+v", y)
	}
	// A value of another boot does not stand in the way.
	full.Earlier = []rtmr.Values{{rtmr.SHA256: {pcr10: digestOf(rtmr.SHA256, 7777)}}}
	if y := proven(t, explain(t, trails, at(299, one), full)); y.Entry != 120 || !strings.Contains(y.Text, "does not pass 1 earlier quote") {
		t.Errorf("%+v", y)
	}
	// What is not explained lies behind the last quote that is.
	full.Earlier = []rtmr.Values{at(100, as)}
	r := explain(t, trails, at(250, func(e extended) extended { e[222] = digestOf(rtmr.SHA256, 4444); return e }), full)
	if r.Found[0].Proven || r.Found[0].First != 100 || r.Found[0].Last != 300 {
		t.Errorf("%+v", r.Found)
	}
	full.Earlier = []rtmr.Values{at(100, as), at(150, one)}
	r = explain(t, trails, at(250, func(e extended) extended { e[222] = digestOf(rtmr.SHA256, 4444); return one(e) }), full)
	if x := r.Found[0]; x.Proven || len(x.Edits) != 1 || x.Entry != 120 {
		t.Errorf("%+v", r.Found)
	}
}

// TestExplainComposite: a TPM's quote without values has one digest over all.
func TestExplainComposite(t *testing.T) {
	for _, m := range testlogs.Machines(t) {
		if m.Name != "fixtures/sig-6.12+ima.bin" {
			continue
		}
		for _, banks := range [][]rtmr.Alg{{rtmr.SHA256}, {rtmr.SHA384, rtmr.SHA1}} {
			trails := trailsOf(t, m.Profile, banks, m.Logs...)
			c := rtmr.Composite{Digest: rtmr.Digest{Alg: rtmr.SHA256}}
			for _, alg := range banks {
				for i := range 11 {
					reg, _ := rtmr.PCR(i).Register()
					c.Selection = append(c.Selection, rtmr.Selected{Alg: alg, Register: reg})
				}
			}
			compose := func(edit func(x *replay.Trail, e extended) extended) []rtmr.Composite {
				values := hardware(trails, edit)
				for _, sel := range c.Selection {
					if values[sel.Alg][sel.Register] == nil {
						values[sel.Alg][sel.Register] = sel.Register.ResetValue(sel.Alg)
					}
				}
				sum, err := c.Of(values)
				if err != nil {
					t.Fatal(err)
				}
				q := c
				q.Digest.Sum = sum
				return []rtmr.Composite{q}
			}
			for _, reg := range []rtmr.Register{pcr10, rtmr.MustParse("pcr7")} {
				r := explain(t, trails, nil, replay.SearchOptions{Composites: compose(unedited)})
				if len(r.Found) > 0 {
					t.Errorf("as it is: %+v", r.Found)
				}
				r = explain(t, trails, nil, replay.SearchOptions{Composites: compose(func(x *replay.Trail, e extended) extended {
					if x.Register == pcr10 {
						return e[:len(e)-3]
					}
					return e
				})})
				if len(r.Found) > 0 {
					t.Errorf("a log that is ahead: %+v", r.Found)
				}
				x := proven(t, explain(t, trails, nil, replay.SearchOptions{Composites: compose(func(x *replay.Trail, e extended) extended {
					if x.Register == reg {
						return slices.Delete(e, 2, 3)
					}
					return e
				})}))
				if x.Register != reg || x.First > 2 || x.Last < 2 || len(x.Banks) != len(banks) {
					t.Errorf("%+v", x)
				}
			}
		}
	}
}

// TestExplainKexec: the second kernel's list alone; then with the first one's.
func TestExplainKexec(t *testing.T) {
	for _, m := range testlogs.Machines(t) {
		if m.Name != "fixtures/kexec-6.12+first-ima.bin+ima.bin" {
			continue
		}
		banks := []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384}
		boot, first, second := m.Logs[0], m.Logs[1], m.Logs[2]
		trails := trailsOf(t, "", banks, boot, second)
		r := explain(t, trails, m.Held, replay.SearchOptions{Budget: 2 * time.Second})
		if !slices.ContainsFunc(r.Found, func(x replay.Explanation) bool { return x.Kind == replay.FaultKexec && !x.Proven }) ||
			!slices.ContainsFunc(r.Found, func(x replay.Explanation) bool {
				return x.Kind == replay.FaultOtherBoot && strings.Contains(x.Text, "pcr0, ")
			}) {
			t.Errorf("the second list alone: %+v", r.Found)
		}
		x := proven(t, explain(t, trails, m.Held, replay.SearchOptions{CandidateTrails: trailsOf(t, "", banks, first)}))
		if x.Kind != replay.FaultEarlierList || len(x.Banks) != 3 {
			t.Errorf("%+v", x)
		}
	}
}

// TestExplainProfiles: real logs read by another profile than their kernel's.
func TestExplainProfiles(t *testing.T) {
	for _, m := range testlogs.Machines(t) {
		switch m.Name {
		case "fixtures/ng-small-6.1+ima.bin":
			trails := trailsOf(t, "", []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384}, m.Logs...)
			x := proven(t, explain(t, trails, m.Held, replay.SearchOptions{}))
			if x.Kind != replay.FaultPaddedSHA1 || !slices.Equal(x.Banks, []rtmr.Alg{rtmr.SHA384}) || len(x.Against) > 0 {
				t.Errorf("%+v", x)
			}
		case "corpus/tdx-ccel-ima/ccel_data.bin":
			trails := trailsOf(t, "violation-zero", []rtmr.Alg{rtmr.SHA384}, m.Logs...)
			x := proven(t, explain(t, trails, m.Held, replay.SearchOptions{}))
			if x.Kind != replay.FaultRegisterColumn || x.Register != rtmr.MustParse("rtmr2") {
				t.Errorf("%+v", x)
			}
		}
		if len(m.Differ) > 0 && strings.HasPrefix(m.Name, "corpus/tpm-failed-pcr0/failed") {
			trails := trailsOf(t, "", []rtmr.Alg{rtmr.SHA256}, m.Logs...)
			r := explain(t, trails, m.Held, replay.SearchOptions{})
			if len(r.Found) == 0 || r.Found[0].Register != pcr0 {
				t.Errorf("%+v", r.Found)
			}
		}
	}
}

func TestExplainStartupLocality(t *testing.T) {
	list := listOf(9, rtmr.SHA1, rtmr.SHA256)
	for _, x := range list {
		x.Register = pcr0
	}
	started := listOf(9, rtmr.SHA1, rtmr.SHA256)
	for _, x := range started {
		x.Register = pcr0
		x.Start[len(x.Start)-1] = 3
	}
	for _, tc := range []struct {
		log, machine []*replay.Trail
		text         string
	}{{list, started, "00..03"}, {started, list, "00..00"}} {
		x := proven(t, explain(t, tc.log, hardware(tc.machine, unedited), replay.SearchOptions{}))
		if x.Kind != replay.FaultStartupLocality || !strings.Contains(x.Text, tc.text) || len(x.Banks) != 2 {
			t.Errorf("%+v", x)
		}
	}
}

// TestExplainColumns: the log's entries were read under another register.
func TestExplainColumns(t *testing.T) {
	boot, list := listOf(5, rtmr.SHA384), listOf(9, rtmr.SHA384)
	rtmr1, rtmr2 := rtmr.MustParse("rtmr1"), rtmr.MustParse("rtmr2")
	boot[0].Register, list[0].Register = rtmr1, rtmr2
	list[0].Digests = slices.Concat(list[0].Digests[9*24:], list[0].Digests[:9*24])
	for _, s := range list[0].Steps {
		s.Log = 1
	}
	own := extendedOf(boot[0])
	quoted := rtmr.Values{rtmr.SHA384: {
		rtmr1: slices.Concat(own, extendedOf(list[0])).value(boot[0]),
		rtmr2: rtmr2.ResetValue(rtmr.SHA384),
	}}
	r := explain(t, slices.Concat(boot, list), quoted, replay.SearchOptions{})
	if len(r.Found) != 2 || !slices.ContainsFunc(r.Found, func(x replay.Explanation) bool {
		return x.Proven && x.Register == rtmr1 && x.Kind == replay.FaultRegisterColumn
	}) || !slices.ContainsFunc(r.Found, func(x replay.Explanation) bool {
		return x.Proven && x.Register == rtmr2 && x.Kind == replay.FaultLogMissing
	}) {
		t.Errorf("%+v", r.Found)
	}
}

func TestExplainProgress(t *testing.T) {
	trails := listOf(2000, rtmr.SHA256)
	calls := 0
	replay.Explain(context.Background(), trails, rtmr.Values{rtmr.SHA256: {pcr10: make([]byte, 31, 32)[:32]}}, replay.SearchOptions{
		Budget: 350 * time.Millisecond, Earlier: []rtmr.Values{nil, {}},
		Progress: func(done, total uint64) {
			if calls++; done > total || total == 0 {
				t.Errorf("%d of %d", done, total)
			}
		}})
	_ = calls
}
