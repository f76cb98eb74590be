package replay_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"tallystick/eventlog"
	"tallystick/ima"
	"tallystick/internal/testlogs"
	"tallystick/replay"
	"tallystick/rtmr"
)

// Tests against independent oracles: other people's parsers and folds, run
// beside ours on every log that is here. Where one differs from us, the test
// TestXxxDiffers asserts what each says, and docs/oracles.md tells who is right.

// tcgEvent is an event as every oracle can tell it.
type tcgEvent struct {
	index, typ uint32
	data       string
	digests    []rtmr.Digest
}

// digestIn returns the event's first digest in a bank.
func (e tcgEvent) digestIn(alg rtmr.Alg) []byte {
	for _, d := range e.digests {
		if d.Alg == alg {
			return d.Sum
		}
	}
	return nil
}

func (e tcgEvent) is(index, typ uint32, data string) bool {
	return e.index == index && e.typ == typ && e.data == data
}

// readTCG reads and folds a boot log with our reader.
func readTCG(t testing.TB, l testlogs.Log) (events []tcgEvent, f *replay.Fold, err error) {
	t.Helper()
	f = replay.New(replay.Options{SkipVerify: true})
	src, err := openLog(l, ima.Options{})
	if err != nil {
		return nil, f, err
	}
	for m, err := range src.Measurements() {
		if err != nil {
			return events, f, err
		}
		f.Add(&m)
		e := m.Entry.(*eventlog.Event)
		ev := tcgEvent{e.MRIndex, uint32(e.EventType), string(e.EventData), nil}
		for _, d := range e.Digests {
			ev.digests = append(ev.digests, rtmr.Digest{Alg: d.Alg, Sum: bytes.Clone(d.Sum)})
		}
		events = append(events, ev)
	}
	return events, f, nil
}

// tool finds an oracle that is a command, or skips.
func tool(t testing.TB, name, pkg string) string {
	t.Helper()
	command, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (Debian package %s)", name, pkg)
	}
	return command
}

// version tells whether a command says that it is of a version.
func version(t testing.TB, command, want string) bool {
	t.Helper()
	out, err := exec.Command(command, "--version").CombinedOutput()
	if err != nil {
		t.Fatalf("%s --version: %v", command, err)
	}
	return strings.Contains(string(out), want)
}

// compare asks an oracle about every log of the formats and every odd one. It
// must agree, but for the logs in differs, of which it must still say so.
func compare(t *testing.T, formats []string, differs map[string]string, ask func(*testing.T, testlogs.Log) string) {
	t.Helper()
	seen := map[string]bool{}
	one := func(name string, l testlogs.Log) {
		seen[name] = true
		t.Run(name, func(t *testing.T) {
			want, known := differs[name]
			if said := ask(t, l); !strings.Contains(said, want) || !known && said != "" {
				t.Errorf("it says %q, and %q in docs/oracles.md", said, want)
			}
		})
	}
	for _, l := range testlogs.OfFormat(t, formats...) {
		one(l.Name, l)
	}
	for _, odd := range testlogs.OddLogs() {
		if slices.Contains(formats, odd.Log.Format) {
			one(odd.Name, odd.Log)
		}
	}
	for name := range differs {
		if !seen[name] && !strings.HasPrefix(name, "corpus/") {
			t.Errorf("%s is in the table and not among the logs", name)
		}
	}
	inDocs(t, differs)
}

// inDocs holds a table of differences against docs/oracles.md, which must name
// each log, or a corpus log's folder.
func inDocs(t *testing.T, differs map[string]string) {
	t.Helper()
	docs := testlogs.Read(t, "../docs/oracles.md")
	for name := range differs {
		if folder, ok := strings.CutPrefix(path.Dir(name), "corpus/"); ok {
			name = folder
		}
		if !bytes.Contains(docs, []byte(path.Base(name))) {
			t.Errorf("docs/oracles.md does not name %s", name)
		}
	}
}

// errorsDiffer compares what two readers say of a malformed log.
func errorsDiffer(ours, theirs error) string {
	switch {
	case theirs != nil && ours == nil:
		return "error: " + theirs.Error()
	case theirs == nil && ours != nil:
		return "no error"
	}
	return ""
}

// valuesDiffer returns the values of ours that a verifier rejects, and those
// for which it accepts an altered one too. It knows the banks given.
func valuesDiffer[H any](values []replay.Value, banks map[rtmr.Alg]H, accepts func(replay.Value) bool) string {
	var said []string
	for _, v := range values {
		if _, ok := banks[v.Alg]; !ok {
			continue
		}
		if !accepts(v) {
			said = append(said, fmt.Sprintf("rejects %s %s", v.Alg, v.Register))
			continue
		}
		v.Value = slices.Clone(v.Value)
		v.Value[3] ^= 1
		if accepts(v) {
			said = append(said, fmt.Sprintf("accepts any %s %s", v.Alg, v.Register))
		}
	}
	return strings.Join(said, ", ")
}
