package evidence_test

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/cmw"

	"tallystick/evidence"
	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// collectionType is what docs/evidence.md says.
const collectionType = "2.25.322105322951215556301519893544463757044.1"

func tdBundle() *evidence.Bundle {
	return &evidence.Bundle{
		TDQuote: []byte("a quote"), BootLog: []byte("a boot log"), IMAList: []byte("a list"), Journal: []byte("a journal"),
		Damaged: [][]byte{[]byte("one"), []byte("two")},
		Statement: evidence.Statement{
			Helper: "tallyd 1",
			Device: rtmr.Description{Kind: "tdx", Name: "a TD", Registers: []rtmr.RegisterInfo{{Register: rtmr.MustParse("rtmr0"), Banks: []rtmr.Alg{rtmr.SHA384}, Writable: true}}},
			Logs: []evidence.LogRole{
				{Item: evidence.ItemBootLog, Role: evidence.Folded},
				{Item: evidence.ItemIMAList, Role: evidence.Checked},
				{Item: evidence.ItemJournal, Role: evidence.Folded},
			},
			Nonce: []byte{0xca, 0xfe}, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Kernel: "6.16.1",
			Facts: []evidence.Fact{{Name: "tap", Value: "on"}}, Warnings: []string{"a warning"},
		},
	}
}

func tpmBundle() *evidence.Bundle {
	return &evidence.Bundle{
		Attest: []byte("attest"), Signature: []byte("signature"), Public: []byte("public"), EKCertificate: []byte("certificate"),
		Report: []byte("report"), Values: rtmr.Values{rtmr.SHA1: {rtmr.MustParse("pcr0"): make([]byte, 20)}},
	}
}

func marshal(t testing.TB, b *evidence.Bundle) []byte {
	t.Helper()
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRoundTrip(t *testing.T) {
	azure := tpmBundle()
	azure.Report, azure.Public, azure.HCL = nil, nil, []byte("hcl")
	alone := &evidence.Bundle{Values: tpmBundle().Values}
	for name, b := range map[string]*evidence.Bundle{"td": tdBundle(), "tpm": tpmBundle(), "azure": azure, "values": alone} {
		data := marshal(t, b)
		if !evidence.Is(data) || !evidence.Is(data[:57]) || evidence.Is(data[:56]) {
			t.Errorf("%s: not recognised by its first 57 bytes", name)
		}
		got, err := evidence.Read(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(got, b) {
			t.Errorf("%s: read back as %+v, was %+v", name, got, b)
		}
		if again := marshal(t, got); !bytes.Equal(again, data) {
			t.Errorf("%s: written again it is %x, was %x", name, again, data)
		}
	}
}

// TestLayout: the file is what docs/evidence.md says, put together here by hand,
// and veraison's library reads it.
func TestLayout(t *testing.T) {
	b := &evidence.Bundle{TDQuote: []byte{4, 0}, Statement: evidence.Statement{Helper: "h"}}
	b.Statement.Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	statement := `{"helper":"h","device":{"kind":"","name":"","registers":null},"logs":null,"time":"2026-01-02T03:04:05Z"}`
	text := func(s string) []byte {
		if len(s) < 24 {
			return append([]byte{0x60 + byte(len(s))}, s...)
		}
		return append([]byte{0x78, byte(len(s))}, s...)
	}
	want := bytes.Join([][]byte{
		{0xa3}, text("__cmwc_t"), text(collectionType),
		text("td-quote"), {0x83}, text("application/vnd.tallystick.td-quote"), {0x42, 4, 0}, {0x04},
		text("statement"), {0x83}, text("application/vnd.tallystick.statement+json"), {0x58, byte(len(statement))}, []byte(statement), {0x04},
	}, nil)
	got := marshal(t, b)
	if !bytes.Equal(got, want) {
		t.Errorf("%x, expected %x", got, want)
	}

	var collection cmw.CMW
	if err := collection.Deserialize(got); err != nil {
		t.Fatal(err)
	}
	item, err := collection.GetCollectionItem("td-quote")
	if err != nil {
		t.Fatal(err)
	}
	if value, err := item.GetMonadValue(); err != nil || !bytes.Equal(value, b.TDQuote) {
		t.Errorf("%x, %v", value, err)
	}
	if typ, _ := collection.GetCollectionType(); typ != collectionType {
		t.Error(typ)
	}
}

func TestMarshalRefuses(t *testing.T) {
	for want, edit := range map[string]func(b *evidence.Bundle){
		"both td-quote and tpm-attest":                   func(b *evidence.Bundle) { b.Attest = []byte{1} },
		"neither a quote (td-quote, tpm-attest) nor reg": func(b *evidence.Bundle) { b.TDQuote = nil },
		"tpm-attest and tpm-signature go together":       func(b *evidence.Bundle) { b.TDQuote, b.Attest = nil, []byte{1} },
		"hardware-report without tpm-attest":             func(b *evidence.Bundle) { b.Report = []byte{1} },
		"register-values beside td-quote":                func(b *evidence.Bundle) { b.Values = tpmBundle().Values },
		"neither tpm-public nor hcl-report":              func(b *evidence.Bundle) { b.TDQuote, b.Attest, b.Signature = nil, []byte{1}, []byte{1} },
		"boot-log has no role":                           func(b *evidence.Bundle) { b.Statement.Logs = b.Statement.Logs[1:] },
		"ima-list is not in the bundle":                  func(b *evidence.Bundle) { b.IMAList = nil },
		"no journal to check it against": func(b *evidence.Bundle) {
			b.Journal, b.Statement.Logs = nil, b.Statement.Logs[:2]
		},
		"the journal is what other logs": func(b *evidence.Bundle) { b.Statement.Logs[2].Role = evidence.Checked },
		"boot-log comes twice":           func(b *evidence.Bundle) { b.Statement.Logs = append(b.Statement.Logs, b.Statement.Logs[0]) },
		`boot-log: role "best"`:          func(b *evidence.Bundle) { b.Statement.Logs[0].Role = "best" },
		`"other", expected boot-log`:     func(b *evidence.Bundle) { b.Statement.Logs[0].Item = "other" },
		"10 damaged journals":            func(b *evidence.Bundle) { b.Damaged = make([][]byte, 10) },
		"register-values: sha1 pcr0 has 1 byte": func(b *evidence.Bundle) {
			b.TDQuote, b.Values = nil, rtmr.Values{rtmr.SHA1: {rtmr.MustParse("pcr0"): {1}}}
		},
	} {
		b := tdBundle()
		edit(b)
		if _, err := b.Marshal(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, expected %q", err, want)
		}
	}
}

// raw is a bundle as another program may write it.
func raw(t testing.TB, items map[string]any) []byte {
	t.Helper()
	if items["__cmwc_t"] == nil {
		items["__cmwc_t"] = collectionType
	}
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	data, err := mode.Marshal(items)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestReadRefuses(t *testing.T) {
	record := func(typ string, value any) []any { return []any{"application/vnd.tallystick." + typ, value, 4} }
	good := func() map[string]any {
		return map[string]any{"td-quote": record("td-quote", []byte{1}), "statement": record("statement+json", []byte("{}"))}
	}
	with := func(key string, value any) []byte {
		items := good()
		items[key] = value
		return raw(t, items)
	}
	without := good()
	delete(without, "statement")
	data := raw(t, good())
	if _, err := evidence.Read(data); err != nil {
		t.Fatal(err)
	}
	twice := bytes.Clone(data)
	twice[0]++
	key := bytes.Index(data, []byte("\x68td-quote"))
	end := bytes.Index(data, []byte("\x69statement"))
	twice = append(twice, data[key:end]...)
	indefinite := append([]byte{0xbf}, append(bytes.Clone(data[1:]), 0xff)...)
	for _, c := range []struct {
		name, want string
		data       []byte
	}{
		{"empty", "no bundle", nil},
		{"a log", "no bundle", []byte("\x0a\x00\x00\x00")},
		{"cut", "unexpected EOF", data[:len(data)-1]},
		{"cut in the type", "no bundle", data[:30]},
		{"more", "extraneous", append(bytes.Clone(data), 0)},
		{"a key twice", "duplicate map key", twice},
		{"indefinite", "no bundle", indefinite},
		{"unknown item", "the-item: no item of a bundle", with("the-item", record("td-quote", []byte{1}))},
		{"hostile key", `td-quote\x1b[31m: no item`, with("td-quote\x1b[31m", 1)},
		{"another media type", `boot-log: media type "application/vnd.tallystick.ima-list", expected application/vnd.tallystick.boot-log`, with("boot-log", record("ima-list", []byte{1}))},
		{"a collection inside", "boot-log: a collection", with("boot-log", map[string]any{})},
		{"no record", "boot-log: ", with("boot-log", 7)},
		{"null", "boot-log: ", with("boot-log", nil)},
		{"a text for a value", "boot-log: ", with("boot-log", record("boot-log", "text"))},
		{"an endorsement", "boot-log: indicator 2, expected 4", with("boot-log", []any{"application/vnd.tallystick.boot-log", []byte{1}, 2})},
		{"without an indicator", "boot-log: indicator 0, expected 4", with("boot-log", []any{"application/vnd.tallystick.boot-log", []byte{1}})},
		{"a negative indicator", "boot-log: ", with("boot-log", []any{"application/vnd.tallystick.boot-log", []byte{1}, -1})},
		{"an empty item", "boot-log: it is empty", with("boot-log", record("boot-log", []byte{}))},
		{"a tag", "tag isn't allowed", with("boot-log", cbor.Tag{Number: 1668546817, Content: []byte{1}})},
		{"no statement", "no item statement", raw(t, without)},
		{"a statement that is no JSON", "statement: offset 1: invalid character", with("statement", record("statement+json", []byte("x")))},
		{"a statement of another shape", "statement: offset 11: helper: a JSON number, expected string", with("statement", record("statement+json", []byte(`{"helper":1}`)))},
		{"a log without a role", "logs: boot-log has no role", with("boot-log", record("boot-log", []byte{1}))},
		{"the second damaged journal alone", "damaged-journal-2: without damaged-journal-1", with("damaged-journal-2", record("cel-tlv", []byte{1}))},
		{"a tenth damaged journal", "no item of a bundle", with("damaged-journal-10", record("cel-tlv", []byte{1}))},
		{"another version", "unknown version 22 of the bundle", with("__cmwc_t", strings.TrimSuffix(collectionType, "1")+"22")},
		{"a quote in a values' place", "register-values: ", with("register-values", record("values+json", []byte(`[1]`)))},
	} {
		b, err := evidence.Read(c.data)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %q", c.name, err, c.want)
		}
		if errors.Is(err, evidence.ErrVersion) != (c.name == "another version") {
			t.Errorf("%s: %v", c.name, err)
		}
		if b != nil {
			t.Errorf("%s: a bundle beside the error", c.name)
		}
	}
}

// TestReadBounded: what a length claims is not allocated.
func TestReadBounded(t *testing.T) {
	head := append([]byte{0xa2, 0x68}, "__cmwc_t"...)
	head = append(append(head, 0x78, byte(len(collectionType))), collectionType...)
	for _, claim := range []string{
		"68626f6f742d6c6f67" + "83" + "60" + "5bffffffffffffff00",
		"68626f6f742d6c6f67" + "83" + "60" + "5a7fffffff",
		"68626f6f742d6c6f67" + "9a7fffffff",
		"68626f6f742d6c6f67" + "ba7fffffff",
	} {
		tail, err := hex.DecodeString(claim)
		if err != nil {
			t.Fatal(err)
		}
		data := append(bytes.Clone(head), tail...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = evidence.Read(data)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: no error", claim)
		}
		allocated := after.TotalAlloc - before.TotalAlloc
		if allocated > 64<<10 {
			t.Errorf("%s: %d bytes allocated", claim, allocated)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(marshal(f, tdBundle()))
	f.Add(marshal(f, tpmBundle()))
	f.Add(raw(f, map[string]any{"statement": []any{"a/b", []byte("{}"), 4}, "register-values": map[any]any{-1: 1}}))
	list := testlogs.IMA(binary.LittleEndian, crypto.SHA1, testlogs.IMAEntry("/bin/sh"))
	f.Add(marshal(f, &evidence.Bundle{Values: tpmBundle().Values, IMAList: list,
		Statement: evidence.Statement{Logs: []evidence.LogRole{{Item: evidence.ItemIMAList, Role: evidence.Folded}}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := evidence.Read(data)
		if err != nil {
			return
		}
		if !evidence.Is(data) {
			t.Fatal("read, and not recognised")
		}
		again, err := b.Marshal()
		if err != nil {
			t.Fatalf("read, and not written: %v", err)
		}
		back, err := evidence.Read(again)
		if err != nil || !reflect.DeepEqual(back, b) {
			t.Fatalf("read back as %+v, %v, was %+v", back, err, b)
		}
	})
}

// TestReadLargeStatement: JSON is not decoded where a few bytes of it make a large object
// each.
func TestReadLargeStatement(t *testing.T) {
	b := &evidence.Bundle{TDQuote: []byte{1}, Statement: evidence.Statement{Warnings: make([]string, 400_000)}}
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = evidence.Read(data)
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "statement: ") || !strings.Contains(err.Error(), "expected 1048576 at most") {
		t.Errorf("%v", err)
	}
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 8*uint64(len(data)) {
		t.Errorf("%d bytes allocated for %d", allocated, len(data))
	}
}
