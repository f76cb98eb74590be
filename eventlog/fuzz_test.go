package eventlog_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"strings"
	"testing"

	"tallystick/eventlog"
	"tallystick/internal/readertest"
)

// seedCCEL is a padded log of a guest whose registers are in one bank.
func seedCCEL(header []byte, b bank) []byte {
	return concat(header,
		agileEvent(1, eventlog.EVEFIVariableDriverConfig, variableData(efiGlobal, "SecureBoot", nil), b),
		agileEvent(4, eventlog.EVEventTag, taggedData(0x4141454C, "coco.com open a b"), b),
		bytes.Repeat([]byte{0xFF}, 40))
}

// seedLogs are logs of every format that the Reader takes.
func seedLogs(t testing.TB) [][]byte {
	realm := header("", sha256Bank)
	clear(realm[8:28]) // as genuine ones are, the digest is of zeros
	logs := [][]byte{
		sha1Event(0, eventlog.EVSCRTMVersion, []byte("v\x00")),
		concat(sha1Event(7, eventlog.EVSeparator, make([]byte, 4)), sha1Event(5, eventlog.EVEFIAction, []byte("Exit Boot Services Invocation")), make([]byte, 40)),
		concat(agileEvent(0, eventlog.EVSCRTMVersion, []byte("headerless"), sha1Bank, sha256Bank), agileEvent(8, eventlog.EVIPL, []byte("grub_cmd: boot\x00"), sha1Bank, sha256Bank)),
		concat(header("\x06vendor, appended", namelessly, sm3Bank), agileEvent(0, eventlog.EVNoAction, []byte("StartupLocality\x00\x03"), namelessly, sm3Bank),
			agileEvent(0xFFFFFFFF, eventlog.EVNoAction, []byte("SP800-155 Event"), namelessly, sm3Bank), agileEvent(0, eventlog.EVEFIHCRTMEvent, []byte("HCRTM"), namelessly, sm3Bank)),
		seedCCEL(header("\x00", sha384Bank), sha384Bank), seedCCEL(realm, sha256Bank), seedCCEL(agentHeader(sha384Bank, sm3Bank), sha384Bank),
		agileEvent(4, eventlog.EVEventTag, taggedData(0x4141454C, "coco.com open a b"), sha384Bank),
		concat(ccelTable(2), seedCCEL(header("\x00", sha384Bank), sha384Bank)), concat(ccelTable(4), seedCCEL(realm, sha256Bank)), ccelTable(2),
	}
	for _, dir := range []string{"sig-6.12", "uki-ovmf2025-7.3", "shim-grub-sb-6.12"} {
		b, err := os.ReadFile("../fixtures/" + dir + "/boot.bin")
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, b)
	}
	return logs
}

func opener(opts eventlog.Options) readertest.Open {
	return func(src io.Reader) (readertest.Log, error) { return eventlog.NewReader(src, opts) }
}

// FuzzReader reads a log in a given format, or one found by content.
func FuzzReader(f *testing.F) {
	for _, log := range seedLogs(f) {
		for format := range uint8(4) {
			f.Add(log, format, uint16(len(log)/2))
			f.Add(log, format, uint16(40)) // within a Spec ID event
		}
	}
	f.Fuzz(func(t *testing.T, log []byte, format uint8, cut uint16) {
		opts := eventlog.Options{Format: eventlog.Format(format % 4)}
		entries := readertest.Check(t, opener(opts), log, 1)
		r, err := eventlog.NewReader(bytes.NewReader(log), opts)
		if err != nil {
			return
		}
		opts.Format = r.Format()
		readertest.CheckPrefix(t, opener(opts), log, int(cut), entries)
	})
}

// FuzzDetect: what is recognised is also read as that, and no prefix of zeros is
// taken for a log.
func FuzzDetect(f *testing.F) {
	for _, log := range seedLogs(f) {
		f.Add(log)
		f.Add(log[:len(log)/3])
	}
	f.Fuzz(func(t *testing.T, prefix []byte) {
		format, ok := eventlog.Detect(prefix)
		if ok != (format != eventlog.FormatUnknown) {
			t.Errorf("%s, %t", format, ok)
		}
		if ok && len(bytes.Trim(prefix, "\x00")) == 0 {
			t.Errorf("%d zeros taken for %s", len(prefix), format)
		}
		r, err := eventlog.NewReader(bytes.NewReader(prefix), eventlog.Options{})
		if err == nil && r.Format() != format {
			t.Errorf("recognised as %s and read as %s", format, r.Format())
		}
		if eventlog.DetectDstack(prefix) && ok {
			t.Errorf("both dstack's log and %s", format)
		}
	})
}

const seedDigest384 = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f"

// FuzzDstack reads dstack's JSON log.
func FuzzDstack(f *testing.F) {
	for _, log := range []string{
		`[{"imr":0,"event_type":4,"digest":"` + seedDigest384 + `","event":"","event_payload":"00000000"},` + "\n" +
			` {"imr":3,"event_type":134217729,"digest":"` + seedDigest384 + `","event":"app-id","event_payload":"0102"}]`,
		`[]`, `[{"imr":4,"event_type":1}]`, `[{"imr":0,"event_type":1,"digest":"00"}`, `{"imr":0,"event_type":1}`,
		`[{"imr":` + strings.Repeat("1", 2000) + `}]`, `[1]`,
		`[{"imr":3,"event_type":134217729,"digest":"` + seedDigest384 + `","event":"` + "\xff\\u001b" + `","event_payload":""}] []`,
	} {
		f.Add([]byte(log), uint16(len(log)/2))
	}
	f.Fuzz(func(t *testing.T, log []byte, cut uint16) {
		open := func(src io.Reader) (readertest.Log, error) { return eventlog.NewDstackReader(src), nil }
		const replaced = 3 // bytes of U+FFFD, which stands for one that is not UTF-8
		entries := readertest.Check(t, open, log, replaced)
		for _, e := range entries {
			if log[e.Offset] != '{' {
				t.Errorf("entry %d begins at offset %d with %q", e.Index, e.Offset, log[e.Offset])
			}
		}
		readertest.CheckPrefix(t, open, log, int(cut), entries)
	})
}

// FuzzParseSpecID: the fields written again, as TCG PFP 1.06 §10.4.5.1 lays them
// out, are the data behind the signature.
func FuzzParseSpecID(f *testing.F) {
	const record = 32 // its bytes before the data
	for _, header := range [][]byte{
		header("\x00", sha1Bank, sha256Bank), header("\x06vendor, appended", namelessly, sm3Bank), header("", sha384Bank), agentHeader(sha384Bank, sm3Bank),
	} {
		f.Add(header[record:])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := eventlog.ParseSpecID(data)
		if err != nil {
			return
		}
		b := binary.LittleEndian.AppendUint32(bytes.Clone(data[:16]), s.PlatformClass)
		b = append(b, s.VersionMinor, s.VersionMajor, s.Errata, s.UintnSize)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(s.Banks)))
		for _, bank := range s.Banks {
			b = binary.LittleEndian.AppendUint16(b, uint16(bank.Alg))
			b = binary.LittleEndian.AppendUint16(b, uint16(bank.Size))
			if bank.Size == 0 || (bank.Alg.Size() != 0 && bank.Size != bank.Alg.Size()) {
				t.Errorf("%s has digests of %d bytes", bank.Alg, bank.Size)
			}
		}
		if len(data) > len(b) {
			b = append(append(b, data[len(b)]), s.VendorInfo...)
		}
		if !bytes.Equal(b, data) {
			t.Errorf("%x\nread and written is\n%x", data, b)
		}
	})
}

// FuzzParseEventType: whatever is a type's name is that type's only name.
func FuzzParseEventType(f *testing.F) {
	for _, name := range []string{"EV_SEPARATOR", "EV_0x0000abcd", "EV_0x0000ABCD", "EV_0xabcd", "EV_0x00000004", "DSTACK_RUNTIME_EVENT", ""} {
		f.Add(name, uint32(len(name)))
	}
	f.Fuzz(func(t *testing.T, name string, typ uint32) {
		if got, err := eventlog.ParseEventType(name); err == nil && got.String() != name {
			t.Errorf("%q is read as %s", name, got)
		}
		s := eventlog.EventType(typ).String()
		if got, err := eventlog.ParseEventType(s); err != nil || got != eventlog.EventType(typ) {
			t.Errorf("%s is read as %s, %v", s, got, err)
		}
	})
}

// seedEvents adds one event of each type that the fixtures have, and hand-made ones.
func seedEvents(f *testing.F) {
	seen := map[string]bool{}
	for _, log := range seedLogs(f) {
		r, err := eventlog.NewReader(bytes.NewReader(log), eventlog.Options{})
		if err != nil {
			continue
		}
		for m, err := range r.Measurements() {
			if err != nil {
				break
			}
			if e := m.Entry.(*eventlog.Event); !seen[e.Type()] && len(e.EventData) < 2<<10 {
				seen[e.Type()] = true
				f.Add(uint32(e.EventType), bytes.Clone(e.EventData))
			}
		}
	}
	for _, b := range [][]byte{
		variableData(efiGlobal, "Boot0001", []byte("\x01\x00\x00\x00\x00\x00d\x00\x00\x00")),
		variableData(efiGlobal, "BootOrder", []byte{1, 0}),
		append(variableData(shimLock, "Shim", nil), 0, 0, 0, 0, 0, 0),
		taggedData(0x4141454C, "a b c"), utf16le("root=a\x00"), []byte("grub_cmd: boot\x00"), []byte("app-id:1"), make([]byte, 4),
	} {
		for _, typ := range []eventlog.EventType{eventlog.EVIPL, eventlog.EVEventTag, eventlog.EVSeparator, eventlog.EVDstack,
			eventlog.EVEFIVariableBoot, eventlog.EVEFIVariableAuthority, eventlog.EVEFIVariableDriverConfig} {
			f.Add(uint32(typ), b)
		}
	}
	f.Add(uint32(eventlog.EVEFIHandoffTables2), []byte("\x02a\x00\x01\x00\x00\x00\x00\x00\x00\x00aaaaaaaaaaaaaaaabbbbbbbb"))
	f.Add(uint32(eventlog.EVEFIPlatformFirmwareBlob2), []byte("\x02a\x00aaaaaaaabbbbbbbb"))
	f.Add(uint32(eventlog.EVNoAction), []byte("SP800-155 Event3\x01\x00\x00\x00aaaaaaaaaaaaaaaa\x02a\x00\x02b\x00\x02c\x00\x02d\x00"))
}

// FuzzDetail renders data of any type, on one short line and in memory that is
// in proportion to them, and takes CoCo's entries apart.
func FuzzDetail(f *testing.F) {
	seedEvents(f)
	f.Fuzz(func(t *testing.T, typ uint32, data []byte) {
		e := eventlog.Event{EventType: eventlog.EventType(typ), EventData: data}
		checkLine(t, e.Detail())
		if used := readertest.Allocated(func() { e.Detail() }); used > uint64(1<<20+64*len(data)) {
			t.Errorf("%d bytes allocated for data of %d", used, len(data))
		}
		if domain, operation, content, ok := e.AAEL(); ok && !bytes.HasSuffix(data, []byte(domain+" "+operation+" "+content)) {
			t.Errorf("%q is taken apart into %q, %q and %q", data, domain, operation, content)
		}
	})
}

// FuzzDevicePath renders a device path, as that of a loaded image.
func FuzzDevicePath(f *testing.F) {
	const end = "\x7f\xff\x04\x00"
	for _, path := range []string{
		"\x02\x01\x0c\x00\xd0\x41\x03\x0a\x00\x00\x00\x00\x01\x01\x06\x00\x02\x1f" + "\x03\x12\x0a\x00\x00\x00\xff\xff\x00\x00" + end,
		"\x04\x04\x0a\x00" + "a\x00b\x00\x00\x00" + end,
		"\x04\x01\x2a\x00" + strings.Repeat("\x02", 38) + "\x7f\x01\x04\x00" + "\x04\x06\x14\x00" + strings.Repeat("g", 16) + end,
		"\x03\x0c\x1b\x00" + strings.Repeat("\x0a", 23) + end,
		"\x03\x0d\x3c\x00" + strings.Repeat("\x20", 56) + end,
		"\x03\x0b\x25\x00" + strings.Repeat("\x11", 33) + end,
		"\x03\x18\x0c\x00http://a" + end, "\x03\x17\x10\x00" + strings.Repeat("n", 12) + end,
		"\x05\x01\x09\x00\x01\x00\x02\x00a\x00" + end, "\x01\x04\x16\x00" + strings.Repeat("v", 18) + end, "\x09\x09\x05\x00x", "\x01\x01\x03\x00",
	} {
		f.Add([]byte(path))
	}
	f.Fuzz(func(t *testing.T, path []byte) {
		data := binary.LittleEndian.AppendUint64(make([]byte, 24), uint64(len(path)))
		e := eventlog.Event{EventType: eventlog.EVEFIBootServicesApp, EventData: append(data, path...)}
		checkLine(t, e.Detail())
		if used := readertest.Allocated(func() { e.Detail() }); used > uint64(1<<20+64*len(path)) {
			t.Errorf("%d bytes allocated for a path of %d", used, len(path))
		}
	})
}
