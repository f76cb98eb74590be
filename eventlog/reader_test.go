package eventlog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"tallystick/eventlog"
)

// readEvents reads a log and returns each event as text.
func readEvents(b []byte) (out []string, r *eventlog.Reader, err error) {
	r, err = eventlog.NewReader(bytes.NewReader(b), eventlog.Options{})
	if err != nil {
		return nil, nil, err
	}
	for m, err := range r.Measurements() {
		if err != nil {
			return out, r, err
		}
		out = append(out, m.Register.String()+" "+m.Entry.Type()+" "+m.Entry.Detail())
	}
	return out, r, nil
}

func bootLog(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("../fixtures/shim-grub-sb-6.12/boot.bin")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A cut log delivers a prefix of the whole log's events, then says where.
func TestReaderPrefixDelivery(t *testing.T) {
	log := bootLog(t)
	whole, _, err := readEvents(log)
	if err != nil {
		t.Fatal(err)
	}
	for cut := 100; cut < len(log); cut += 311 {
		got, _, err := readEvents(log[:cut])
		var syntax *eventlog.SyntaxError
		if err != nil && (!errors.As(err, &syntax) || syntax.Entry != len(got) || syntax.Offset > int64(cut)) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		for i := range got {
			if got[i] != whole[i] {
				t.Fatalf("cut at %d: event %d is %s, want %s", cut, i, got[i], whole[i])
			}
		}
	}
}

// Padding behind the last event ends a log; bytes behind that are told of.
func TestReaderPadding(t *testing.T) {
	log := bootLog(t)
	want, _, _ := readEvents(log)
	for _, fill := range []byte{0x00, 0xFF} {
		padded := append(bytes.Clone(log), bytes.Repeat([]byte{fill}, 5000)...)
		got, r, err := readEvents(padded)
		if err != nil || len(got) != len(want) || len(r.Warnings()) != 0 {
			t.Errorf("padded with %#x: %d events, want %d; %v", fill, len(got), len(want), err)
		}
		got, r, err = readEvents(append(padded, "hidden"...))
		if err != nil || len(got) != len(want) || len(r.Warnings()) != 1 {
			t.Errorf("hidden data behind %#x: %d events, warnings %q, %v", fill, len(got), r.Warnings(), err)
		}
	}
}

// A hostile size makes an error that names the field, not an allocation.
func TestReaderHugeEventSize(t *testing.T) {
	log := bootLog(t)
	want, _, _ := readEvents(log)
	evil := binary.LittleEndian.AppendUint32(nil, 0)          // PCR 0
	evil = binary.LittleEndian.AppendUint32(evil, 8)          // EV_S_CRTM_VERSION
	evil = binary.LittleEndian.AppendUint32(evil, 1)          // one digest
	evil = binary.LittleEndian.AppendUint16(evil, 4)          // SHA-1
	evil = append(evil, make([]byte, 20)...)                  // of that size
	evil = binary.LittleEndian.AppendUint32(evil, 0xFFFFFFFF) // event size
	got, _, err := readEvents(append(bytes.Clone(log), evil...))
	var syntax *eventlog.SyntaxError
	if len(got) != len(want) || !errors.As(err, &syntax) {
		t.Fatalf("%d events, %v", len(got), err)
	}
	if syntax.Entry != len(want) || syntax.Field != "event size" || syntax.Offset != int64(len(log)+34) {
		t.Errorf("%+v", syntax)
	}
}

func TestDetectRefusesZeros(t *testing.T) {
	if f, ok := eventlog.Detect(make([]byte, 64)); ok {
		t.Errorf("64 zero bytes are recognised as %s", f)
	}
}
