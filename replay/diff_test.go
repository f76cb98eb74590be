package replay_test

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"tallystick/replay"
	"tallystick/rtmr"
)

// thing is an entry about a subject, written "subject=data" or "data".
type thing string

func (e thing) Type() string   { return "thing" }
func (e thing) Detail() string { return string(e) }
func (e thing) Data() []byte   { return []byte(e) }
func (e thing) Subject() string {
	subject, _, _ := strings.Cut(string(e), "=")
	return subject
}

func (e thing) Verify(d rtmr.Digest) (rtmr.Check, []byte) {
	sum := sha256.Sum256([]byte(e))
	if d.Alg != rtmr.SHA256 || strings.HasPrefix(string(e), "?") {
		return rtmr.CannotCheck, nil
	}
	if string(sum[:]) == string(d.Sum) {
		return rtmr.Verified, nil
	}
	return rtmr.Contradicts, sum[:]
}

// entry reads "pcr8 kernel=6.1": a register and a thing, whose SHA-256 is
// extended. "pcr8 violation:x" extends 0xFF, "pcr8 ?x:y" the SHA-256 of x and
// shows y, which cannot be checked; "- x" extends nothing.
func entry(s string) rtmr.Measurement {
	reg, what, _ := strings.Cut(s, " ")
	sum := sha256.Sum256([]byte(what))
	if strings.HasPrefix(what, "violation:") {
		for i := range sum {
			sum[i] = 0xFF
		}
	}
	if digest, _, ok := strings.Cut(what, ":"); ok && what[0] == '?' {
		sum = sha256.Sum256([]byte(digest))
	}
	m := rtmr.Measurement{Entry: thing(what), Digests: []rtmr.Digest{{Alg: rtmr.SHA256, Sum: sum[:]}}}
	if m.NoAction = reg == "-"; !m.NoAction {
		m.Register = rtmr.MustParse(reg)
	}
	return m
}

// logOf is a log of such entries.
func logOf(entries ...string) replay.Source {
	var ms []rtmr.Measurement
	for i, s := range entries {
		m := entry(s)
		m.Index, m.Offset = i, int64(100*i)
		ms = append(ms, m)
	}
	return sourceOf(ms)
}

func sourceOf(ms []rtmr.Measurement) replay.Source {
	return func() iter.Seq2[rtmr.Measurement, error] { return log(ms...) }
}

// told writes changes as "- 1 pcr8 x", "~ 1 2 pcr8 x=1".
func told(changes []replay.Change) (out []string) {
	for _, c := range changes {
		s := string("-+~>=!"[c.Kind])
		for _, l := range []*replay.Logged{c.A, c.B} {
			if l != nil {
				s += fmt.Sprintf(" %d %s %s", l.Index, l.Register, l.Detail)
			}
		}
		out = append(out, s)
	}
	return out
}

func TestDiff(t *testing.T) {
	for _, tc := range []struct {
		name string
		a, b []string
		want []string
	}{
		{"same", []string{"pcr0 a", "pcr1 a"}, []string{"pcr0 a", "pcr1 a"}, nil},
		{"order_between_registers_is_free", []string{"pcr0 a", "pcr1 b", "pcr0 c"}, []string{"pcr1 b", "pcr0 a", "pcr0 c"}, nil},
		{"removed", []string{"pcr0 a", "pcr0 b", "pcr0 c"}, []string{"pcr0 a", "pcr0 c"}, []string{"- 1 pcr0 b"}},
		{"added", []string{"pcr0 a", "pcr0 c"}, []string{"pcr0 a", "pcr0 b", "pcr0 c"}, []string{"+ 1 pcr0 b"}},
		{"added_at_the_ends", []string{"pcr0 b"}, []string{"pcr0 a", "pcr0 b", "pcr0 c"}, []string{"+ 0 pcr0 a", "+ 2 pcr0 c"}},
		{"changed", []string{"pcr0 a", "pcr0 k=1", "pcr0 c"}, []string{"pcr0 a", "pcr0 k=2", "pcr0 c"}, []string{"~ 1 pcr0 k=1 1 pcr0 k=2"}},
		{"changed_and_elsewhere", []string{"pcr0 k=1", "pcr0 a", "pcr0 b"}, []string{"pcr0 a", "pcr0 b", "pcr0 k=2"}, []string{"~ 0 pcr0 k=1 2 pcr0 k=2"}},
		{"changed_nearby_before_far_off",
			[]string{"pcr0 k=1", "pcr0 a", "pcr0 b", "pcr0 k=3"}, []string{"pcr0 a", "pcr0 b", "pcr0 k=4"},
			[]string{"- 0 pcr0 k=1", "~ 3 pcr0 k=3 2 pcr0 k=4"}},
		{"another_register_has_another_subject", []string{"pcr0 k=1", "pcr1 a"}, []string{"pcr1 a", "pcr1 k=2"}, []string{"- 0 pcr0 k=1", "+ 1 pcr1 k=2"}},
		{"moved", []string{"pcr0 a", "pcr0 b", "pcr0 c"}, []string{"pcr0 b", "pcr0 c", "pcr0 a"}, []string{"> 0 pcr0 a 2 pcr0 a"}},
		{"moved_to_another_register", []string{"pcr0 a", "pcr8 b", "pcr8 c"}, []string{"pcr0 a", "pcr9 b", "pcr8 c"}, []string{"> 1 pcr8 b 1 pcr9 b"}},
		{"repeated_once_more", []string{"pcr0 a", "pcr0 s", "pcr0 b"}, []string{"pcr0 a", "pcr0 s", "pcr0 s", "pcr0 b"}, []string{"+ 2 pcr0 s"}},
		{"other_data_cannot_be_checked", []string{"pcr0 ?d:x"}, []string{"pcr0 ?d:y"}, []string{"= 0 pcr0 ?d:x 0 pcr0 ?d:y"}},
		{"other_data_beside_a_difference", []string{"pcr0 ?d:x", "pcr0 a"}, []string{"pcr0 ?d:y"}, []string{"= 0 pcr0 ?d:x 0 pcr0 ?d:y", "- 1 pcr0 a"}},
		{"violations_of_one_file_go_together",
			[]string{"pcr10 violation:x", "pcr10 a", "pcr10 violation:y"},
			[]string{"pcr10 violation:x", "pcr10 violation:w", "pcr10 a", "pcr10 violation:y"},
			[]string{"+ 1 pcr10 violation:w"}},
		{"violations_in_another_order_extend_the_same",
			[]string{"pcr10 violation:x", "pcr10 violation:y"}, []string{"pcr10 violation:y", "pcr10 violation:x"},
			[]string{"= 0 pcr10 violation:x 0 pcr10 violation:y", "= 1 pcr10 violation:y 1 pcr10 violation:x"}},
		{"one_log_is_empty", nil, []string{"pcr0 a"}, []string{"+ 0 pcr0 a"}},
		{"both_are_empty", nil, nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := replay.Diff(logOf(tc.a...), logOf(tc.b...), replay.DiffOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := told(d.Changes); !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
			if d.Same() != (len(tc.want) == 0) {
				t.Errorf("Same is %v", d.Same())
			}
		})
	}
}

// Where an image was loaded to is in the log and in no digest: two boots of
// one image are the same.
func TestDiffOtherDataOfTheSameSubject(t *testing.T) {
	d, err := replay.Diff(logOf("pcr4 ?image:x=at 1000"), logOf("pcr4 ?image:x=at 2000"), replay.DiffOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !d.Same() || len(d.Changes) != 1 || d.Changes[0].Matters() {
		t.Errorf("same %v, %q", d.Same(), told(d.Changes))
	}
}

// Of a hostile name a few KB are kept, and two that part behind those are two
// all the same.
func TestDiffLongNames(t *testing.T) {
	long := strings.Repeat("n", 16<<20)
	named := func(name, typ string) replay.Source {
		m := entry("pcr4 ?image:" + name + "=at 1000")
		m.Entry = typed{m.Entry.(thing), typ}
		return sourceOf([]rtmr.Measurement{m})
	}
	a := named(long+"a", "long type "+long+"a")
	for _, tc := range []struct {
		part string
		b    replay.Source
	}{
		{"name", named(long+"b", "long type "+long+"a")},
		{"type", named(long+"a", "long type "+long+"b")},
	} {
		d, err := replay.Diff(a, tc.b, replay.DiffOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if d.Same() || len(d.Changes) != 1 || !d.Changes[0].Matters() {
			t.Errorf("another %s: same %v, %d changes", tc.part, d.Same(), len(d.Changes))
			continue
		}
		for _, l := range []*replay.Logged{d.Changes[0].A, d.Changes[0].B} {
			const most = 5 << 10
			if len(l.Subject) > most || len(l.Type) > most || len(l.Detail) > most {
				t.Errorf("another %s: a subject of %d bytes, a type of %d, a detail of %d, expected at most %d", tc.part, len(l.Subject), len(l.Type), len(l.Detail), most)
			}
		}
	}
}

// A digest that one log's data explain and the other's contradict.
func TestDiffContradiction(t *testing.T) {
	honest, forged := entry("pcr4 k=1"), entry("pcr4 k=2")
	forged.Digests = honest.Digests
	d, err := replay.Diff(sourceOf([]rtmr.Measurement{honest}), sourceOf([]rtmr.Measurement{forged}), replay.DiffOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d.Same() || len(d.Changes) != 1 || d.Changes[0].A.Check != rtmr.Verified || d.Changes[0].B.Check != rtmr.Contradicts {
		t.Errorf("same %v, %+v", d.Same(), d.Changes)
	}
}

// A digest that was altered in a weaker bank than the one compared is found.
func TestDiffOtherBank(t *testing.T) {
	log := func(weak string) replay.Source {
		var ms []rtmr.Measurement
		for i, s := range []string{"pcr0 a", "pcr0 b", "pcr0 c"} {
			m := entry(s)
			sum := sha1.Sum([]byte(s))
			if i == 1 {
				sum = sha1.Sum([]byte(weak))
			}
			m.Index, m.Digests = i, append(m.Digests, rtmr.Digest{Alg: rtmr.SHA1, Sum: sum[:]})
			ms = append(ms, m)
		}
		return sourceOf(ms)
	}
	d, err := replay.Diff(log("x"), log("y"), replay.DiffOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d.Same() || d.Bank != rtmr.SHA256 || len(d.Changes) != 1 {
		t.Fatalf("same %v in %s, %q", d.Same(), d.Bank, told(d.Changes))
	}
	if c := d.Changes[0]; c.Kind != replay.OtherBank || c.A.Index != 1 || !slices.Equal(c.Banks, []rtmr.Alg{rtmr.SHA1}) {
		t.Errorf("%q in %v", told(d.Changes), c.Banks)
	}
	if d, err = replay.Diff(log("x"), log("y"), replay.DiffOptions{Bank: rtmr.SHA256}); err != nil || !d.Same() {
		t.Errorf("in SHA-256 alone: %v, %q", err, told(d.Changes))
	}
}

func TestDiffParts(t *testing.T) {
	d, err := replay.Diff(
		logOf("pcr0 a", "pcr1 x", "pcr0 b", "pcr0 c"),
		logOf("pcr0 a", "pcr0 b", "pcr1 x"), replay.DiffOptions{})
	if err != nil || len(d.Registers) != 2 {
		t.Fatal(err, d.Registers)
	}
	r := d.Registers[0]
	if r.Register != pcr0 || !r.Parts() || r.Agree != 2 || r.A.Parts == nil || *r.A.Parts != 3 || r.B.Parts != nil {
		t.Errorf("pcr0: %+v", r)
	}
	if d.Registers[1].Parts() {
		t.Errorf("pcr1: %+v", d.Registers[1])
	}
	// by hand: H(H(0 ‖ H(a)) ‖ H(b))
	value := make([]byte, 32)
	for _, s := range []string{"a", "b"} {
		sum := sha256.Sum256([]byte(s))
		next := sha256.Sum256(append(value, sum[:]...))
		value = next[:]
	}
	if got := r.B.Value.String(); got != rtmr.Hex(value).String() {
		t.Errorf("B's pcr0 folds to %s, want %x", got, value)
	}
}

// The same events from another locality make another PCR 0 from the start.
func TestDiffStartupLocality(t *testing.T) {
	locality := func(l uint8) rtmr.Measurement {
		return rtmr.Measurement{Register: pcr0, NoAction: true, Locality: l, Entry: thing(fmt.Sprintf("StartupLocality=%d", l))}
	}
	d, err := replay.Diff(
		sourceOf([]rtmr.Measurement{locality(3), entry("pcr0 a")}),
		sourceOf([]rtmr.Measurement{locality(4), entry("pcr0 a")}), replay.DiffOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r := d.Registers[0]; d.Same() || r.Agree != 0 || r.A.Locality != 3 || r.B.Locality != 4 || r.A.Value.String() == r.B.Value.String() {
		t.Errorf("same %v, %+v", d.Same(), r)
	}
	if got := told(d.Unmeasured); len(d.Changes) != 0 || len(got) != 1 || got[0] != "~ 0 - StartupLocality=3 0 - StartupLocality=4" {
		t.Errorf("%q and %q", told(d.Changes), got)
	}
}

// A StartupLocality behind events that extended PCR 0 has no effect.
func TestDiffStartupLocalityTooLate(t *testing.T) {
	late := rtmr.Measurement{Register: pcr0, NoAction: true, Locality: 3, Index: 1, Entry: thing("StartupLocality=3")}
	d, err := replay.Diff(sourceOf([]rtmr.Measurement{entry("pcr0 a"), late}), logOf("pcr0 a"), replay.DiffOptions{})
	if err != nil || !d.Same() || len(d.Unmeasured) != 1 {
		t.Errorf("%v, %+v", err, d)
	}
}

// typed is a thing of another type.
type typed struct {
	thing
	typ string
}

func (e typed) Type() string { return e.typ }

// The type is no more measured than the data are. What stands behind a colon
// in it is an annotation.
func TestDiffOtherType(t *testing.T) {
	as := func(typ string) replay.Source {
		m := entry("pcr11 ?a:b")
		m.Entry = typed{thing("?a:b"), typ}
		return sourceOf([]rtmr.Measurement{m})
	}
	d, err := replay.Diff(as("EV_IPL"), as("EV_ACTION"), replay.DiffOptions{})
	if err != nil || d.Same() || len(d.Changes) != 1 || d.Changes[0].Kind != replay.OtherData {
		t.Errorf("%v, same %v, %q", err, d.Same(), told(d.Changes))
	}
	d, err = replay.Diff(as("systemd:phase"), as("systemd"), replay.DiffOptions{})
	if err != nil || !d.Same() || len(d.Changes) != 0 {
		t.Errorf("%v, same %v, %q", err, d.Same(), told(d.Changes))
	}
}

// What a log leaves out it does not say otherwise: dstack's has no event data.
func TestDiffWithoutData(t *testing.T) {
	bare := entry("pcr0 a")
	bare.Entry = thing("")
	for _, logs := range [][2]replay.Source{
		{sourceOf([]rtmr.Measurement{bare}), logOf("pcr0 a")},
		{logOf("pcr0 a"), sourceOf([]rtmr.Measurement{bare})},
	} {
		if d, err := replay.Diff(logs[0], logs[1], replay.DiffOptions{}); err != nil || !d.Same() || len(d.Changes) > 0 {
			t.Errorf("%v, %q", err, told(d.Changes))
		}
	}
}

// A timestamp without a digest is not measured.
func TestDiffEntryWithoutDigests(t *testing.T) {
	stamp := entry("pcr0 time=1")
	stamp.Digests, stamp.Index = nil, 1
	d, err := replay.Diff(sourceOf([]rtmr.Measurement{entry("pcr0 a"), stamp}), logOf("pcr0 a"), replay.DiffOptions{})
	if err != nil || !d.Same() || len(d.Unmeasured) != 1 {
		t.Errorf("%v, %q, %q", err, told(d.Changes), told(d.Unmeasured))
	}
}

// An NV index is no register here, but its digest tells two entries apart.
func TestDiffNVIndex(t *testing.T) {
	nv := func(secret string) []rtmr.Measurement {
		m := entry("pcr0 " + secret)
		m.Register, m.NoAction, m.Entry = rtmr.Register{}, true, thing("cryptsetup:root")
		return []rtmr.Measurement{m}
	}
	d, err := replay.Diff(sourceOf(nv("key")), sourceOf(nv("another key")), replay.DiffOptions{})
	if err != nil || len(d.Unmeasured) != 1 || d.Unmeasured[0].Kind != replay.Changed {
		t.Errorf("%v, %q", err, told(d.Unmeasured))
	}
	d, err = replay.Diff(sourceOf(nv("key")), sourceOf(nv("key")), replay.DiffOptions{})
	if err != nil || len(d.Unmeasured) != 0 {
		t.Errorf("%v, %q", err, told(d.Unmeasured))
	}
}

func TestDiffUnmeasuredIsApart(t *testing.T) {
	d, err := replay.Diff(logOf("- header", "pcr0 a", "- x"), logOf("pcr0 a", "- x", "- y"), replay.DiffOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := told(d.Unmeasured); !d.Same() || !slices.Equal(got, []string{"- 0 - header", "+ 2 - y"}) {
		t.Errorf("same %v, %q", d.Same(), got)
	}
}

// A TPM's log beside a TD's.
func TestDiffIntoRTMR(t *testing.T) {
	pcrs, rtmrs := logOf("pcr7 a", "pcr8 b", "pcr1 c", "pcr9 d"), logOf("rtmr0 a", "rtmr0 c", "rtmr2 b", "rtmr2 d")
	d, err := replay.Diff(pcrs, rtmrs, replay.DiffOptions{Into: rtmr.KindRTMR})
	if err != nil || !d.Same() {
		t.Errorf("%v, %q", err, told(d.Changes))
	}
	d, err = replay.Diff(pcrs, rtmrs, replay.DiffOptions{})
	if got := told(d.Changes); err != nil || len(got) != 4 || got[0] != "> 2 pcr1 c 1 rtmr0 c" {
		t.Errorf("%v, %q", err, got)
	}
}

func TestDiffBank(t *testing.T) {
	two := entry("pcr0 a")
	sum := sha1.Sum([]byte("a"))
	two.Digests = append([]rtmr.Digest{{Alg: rtmr.SHA1, Sum: sum[:]}}, two.Digests...)
	weak := two
	weak.Digests = two.Digests[:1]
	padded := two
	padded.Digests = []rtmr.Digest{two.Digests[0], {Alg: rtmr.SHA256, Sum: append(slices.Clone(sum[:]), make([]byte, 12)...)}}
	sources := map[string]replay.Source{
		"padded": sourceOf([]rtmr.Measurement{padded}),
		"sha1":   sourceOf([]rtmr.Measurement{weak}),
		"sha256": logOf("pcr0 a"),
		"both":   sourceOf([]rtmr.Measurement{two}),
	}
	for _, tc := range []struct {
		a, b string
		ask  rtmr.Alg
		want rtmr.Alg // 0 for none
	}{
		{"both", "both", 0, rtmr.SHA256},
		{"both", "sha1", 0, rtmr.SHA1},
		{"both", "both", rtmr.SHA1, rtmr.SHA1},
		{"padded", "both", 0, rtmr.SHA1},
		{"padded", "padded", rtmr.SHA256, rtmr.SHA256},
		{"sha1", "sha256", 0, 0},
		{"both", "sha256", rtmr.SHA1, 0},
		{"both", "both", rtmr.SHA512, 0},
	} {
		d, err := replay.Diff(sources[tc.a], sources[tc.b], replay.DiffOptions{Bank: tc.ask})
		var none *replay.NoCommonBankError
		if errors.As(err, &none) != (tc.want == 0) || (d != nil && (d.Bank != tc.want || !d.Same())) {
			t.Errorf("%s and %s, asked for %s: %v %v", tc.a, tc.b, tc.ask, d, err)
		}
	}
}

// An entry without the bank ends its log, and is named.
func TestDiffBankMissingLater(t *testing.T) {
	bare := entry("pcr0 b")
	bare.Digests, bare.Index, bare.Offset = []rtmr.Digest{{Alg: rtmr.SHA1, Sum: make([]byte, 20)}}, 1, 77
	d, err := replay.Diff(sourceOf([]rtmr.Measurement{entry("pcr0 a"), bare}), logOf("pcr0 x", "pcr0 a"), replay.DiffOptions{})
	var fault *rtmr.SyntaxError
	if !errors.As(err, &fault) || fault.Entry != 1 || fault.Offset != 77 || fault.Field != "digests" || d.Faults[0] == nil || d.Faults[1] != nil {
		t.Fatalf("error %v, faults %v", err, d.Faults)
	}
	if got := told(d.Changes); !slices.Equal(got, []string{"+ 0 pcr0 x"}) {
		t.Errorf("%q", got)
	}
}

func TestDiffErrorKeepsPrefix(t *testing.T) {
	fault := errors.New("fault")
	cut := func() iter.Seq2[rtmr.Measurement, error] {
		return func(yield func(rtmr.Measurement, error) bool) {
			_ = yield(entry("pcr0 k=1"), nil) && yield(rtmr.Measurement{}, fault)
		}
	}
	for side, logs := range [][2]replay.Source{{cut, logOf("pcr0 k=2")}, {logOf("pcr0 k=2"), cut}} {
		d, err := replay.Diff(logs[0], logs[1], replay.DiffOptions{})
		if !errors.Is(err, fault) || d.Faults[side] != fault || d.Faults[1-side] != nil {
			t.Errorf("error %v, faults %v", err, d.Faults)
		}
		if got := told(d.Changes); len(got) != 1 || got[0][0] != '~' {
			t.Errorf("%q", got)
		}
	}
}

// A log that another process changes between the two readings is found out.
func TestDiffLogChangesWhileRead(t *testing.T) {
	for name, second := range map[string]replay.Source{"rewritten": logOf("pcr0 z"), "trimmed": logOf()} {
		reading := 0
		moving := func() iter.Seq2[rtmr.Measurement, error] {
			if reading++; reading == 1 {
				return logOf("pcr0 a")()
			}
			return second()
		}
		_, err := replay.Diff(moving, logOf("pcr0 b"), replay.DiffOptions{})
		if err == nil || !strings.Contains(err.Error(), "the log changed while it was read") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// apply makes B's digests of A's and the difference: B's entries that changes
// name stand where they say, and A's that no change names keep their order.
func apply(a []rtmr.Measurement, changes []replay.Change, n int) []string {
	out := make([]string, n)
	named := map[int]bool{}
	for _, c := range changes {
		if c.A != nil {
			named[c.A.Index] = true
		}
		if c.B != nil {
			out[c.B.Index] = string(c.B.Digest)
		}
	}
	at := 0
	for i, m := range a {
		if named[i] {
			continue
		}
		for at < n && out[at] != "" {
			at++
		}
		if at == n {
			return append(out, "too many entries")
		}
		out[at] = string(m.Digests[0].Sum)
	}
	return out
}

// checkDiff holds the properties of any difference of two logs of pcr10.
func checkDiff(t *testing.T, a, b []byte) {
	t.Helper()
	logs := [2][]rtmr.Measurement{}
	for side, codes := range [][]byte{a, b} {
		for i, code := range codes {
			m := entry(fmt.Sprintf("pcr10 %c=%d", 'a'+code%8, code))
			m.Index = i
			logs[side] = append(logs[side], m)
		}
	}
	there, err := replay.Diff(sourceOf(logs[0]), sourceOf(logs[1]), replay.DiffOptions{})
	if err != nil {
		t.Fatal(err)
	}
	back, err := replay.Diff(sourceOf(logs[1]), sourceOf(logs[0]), replay.DiffOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := apply(logs[0], there.Changes, len(b))
	for i := range got {
		if i >= len(b) || got[i] != string(logs[1][i].Digests[0].Sum) {
			t.Fatalf("%v and %v: applied to A, the difference does not give B: %q", a, b, told(there.Changes))
		}
	}
	if there.Same() != slices.Equal(a, b) || back.Same() != there.Same() {
		t.Fatalf("%v and %v: same %v, and the other way %v", a, b, there.Same(), back.Same())
	}
	var count, mirrored [6]int
	for _, c := range there.Changes {
		count[c.Kind]++
	}
	for _, c := range back.Changes {
		mirrored[c.Kind]++
	}
	if count[replay.Removed] != mirrored[replay.Added] || count[replay.Added] != mirrored[replay.Removed] || count[replay.Changed] != mirrored[replay.Changed] {
		t.Fatalf("%v and %v: %v one way, %v the other", a, b, count, mirrored)
	}
}

func TestDiffProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		kinds := 1 + r.IntN(255)
		a := make([]byte, r.IntN(40))
		for i := range a {
			a[i] = byte(r.IntN(kinds))
		}
		b := slices.Clone(a)
		for range r.IntN(10) {
			if i := r.IntN(len(b) + 1); r.IntN(2) == 0 {
				b = slices.Insert(b, i, byte(r.IntN(kinds)))
			} else if i < len(b) {
				b = slices.Delete(b, i, i+1)
			}
		}
		if r.IntN(3) == 0 {
			r.Shuffle(len(b), func(i, j int) { b[i], b[j] = b[j], b[i] })
		}
		checkDiff(t, a, b)
	}
}

func FuzzDiff(f *testing.F) {
	f.Add([]byte("abcabc"), []byte("acbbca"))
	f.Add([]byte{1, 9, 17}, []byte{17, 9, 2})
	f.Add([]byte{}, []byte{0})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		const most = 1 << 10
		checkDiff(t, a[:min(len(a), most)], b[:min(len(b), most)])
	})
}

// fleet makes two hosts' lists of n entries and more: edited, and reordered
// as neighbours race. edits counts what was done to B.
func fleet(n int) (a, b []rtmr.Measurement, edits map[replay.ChangeKind]int) {
	r := rand.New(rand.NewPCG(7, 8))
	edits = map[replay.ChangeKind]int{}
	for i := range n {
		m := number(i, 0)
		a = append(a, m)
		switch r.IntN(100) {
		case 0:
			edits[replay.Removed]++
		case 1:
			b = append(b, number(i, 1))
			edits[replay.Changed]++
		case 2:
			b = append(b, m, number(n+i, 0))
			edits[replay.Added]++
		default:
			b = append(b, m)
		}
	}
	for i := range b[:len(b)-8] {
		if j := i + r.IntN(8); r.IntN(5) == 0 {
			b[i], b[j] = b[j], b[i]
		}
	}
	for _, ms := range [][]rtmr.Measurement{a, b} {
		for i := range ms {
			ms[i].Index = i
		}
	}
	return a, b, edits
}

func TestDiffLongLists(t *testing.T) {
	const n = 100_000
	a, b, want := fleet(n)
	d, err := replay.Diff(sourceOf(a), sourceOf(b), replay.DiffOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[replay.ChangeKind]int{}
	for _, c := range d.Changes {
		got[c.Kind]++
	}
	for _, kind := range []replay.ChangeKind{replay.Removed, replay.Added, replay.Changed} {
		if got[kind] != want[kind] {
			t.Errorf("%d %s, want %d", got[kind], kind, want[kind])
		}
	}
	if got[replay.Moved] == 0 || got[replay.Moved] > n/3 {
		t.Errorf("%d of %d moved", got[replay.Moved], n)
	}
}

func BenchmarkDiff(b *testing.B) {
	const n = 100_000
	one, other, _ := fleet(n)
	for b.Loop() {
		if _, err := replay.Diff(sourceOf(one), sourceOf(other), replay.DiffOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(2*n), "ns/entry")
}

func number(subject, content int) rtmr.Measurement {
	sum := make([]byte, 32)
	binary.BigEndian.PutUint32(sum, uint32(subject+1))
	binary.BigEndian.PutUint32(sum[8:], uint32(content))
	return rtmr.Measurement{
		Register: rtmr.MustParse("pcr10"),
		Digests:  []rtmr.Digest{{Alg: rtmr.SHA256, Sum: sum}},
		Entry:    thing(fmt.Sprintf("file%d=%d", subject, content)),
	}
}
