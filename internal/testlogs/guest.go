package testlogs

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"tallystick/eventlog"
	"tallystick/eventlog/cel"
	"tallystick/evidence"
	"tallystick/ima"
	"tallystick/rtmr"
)

// Guest stands for the guest's helper: it journals what it extends into registers
// in memory.
type Guest struct {
	Device  *rtmr.Memory
	journal bytes.Buffer
	w       *cel.Writer
}

// NewGuest begins a journal for such registers, with a record of their values that
// extends nothing, as the helper's journal begins with one.
func NewGuest(t testing.TB, banks []rtmr.Alg, registers ...rtmr.Register) *Guest {
	t.Helper()
	g := &Guest{Device: rtmr.NewMemory(banks, registers...)}
	g.w = cel.NewWriter(&g.journal, cel.TLV)
	g.Base(t, &evidence.Base{Reason: evidence.AtStart, Registers: g.Values(t)})
	return g
}

// Base journals what registers hold.
func (g *Guest) Base(t testing.TB, b *evidence.Base) {
	t.Helper()
	data, err := b.EventData()
	if err != nil {
		t.Fatal(err)
	}
	g.noAction(t, data)
}

// Note journals a note, with JSON.
func (g *Guest) Note(t testing.TB, kind, about string) {
	t.Helper()
	n := evidence.Note{Kind: kind, About: []byte(about)}
	g.noAction(t, n.EventData())
}

func (g *Guest) noAction(t testing.TB, data []byte) {
	t.Helper()
	event := &eventlog.Event{MRIndex: 0xffffffff, EventType: eventlog.EVNoAction, EventData: data}
	g.write(t, event.Measurement(rtmr.Register{}))
}

func (g *Guest) write(t testing.TB, m rtmr.Measurement) {
	t.Helper()
	if err := g.w.Write(m); err != nil {
		t.Fatal(err)
	}
}

// Extend journals a measurement and extends it.
func (g *Guest) Extend(t testing.TB, m rtmr.Measurement) {
	t.Helper()
	g.write(t, m)
	if err := g.Device.Extend(t.Context(), m.Register, m.Digests); err != nil {
		t.Fatal(err)
	}
}

// Boot extends a boot log's events, journaled or, as those that firmware extended,
// not.
func (g *Guest) Boot(t testing.TB, log []byte, journaled bool) {
	t.Helper()
	r, err := eventlog.NewReader(bytes.NewReader(log), eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for m, err := range r.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		switch info, ok := g.registers().Register(m.Register); {
		case m.NoAction || !ok || !info.Writable:
		case journaled:
			g.Extend(t, m)
		default:
			if err := g.Device.Extend(t.Context(), m.Register, m.Digests); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (g *Guest) registers() *rtmr.Description {
	d := g.Device.Describe()
	return &d
}

// IMA extends an IMA list's entries into a register, in all its banks.
func (g *Guest) IMA(t testing.TB, list []byte, into rtmr.Register) {
	t.Helper()
	info, _ := g.registers().Register(into)
	r, err := ima.NewReader(bytes.NewReader(list), ima.Options{Banks: info.Banks})
	if err != nil {
		t.Fatal(err)
	}
	for m, err := range r.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		m.Register = into
		m.Digests = slices.DeleteFunc(slices.Clone(m.Digests), func(d rtmr.Digest) bool { return !slices.Contains(info.Banks, d.Alg) })
		g.Extend(t, m)
	}
}

// Values are the registers' values now.
func (g *Guest) Values(t testing.TB) rtmr.Values {
	t.Helper()
	values, err := g.Device.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// Journal is the journal so far.
func (g *Guest) Journal() []byte { return bytes.Clone(g.journal.Bytes()) }

// TPMBundle is the bundle of a machine whose kernel extends IMA into its TPM, with
// one of its quotes. Lists that were read in parts are joined.
func TPMBundle(m Machine, q TPMQuote) *evidence.Bundle {
	b := &evidence.Bundle{
		Attest: q.Attest, Signature: q.Signature, Public: q.Key, EKCertificate: q.EKCert,
		Values: rtmr.Values{q.Bank: m.Held[q.Bank]}, BootLog: m.Logs[0].Data,
		Statement: evidence.Statement{
			Helper: "tallyd test", Device: rtmr.Description{Kind: "tpm", Name: "a TPM"},
			Logs:  []evidence.LogRole{{Item: evidence.ItemBootLog, Role: evidence.Folded}, {Item: evidence.ItemIMAList, Role: evidence.Folded}},
			Nonce: q.Nonce, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		},
	}
	for _, l := range m.Logs[1:] {
		b.IMAList = append(b.IMAList, l.Data...)
	}
	return b
}
