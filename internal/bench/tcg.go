package main

import (
	"bytes"
	"crypto"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"

	"tallystick/eventlog"
	"tallystick/replay"
	"tallystick/rtmr"
)

const goEventlog = "github.com/google/go-eventlog"

// tcgLog is a log of go-eventlog's own, and the bank in which it is folded.
type tcgLog struct {
	name  string
	alg   rtmr.Alg
	bound float64 // on how many times as fast the fold is; 0 for none
	data  []byte
	mrs   []register.MR // what it folds to, for go-eventlog to find
}

// tcg holds the replay of boot logs against go-eventlog's, and the check of
// event data against the bare hashes of those data.
func (b *bench) tcg() (section, error) {
	s := section{title: "TCG logs, beside go-eventlog", text: `
` + "`tcg.ParseAndReplay`" + `, and ` + "`eventlog.Reader`" + ` with ` + "`replay.Fold`" + `, on logs that
go-eventlog ships: the largest one, and a CC log, the largest file, of which all
but 18 KB is padding. Both fold all registers of one bank and leave the event
data unchecked (` + "`replay.Options.SkipVerify`" + `). The result is how many times as fast
ours is. On the CC log both do little else than to make the same 44 SHA-384
hashes and look at the padding.

With the check of event data, in every bank that the log has, the result is the
time beyond that of the fold alone, as a multiple of the bare hashes over the
data of every event that the check could verify or contradict. What is above 1
goes to data that were hashed and are not what was measured.`}
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", goEventlog).Output()
	if err != nil {
		return s, fmt.Errorf("go list -m %s: %w", goEventlog, err)
	}
	for _, l := range []tcgLog{
		{name: "tpm/ubuntu-2404-amd-sevsnp.bin", alg: rtmr.SHA256, bound: 2},
		{name: "ccel/cos-113-intel-tdx.bin", alg: rtmr.SHA384},
	} {
		path := filepath.Join(strings.TrimSpace(string(dir)), "testdata", "eventlogs", filepath.FromSlash(l.name))
		if l.data, err = os.ReadFile(path); err != nil {
			return s, err
		}
		rows, err := b.tcgLog(&l)
		if err != nil {
			return s, fmt.Errorf("%s: %w", l.name, err)
		}
		s.rows = append(s.rows, rows...)
	}
	return s, nil
}

func (b *bench) tcgLog(l *tcgLog) ([]row, error) {
	f, err := l.fold(true)
	if err != nil {
		return nil, err
	}
	for _, v := range f.Registers() {
		l.mrs = append(l.mrs, measurementRegister(v))
	}
	checked, err := l.checkedData()
	if err != nil {
		return nil, err
	}
	var buf [rtmr.MaxDigestSize]byte
	times, err := race(b.rounds, []contender{
		{"go-eventlog", b.repeat(func() error {
			_, err := tcg.ParseAndReplay(l.data, l.mrs, tcg.ParseOpts{AllowPadding: true})
			return err
		})},
		{"fold", b.repeat(func() error { _, err := l.fold(true); return err })},
		{"fold and check", b.repeat(func() error { _, err := l.fold(false); return err })},
		{"bare hashes", b.repeat(func() error {
			for _, c := range checked {
				c.alg.AppendHash(buf[:0], c.data)
			}
			return nil
		})},
	})
	if err != nil {
		return nil, err
	}
	check := times[2]
	for i := range check {
		check[i] -= times[1][i]
	}
	faster := ratio(times[0], times[1])
	fold := shown(l.name+", fold", faster)
	if l.bound > 0 {
		fold = atLeast(fold.name, faster, l.bound)
	}
	return []row{fold, shown(l.name+", check of event data", ratio(check, times[3]))}, nil
}

func (b *bench) repeat(run func() error) func() error {
	return func() error {
		for range b.repeats {
			if err := run(); err != nil {
				return err
			}
		}
		return nil
	}
}

// fold folds the log in one bank.
func (l *tcgLog) fold(skipVerify bool) (*replay.Fold, error) {
	r, err := eventlog.NewReader(bytes.NewReader(l.data), eventlog.Options{})
	if err != nil {
		return nil, err
	}
	f := replay.New(replay.Options{Banks: []rtmr.Alg{l.alg}, SkipVerify: skipVerify})
	_, err = f.Log(r.Measurements())
	return f, err
}

func measurementRegister(v replay.Value) register.MR {
	if v.Register.Kind() == rtmr.KindRTMR {
		return register.RTMR{Index: v.Register.Index(), Digest: v.Value}
	}
	return register.PCR{Index: v.Register.Index(), Digest: v.Value, DigestAlg: crypto.SHA256}
}

// checked is one digest that an event's data explain, or should.
type checked struct {
	alg  rtmr.Alg
	data []byte
}

func (l *tcgLog) checkedData() (out []checked, err error) {
	r, err := eventlog.NewReader(bytes.NewReader(l.data), eventlog.Options{})
	if err != nil {
		return nil, err
	}
	for m, err := range r.Measurements() {
		if err != nil {
			return nil, err
		}
		for _, d := range m.Digests {
			if c, _ := m.Entry.Verify(d); c != rtmr.CannotCheck && !m.NoAction {
				out = append(out, checked{d.Alg, bytes.Clone(m.Entry.Data())})
			}
		}
	}
	return out, nil
}
