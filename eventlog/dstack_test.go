package eventlog_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"tallystick/eventlog"
)

// Digests of dstack's run-time events, computed with Python's hashlib:
// sha384(le32(0x08000001) ‖ ":app-id:" ‖ deadbeef) and
// sha384({"name":"compose-hash","payload":"abcd","type":134217729}).
const (
	dstackV1Digest = "67b4be4efed0893cfa2bb1d35dca209ad8348b4c97f980807bcde8b9a0f26398dd0923d6eccb5aa2096d98046da8740f"
	dstackV2Digest = "9dde1673f544faa94b921825209593ddde08d0baf9cd6990175dffaf3081f1bb10311d56de189491feb33842a050ad7b"
)

const separator384 = "394341b7182cd227c5c6b07ef8000cdfd86136c4292b8e576573ad7ed9ae41019f5818b4b971c9effc60e1ad9f1289f0"

func readDstack(log string) (lines []string, err error) {
	r := eventlog.NewDstackReader(strings.NewReader(log))
	for m, err := range r.Measurements() {
		if err != nil {
			return lines, err
		}
		check, _ := m.Entry.Verify(m.Digests[0])
		lines = append(lines, fmt.Sprintf("%s %s %x %s", m.Register, m.Entry.Type(), m.Digests[0].Sum, check))
	}
	return append(lines, r.Warnings()...), nil
}

func TestDstackReader(t *testing.T) {
	const runtime = `{"imr":3,"event_type":134217729,`
	const unproven = "the log holds no digest of 1 of its entries: it was computed from their data, which nothing but the register's value proves"
	for _, c := range []struct{ trap, record, want, warning string }{
		{"imr_0_is_rtmr0", `{"imr":0,"event_type":4,"digest":"` + separator384 + `","event":"","event_payload":"00000000"}`,
			"rtmr0 EV_SEPARATOR " + separator384 + " verified", ""},
		{"payload_left_out", `{"imr":1,"event_type":4,"digest":"` + separator384 + `","event":"","event_payload":""}`,
			"rtmr1 EV_SEPARATOR " + separator384 + " cannot be checked", ""},
		{"run_time_event", runtime + `"digest":"` + dstackV1Digest + `","event":"app-id","event_payload":"deadbeef"}`,
			"rtmr3 DSTACK_RUNTIME_EVENT " + dstackV1Digest + " verified", ""},
		{"run_time_event_changed", runtime + `"digest":"` + dstackV1Digest + `","event":"app-id","event_payload":"deadbeee"}`,
			"rtmr3 DSTACK_RUNTIME_EVENT " + dstackV1Digest + " contradicts", ""},
		{"digest_left_out", runtime + `"digest":"","event":"app-id","event_payload":"deadbeef"}`,
			"rtmr3 DSTACK_RUNTIME_EVENT " + dstackV1Digest + " cannot be checked", unproven},
		{"digest_left_out_in_version_2", runtime + `"digest":"","event":"compose-hash","event_payload":"abcd","version":2,"preimage":"7b7d"}`,
			"rtmr3 DSTACK_RUNTIME_EVENT " + dstackV2Digest + " cannot be checked", unproven},
	} {
		t.Run(c.trap, func(t *testing.T) {
			log := "[" + c.record + "]"
			if !eventlog.DetectDstack([]byte(log)) {
				t.Error("not recognised")
			}
			want := []string{c.want}
			if c.warning != "" {
				want = append(want, c.warning)
			}
			if got, err := readDstack(log); err != nil || !slices.Equal(got, want) {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		})
	}
}

func TestDstackReaderMalformed(t *testing.T) {
	const good = `{"imr":0,"event_type":4,"digest":"` + separator384 + `","event":"","event_payload":"00000000"}`
	for _, c := range []struct{ trap, log, field, text string }{
		{"object", good, "log", "expected a JSON array"},
		{"array_does_not_end", "[" + good, "log", "end of the array"},
		{"after_the_array", "[" + good + "] []", "log", "after the array's end"},
		{"imr_4", "[" + good + "," + strings.Replace(good, `"imr":0`, `"imr":4`, 1) + "]", "imr", "4, expected 0 to 3"},
		{"no_imr", "[" + good + "," + strings.Replace(good, `"imr":0,`, ``, 1) + "]", "record", "expected an imr"},
		{"firmware_event_without_a_digest", "[" + good + "," + strings.Replace(good, separator384, "", 1) + "]", "digest", "expected 96 hexadecimal digits"},
		{"version_3_without_a_digest", "[" + good + `,{"imr":3,"event_type":134217729,"event":"a","event_payload":"","version":3}]`, "digest", "version 3"},
		{"payload_that_is_not_hexadecimal", "[" + good + "," + strings.Replace(good, "00000000", "zz", 1) + "]", "event_payload", "invalid byte"},
	} {
		t.Run(c.trap, func(t *testing.T) {
			got, err := readDstack(c.log)
			var syntax *eventlog.SyntaxError
			if !errors.As(err, &syntax) || syntax.Field != c.field || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("got %v, want a SyntaxError of field %q with %q", err, c.field, c.text)
			}
			if syntax.Entry != len(got) {
				t.Errorf("%d events, then entry %d", len(got), syntax.Entry)
			}
		})
	}
}

// endless is a source that begins with a text and goes on with one byte for ever.
type endless struct {
	head string
	fill byte
	read int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.head)
	e.head = e.head[n:]
	for i := range p[n:] {
		p[n+i] = e.fill
	}
	e.read += len(p)
	return len(p), nil
}

// TestDstackEndlessRecord: a record that never ends is given up, not kept.
func TestDstackEndlessRecord(t *testing.T) {
	for name, src := range map[string]*endless{
		"string":          {head: `[{"imr":0,"event":"`, fill: 'a'},
		"before a record": {head: "[", fill: ' '},
		"before the log":  {fill: '\n'},
	} {
		var err error
		for _, err = range eventlog.NewDstackReader(src).Measurements() {
		}
		var syntax *eventlog.SyntaxError
		if !errors.As(err, &syntax) || src.read > 32<<20 {
			t.Errorf("%s: %v after %d bytes", name, err, src.read)
		}
	}
}
