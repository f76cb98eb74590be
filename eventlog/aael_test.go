package eventlog_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"tallystick/eventlog"
	"tallystick/internal/readertest"
	"tallystick/rtmr"
)

// aaelDigest is the digest of "domain operation content" as a tagged event:
// guest-components, attestation-agent's eventlog/mod.rs, test_event_digest.
var aaelDigest = map[rtmr.Alg]string{
	rtmr.SHA256: "46df8dacf00a07d34a83cdf56d7978697790787cf2ba1432ef7c38f22cd96351",
	rtmr.SHA384: "dad5f0e226318ffa9839b75a472c6aa7fdb5834949d0a0a22990cf04d5692440fb00f3aa0609db7e49cd8d793f670d02",
	rtmr.SHA512: "b708d222ca8bd44dfe6ba0c4ca2cbb72379276fba8091025217064be45a813e5d6124ccf073219edb617d1faf007d55061465bdf34b7437dbdc9a7405bd4e9c0",
}

func TestAAELPublishedDigests(t *testing.T) {
	e := eventlog.Event{EventType: eventlog.EVEventTag, EventData: taggedData(0x4141454C, "domain operation content")}
	for alg, sum := range aaelDigest {
		if c, computed := e.Verify(rtmr.Digest{Alg: alg, Sum: unhex(sum)}); c != rtmr.Verified {
			t.Errorf("%s: %s, computed %x", alg, c, computed)
		}
	}
}

// agentHeader is what the agent puts before its log where there is no CCEL: it
// has no signature (guest-components, attester's utils.rs, EL_HEADER, in
// July 2025 and since SM3 was added).
func agentHeader(banks ...bank) []byte {
	h := header("\x00", banks...)
	clear(h[8:28])                             // the digest
	clear(h[32 : 32+len("Spec ID Event03")+9]) // signature, class, version
	return h
}

// TestAgentLog: the attestation agent's crypto-agile forms, which Detect takes
// for what their indices are.
func TestAgentLog(t *testing.T) {
	aael := taggedData(0x4141454C, "domain operation content")
	end := bytes.Repeat([]byte{0xFF}, 8)
	td := agileEvent(4, eventlog.EVEventTag, aael, sha384Bank)
	csv := agileEvent(4, eventlog.EVEventTag, aael, sm3Bank)
	tpm := agileEvent(17, eventlog.EVEventTag, aael, sha256Bank)
	linux := agileEvent(4, eventlog.EVEventTag, taggedData(0x8F3B22EC, "Linux initrd\x00"), sha384Bank)

	for _, c := range []struct {
		trap   string
		log    []byte
		format eventlog.Format
		want   []string
	}{
		{"headerless_in_a_td_pcr_17_is_rtmr3", concat(td, td), eventlog.CCEL, []string{"rtmr3 EV_EVENT_TAG sha384/48", "rtmr3 EV_EVENT_TAG sha384/48"}},
		{"headerless_in_a_csv_guest", csv, eventlog.CCEL, []string{"rtmr3 EV_EVENT_TAG sm3_256/32"}},
		{"headerless_with_a_vtpm_stays_pcr_17", tpm, eventlog.TCG2, []string{"pcr17 EV_EVENT_TAG sha256/32"}},
		{"headerless_of_others_stays_a_pcr", linux, eventlog.TCG2, []string{"pcr4 EV_EVENT_TAG sha384/48"}},
		{"unsigned_header_of_sha384", concat(agentHeader(sha384Bank), td, end), eventlog.CCEL, []string{"mrtd EV_NO_ACTION sha1/20 no-action", "rtmr3 EV_EVENT_TAG sha384/48"}},
		{"unsigned_header_of_sha384_and_sm3", concat(agentHeader(sha384Bank, sm3Bank), td, end), eventlog.CCEL, []string{"mrtd EV_NO_ACTION sha1/20 no-action", "rtmr3 EV_EVENT_TAG sha384/48"}},
		{"unsigned_header_alone", concat(agentHeader(sha384Bank), end), eventlog.CCEL, []string{"mrtd EV_NO_ACTION sha1/20 no-action"}},
		{"behind_the_ccel", concat(header("\x00", sha384Bank), agileEvent(1, eventlog.EVSeparator, make([]byte, 4), sha384Bank), td, end), eventlog.CCEL,
			[]string{"mrtd EV_NO_ACTION sha1/20 no-action", "rtmr0 EV_SEPARATOR sha384/48", "rtmr3 EV_EVENT_TAG sha384/48"}},
	} {
		t.Run(c.trap, func(t *testing.T) {
			got, r, err := readLines(c.log)
			if err != nil {
				t.Fatal(err)
			}
			if r.Format() != c.format || !slices.Equal(got, c.want) {
				t.Errorf("%s: got\n%s\nwant %s\n%s", r.Format(), strings.Join(got, "\n"), c.format, strings.Join(c.want, "\n"))
			}
		})
	}
}

// The corpus has a CCEL of Alibaba Cloud with the agent's events behind it:
// what trustee's own parser reads there.
func TestAgentLogBehindAlibabasCCEL(t *testing.T) {
	b, err := os.ReadFile(filepath.FromSlash("../../shared/corpus/aael/CCEL_AAEL_alibabacloud"))
	if err != nil {
		t.Skip("../shared/corpus is not here")
	}
	var got []string
	for m, e := range events(t, b) {
		if domain, operation, content, ok := e.AAEL(); ok {
			check, _ := e.Verify(m.Digests[0])
			got = append(got, fmt.Sprintf("%s %s: %s %s %s", m.Register, check, domain, operation, content))
		}
	}
	want := []string{
		`rtmr3 verified: coco.com some-operation some-content`,
		`rtmr3 verified: coco.com some-operation {"key": "value", "nested-key": {"sub-key": "value"}}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

const (
	init384 = "INIT sha384/000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
	init256 = "INIT sha256/0000000000000000000000000000000000000000000000000000000000000000"
)

func readAAEL(src io.Reader) (lines []string, r *eventlog.AAELReader, err error) {
	r = eventlog.NewAAELReader(src)
	for m, err := range r.Measurements() {
		if err != nil {
			return lines, r, err
		}
		check, _ := m.Entry.Verify(m.Digests[0])
		lines = append(lines, m.Register.String()+" "+m.Digests[0].Alg.String()+" "+m.Entry.Detail()+" "+check.String())
	}
	return lines, r, nil
}

func TestAAELReader(t *testing.T) {
	const event = "coco.com open {\"a\": 1}"
	for _, c := range []struct {
		trap, log string
		want      []string
		warns     string
	}{
		{"sha384_is_a_td's_rtmr3", init384 + "\n" + event + "\n", []string{"rtmr3 sha384 " + init384 + " cannot be checked", "rtmr3 sha384 " + event + " cannot be checked"}, ""},
		{"sha256_is_a_vtpm's_pcr17", init256 + "\n" + event + "\n", []string{"pcr17 sha256 " + init256 + " cannot be checked", "pcr17 sha256 " + event + " cannot be checked"}, ""},
		{"init_alone", init384 + "\n", []string{"rtmr3 sha384 " + init384 + " cannot be checked"}, ""},
		{"two_words_as_acon_has", init384 + "\ngithub.com/intel/ACON Finalize\n", []string{"rtmr3 sha384 " + init384 + " cannot be checked", "rtmr3 sha384 github.com/intel/ACON Finalize cannot be checked"}, ""},
		{"last_line_without_end", init384 + "\n" + event, []string{"rtmr3 sha384 " + init384 + " cannot be checked", "rtmr3 sha384 " + event + " cannot be checked"}, "may be cut short"},
		{"register_not_at_zeros", strings.Replace(init384, "/00", "/01", 1) + "\n", []string{"rtmr3 sha384 " + strings.Replace(init384, "/00", "/01", 1) + " cannot be checked"}, "begins where rtmr3 is 01"},
		{"control_characters", init384 + "\na b \x1b[2J\r\n", []string{"rtmr3 sha384 " + init384 + " cannot be checked", `rtmr3 sha384 a b \x1b[2J\r cannot be checked`}, ""},
	} {
		t.Run(c.trap, func(t *testing.T) {
			if !eventlog.DetectAAEL([]byte(c.log)) {
				t.Error("not recognised")
			}
			got, r, err := readAAEL(iotest.OneByteReader(strings.NewReader(c.log)))
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
			w := r.Warnings()
			unproven := fmt.Sprintf("the log holds no digest of %d of its entries", len(c.want))
			if last := len(w) - 1; last < 0 || !strings.HasPrefix(w[last], unproven) {
				t.Errorf("warnings %q, want the last to begin %q", w, unproven)
			} else if w = w[:last]; (c.warns == "") != (last == 0) || c.warns != "" && !strings.Contains(w[0], c.warns) {
				t.Errorf("warnings %q, want one with %q", w, c.warns)
			}
		})
	}
}

func TestAAELReaderMalformed(t *testing.T) {
	for _, c := range []struct {
		trap, log string
		events    int
		field     string
		offset    int64
	}{
		{"empty", "", 0, "INIT", 0},
		{"no_init", "coco.com open a\n", 0, "INIT", 0},
		{"short_value", init384[:len(init384)-2] + "\n", 0, "INIT", 0},
		{"value_of_another_algorithm", strings.Replace(init256, "sha256", "sha384", 1) + "\n", 0, "INIT", 0},
		{"algorithm_that_is_none", strings.Replace(init384, "sha384", "md5", 1) + "\n", 0, "INIT", 0},
		{"empty_line", init384 + "\n\n", 1, "line", int64(len(init384) + 1)},
		{"endless_line", init384 + "\n" + strings.Repeat("a", 1<<21), 1, "line", int64(len(init384) + 1)},
	} {
		t.Run(c.trap, func(t *testing.T) {
			got, _, err := readAAEL(strings.NewReader(c.log))
			var syntax *eventlog.SyntaxError
			if !errors.As(err, &syntax) || len(got) != c.events || syntax.Entry != c.events || syntax.Field != c.field || syntax.Offset != c.offset {
				t.Errorf("%d events, then %v; want %d, field %q, offset %d", len(got), err, c.events, c.field, c.offset)
			}
		})
	}
}

func TestDetectAAELRefuses(t *testing.T) {
	for _, s := range []string{"", "INIT", "INIT sha384/00\n", "INIT/sha384 00\n", init384[:40], "10 " + init384 + "\n", strings.Repeat("INIT ", 20000)} {
		if eventlog.DetectAAEL([]byte(s)) {
			t.Errorf("%.60q is recognised", s)
		}
	}
}

// FuzzAAELReader: what is delivered is the input's lines in order, whatever
// follows, and each has the line's own digest, which verifies nothing.
func FuzzAAELReader(f *testing.F) {
	f.Add([]byte(init384 + "\ncoco.com open a\n"))
	f.Add([]byte(init256 + "\ncoco.com open a b\nx"))
	f.Fuzz(func(t *testing.T, log []byte) {
		readertest.Check(t, func(src io.Reader) (readertest.Log, error) { return eventlog.NewAAELReader(src), nil }, log, 1)
		rest := log
		for m, err := range eventlog.NewAAELReader(bytes.NewReader(log)).Measurements() {
			if err != nil {
				return
			}
			line, after, _ := bytes.Cut(rest, []byte{'\n'})
			if !bytes.Equal(m.Entry.Data(), line) || m.Offset != int64(len(log)-len(rest)) {
				t.Fatalf("entry %d at %d is %q, the line is %q", m.Index, m.Offset, m.Entry.Data(), line)
			}
			d := m.Digests[0]
			if c, _ := m.Entry.Verify(d); c != rtmr.CannotCheck || !bytes.Equal(d.Sum, d.Alg.AppendHash(nil, line)) {
				t.Fatalf("entry %d: %s, digest %s", m.Index, c, d)
			}
			rest = after
		}
		if len(rest) > 0 {
			t.Fatalf("%d bytes were not delivered", len(rest))
		}
	})
}
