package replay_test

import (
	"errors"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"

	"tallystick/replay"
	"tallystick/rtmr"
)

// copiedEntry is an entry of a log by hand.
type copiedEntry struct {
	typ, data string
}

func (e copiedEntry) Type() string                                { return e.typ }
func (e copiedEntry) Detail() string                              { return e.data }
func (e copiedEntry) Data() []byte                                { return []byte(e.data) }
func (e copiedEntry) Verify(rtmr.Digest) (c rtmr.Check, b []byte) { return }

// copyLog makes a log of words such as "pcr10:a": a register, and data of the type
// that their first letter names. A word after a second colon is a SHA-1 digest's
// first byte.
func copyLog(words ...string) iter.Seq2[rtmr.Measurement, error] {
	return func(yield func(rtmr.Measurement, error) bool) {
		for i, word := range words {
			if word == "fault" {
				yield(rtmr.Measurement{}, errFault)
				return
			}
			parts := strings.Split(word, ":")
			m := rtmr.Measurement{Index: i, Offset: int64(10 * i), Entry: copiedEntry{parts[1][:1], parts[1]}}
			if parts[0] == "none" {
				m.NoAction = true
			} else {
				m.Register = rtmr.MustParse(parts[0])
			}
			if len(parts) > 2 {
				m.Digests = []rtmr.Digest{{Alg: rtmr.SHA384, Sum: make([]byte, 48)}, {Alg: rtmr.SHA1, Sum: append([]byte(parts[2])[:1:1], make([]byte, 19)...)}}
			}
			if !yield(m, nil) {
				return
			}
		}
	}
}

var errFault = errors.New("a fault")

func TestCompareCopy(t *testing.T) {
	ofA := func(e rtmr.Entry) bool { return e.Type() == "a" }
	for name, c := range map[string]struct {
		log, other []string
		more       bool
		want       replay.Copy // without Parts
		entry      int         // of Parts, -1 for none
		text       string
	}{
		"equal":                        {[]string{"pcr10:a1", "pcr10:a2"}, []string{"pcr10:a1", "pcr10:a2"}, false, replay.Copy{Entries: 2}, -1, ""},
		"between others":               {[]string{"pcr10:a1", "pcr10:a2"}, []string{"none:a0", "pcr1:b1", "pcr10:a1", "pcr10:b2", "pcr10:a2", "pcr10:b"}, false, replay.Copy{Entries: 2}, -1, ""},
		"what extends nothing":         {[]string{"none:a0", "pcr10:a1"}, []string{"pcr10:a1"}, false, replay.Copy{Entries: 1}, -1, ""},
		"in another register":          {[]string{"pcr10:a1", "pcr11:a2", "pcr10:a3"}, []string{"rtmr2:a1", "rtmr3:a2", "rtmr2:a3"}, false, replay.Copy{Entries: 3}, -1, ""},
		"ahead":                        {[]string{"pcr10:a1", "pcr10:a2", "none:a", "pcr10:a3"}, []string{"pcr10:a1"}, false, replay.Copy{Entries: 1, Ahead: 2}, -1, ""},
		"nothing in the other":         {[]string{"pcr10:a1"}, []string{"pcr10:b1"}, false, replay.Copy{Ahead: 1}, -1, ""},
		"more, as it may be":           {[]string{"pcr10:a1"}, []string{"pcr10:a1", "pcr10:a2"}, true, replay.Copy{Entries: 1}, -1, ""},
		"more":                         {[]string{"pcr10:a1"}, []string{"pcr10:a1", "none:a", "pcr10:a2"}, false, replay.Copy{Entries: 1, InOther: true}, 2, "ends before it"},
		"more than nothing":            {nil, []string{"pcr10:a1"}, false, replay.Copy{InOther: true}, 0, "ends before it"},
		"other data":                   {[]string{"pcr10:a1", "pcr10:a2"}, []string{"pcr10:a1", "pcr10:a9"}, false, replay.Copy{Entries: 1}, 1, "entry 1 has other data in its place: a a9"},
		"another order":                {[]string{"pcr10:a1", "pcr10:a2"}, []string{"pcr10:a2", "pcr10:a1"}, false, replay.Copy{}, 0, "entry 0 has other data"},
		"missing":                      {[]string{"pcr10:a1", "pcr10:a2"}, []string{"pcr10:a2"}, false, replay.Copy{}, 0, "entry 0 has other data"},
		"twice":                        {[]string{"pcr10:a1"}, []string{"pcr10:a1", "pcr10:a1"}, false, replay.Copy{Entries: 1, InOther: true}, 1, "ends before it"},
		"not always in the same place": {[]string{"pcr10:a1", "pcr10:a2"}, []string{"rtmr2:a1", "rtmr3:a2"}, false, replay.Copy{Entries: 1}, 1, "is in rtmr3, and those of pcr10 before it are in rtmr2"},
		"another digest":               {[]string{"pcr10:a1:x"}, []string{"pcr10:a1:y"}, false, replay.Copy{}, 0, "another digest in sha1"},
		"digests of other banks":       {[]string{"pcr10:a1:x"}, []string{"pcr10:a1"}, false, replay.Copy{Entries: 1}, -1, ""},
		"equal digests":                {[]string{"pcr10:a1:x"}, []string{"pcr10:a1:x"}, false, replay.Copy{Entries: 1}, -1, ""},
	} {
		got, err := replay.CompareCopy(copyLog(c.log...), copyLog(c.other...), ofA, c.more)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		parts := got.Parts
		got.Parts = nil
		into := got.Into
		got.Into = nil
		if !reflect.DeepEqual(got, c.want) || (parts != nil) != (c.entry >= 0) {
			t.Errorf("%s: %+v with %+v, expected %+v with %d", name, got, parts, c.want, c.entry)
			continue
		}
		if parts != nil && (parts.Kind != "copy" || parts.Entry != c.entry || parts.Offset != int64(10*c.entry) || !strings.Contains(parts.Text, c.text)) {
			t.Errorf("%s: %+v, expected entry %d, %q", name, parts, c.entry, c.text)
		}
		if name == "in another register" && (len(into) != 2 || into[rtmr.MustParse("pcr10")] != rtmr.MustParse("rtmr2") || into[rtmr.MustParse("pcr11")] != rtmr.MustParse("rtmr3")) {
			t.Errorf("%s: into %v", name, into)
		}
		if name == "another digest" && (parts.Alg != rtmr.SHA1 || parts.Recorded[0] != 'x' || parts.Computed[0] != 'y') {
			t.Errorf("%s: %+v", name, parts)
		}
	}
	for _, fault := range [][2][]string{{{"fault"}, nil}, {{"pcr10:a1"}, {"fault"}}, {{"pcr10:a1"}, {"pcr10:a1", "fault"}}} {
		if _, err := replay.CompareCopy(copyLog(fault[0]...), copyLog(fault[1]...), ofA, false); !errors.Is(err, errFault) {
			t.Errorf("%v: %v", slices.Concat(fault[:]...), err)
		}
	}
}
