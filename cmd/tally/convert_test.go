package main

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// A source is a log to convert. Want, where not nil, are the registers that it
// folds to, computed by hand: "sha256 pcr10 value".
type sourceLog struct {
	name, format string
	data         []byte
	flags        []string // of convert and of the source's own replay
	want         []string
	// undigested: of some entries the log holds no digest, and the one that the
	// reader makes of their data proves nothing about them. A conversion records
	// it, and what is recorded the data do explain there.
	undigested bool
}

// tally runs the built command and returns its standard output.
func tally(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("tally", args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() != 1) { // 1: an entry contradicts itself
		t.Fatalf("tally %s: %v\n%s", strings.Join(args, " "), err, &errs)
	}
	return out
}

// replayed returns what a log folds to: "sha256 pcr10 value events", and the
// format as which it was recognised.
func replayed(t *testing.T, args ...string) (registers []string, format string) {
	t.Helper()
	var report struct {
		Logs      []struct{ Format string }
		Registers []struct {
			Register, Alg, Value string
			Events               int
		}
	}
	if err := json.Unmarshal(tally(t, append([]string{"replay", "--json"}, args...)...), &report); err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Registers {
		registers = append(registers, fmt.Sprintf("%s %s %s %d", r.Alg, r.Register, r.Value, r.Events))
	}
	return registers, report.Logs[0].Format
}

// shown returns a log's events as show --json has them, without the offsets.
func shown(t *testing.T, args ...string) (events []string) {
	t.Helper()
	for line := range bytes.Lines(tally(t, append([]string{"show", "--json"}, args...)...)) {
		var event map[string]any
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatal(err)
		}
		delete(event, "offset")
		text, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, string(text))
	}
	return events
}

// TestConvert: a converted log replays to the same registers, for each source
// format and each target, and shows the same events: violations, events that
// extend nothing and localities survive.
func TestConvert(t *testing.T) {
	for _, src := range slices.Concat(handMade(), realLogs(t)) {
		t.Run(src.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, src.data, 0o600); err != nil {
				t.Fatal(err)
			}
			want, format := replayed(t, append(src.flags, path)...)
			if format != src.format {
				t.Errorf("recognised as %s, expected %s", format, src.format)
			}
			if got := inBanksOf(src.want, want); src.want != nil && !slices.Equal(got, src.want) {
				t.Errorf("folds to %q, by hand %q", got, src.want)
			}
			showing := append(src.flags, path)
			if strings.HasPrefix(src.format, "ima") { // which show has in its own bank alone
				showing = append([]string{"--bank", "sha1,sha256,sha384"}, showing...)
			}
			events := shown(t, showing...)
			if src.undigested {
				events = recorded(t, events)
			}
			for _, to := range []string{"cel-tlv", "cel-json", "cel-cbor", "jsonl"} {
				converted := path + "." + to
				out := tally(t, append([]string{"convert", "--to", to, path}, src.flags...)...)
				if err := os.WriteFile(converted, out, 0o600); err != nil {
					t.Fatal(err)
				}
				if got, _ := replayed(t, converted); !slices.Equal(got, want) {
					t.Errorf("as %s it folds to %q, expected %q", to, got, want)
				}
				if got := shown(t, converted); !slices.Equal(got, asTarget(events, to)) {
					t.Errorf("as %s it shows\n%s\nexpected\n%s", to, strings.Join(got, "\n"), strings.Join(events, "\n"))
				}
			}
		})
	}
}

// asTarget returns the events as a target can tell them: in TLV and CBOR the
// content systemd is the string alone, without the type of its event.
func asTarget(events []string, to string) (out []string) {
	for _, e := range events {
		if to == "cel-tlv" || to == "cel-cbor" {
			e = strings.Replace(e, `"type":"systemd:phase"`, `"type":"systemd"`, 1)
		}
		out = append(out, e)
	}
	return out
}

// recorded returns the events of an undigested log as they are where its
// digests have been recorded.
func recorded(t *testing.T, events []string) (out []string) {
	const check, unproven, proven = `"check":`, `"cannot be checked"`, `"verified"`
	for _, e := range events {
		out = append(out, strings.Replace(e, check+unproven, check+proven, 1))
	}
	if slices.Equal(out, events) {
		t.Errorf("nothing in the source log is %s:\n%s", unproven, strings.Join(events, "\n"))
	}
	return out
}

// inBanksOf returns the registers, without their counts of events, in the
// banks that were computed by hand.
func inBanksOf(byHand, registers []string) (out []string) {
	bank := func(register string) string { return register[:strings.IndexByte(register, ' ')] }
	for _, r := range registers {
		if slices.ContainsFunc(byHand, func(h string) bool { return bank(h) == bank(r) }) {
			out = append(out, r[:strings.LastIndexByte(r, ' ')])
		}
	}
	return out
}

// handMade are logs of every source format, assembled without our encoders.
func handMade() (all []sourceLog) {
	for _, odd := range testlogs.OddLogs() {
		if odd.Err == "" && odd.Want != nil {
			all = append(all, sourceLog{name: odd.Name, format: odd.Log.Format, data: odd.Log.Data, want: odd.Want})
		}
	}
	for _, odd := range testlogs.OddLists() {
		if odd.Err == "" {
			var want []string
			for _, r := range odd.Registers(crypto.SHA256) {
				want = append(want, "sha256 "+r)
			}
			all = append(all, sourceLog{name: "ima/" + odd.Name, format: "ima", data: odd.List, want: want})
		}
	}
	return append(all, realmLog(), aaelLog(), aaelTextLog(), systemdLog(), dstackLog(), strippedDstackLog(), celTLVLog(), celJSONLog(), celCBORLog())
}

var (
	phase     = []byte("enter-initrd")
	phaseSum  = testlogs.Hash(crypto.SHA256, phase)
	phaseWant = []string{fmt.Sprintf("sha256 pcr11 %x", testlogs.Fold(crypto.SHA256, make([]byte, 32), phaseSum, phaseSum))}
)

// realmLog is a CC log in SHA-256, as an Arm CCA realm has it.
func realmLog() sourceLog {
	event := testlogs.Event{Index: 3, Type: testlogs.IPL, Data: phase}
	log := testlogs.TCG2(testlogs.SHA256Only, event, event)
	return sourceLog{name: "ccel/realm", format: "ccel", data: append(log, bytes.Repeat([]byte{0xFF}, 100)...),
		want: []string{strings.Replace(phaseWant[0], "pcr11", "rem2", 1)}}
}

// aaelLog is a TD's CC log with an entry of CoCo's in RTMR3: a tagged event,
// u32 tag 0x4141454c, u32 size.
func aaelLog() sourceLog {
	text := "coco.example pull-image sha256:00"
	data := binary.LittleEndian.AppendUint32([]byte{0x4c, 0x45, 0x41, 0x41}, uint32(len(text)))
	data = append(data, text...)
	sum := testlogs.Hash(crypto.SHA384, data)
	log := testlogs.TCG2([]uint16{testlogs.SHA384}, testlogs.Event{Index: 4, Type: testlogs.EventTag, Data: data})
	return sourceLog{name: "ccel/aael", format: "ccel", data: log,
		want: []string{fmt.Sprintf("sha384 rtmr3 %x", testlogs.Fold(crypto.SHA384, make([]byte, 48), sum))}}
}

// aaelTextLog is the agent's older log: a line an event, hashed without its end.
func aaelTextLog() sourceLog {
	lines := []string{"INIT sha384/" + strings.Repeat("0", 96), "coco.example pull-image sha256:00"}
	first, second := testlogs.Hash(crypto.SHA384, []byte(lines[0])), testlogs.Hash(crypto.SHA384, []byte(lines[1]))
	return sourceLog{name: "aael", format: "aael", data: []byte(strings.Join(lines, "\n") + "\n"),
		want:       []string{fmt.Sprintf("sha384 rtmr3 %x", testlogs.Fold(crypto.SHA384, make([]byte, 48), first, second))},
		undigested: true}
}

// systemdLog is what systemd-pcrextend appends to tpm2-measure.log.
func systemdLog() sourceLog {
	record := fmt.Sprintf("\x1e"+`{"pcr":11,"digests":[{"hashAlg":"sha256","digest":"%x"}],"content_type":"systemd",`+
		`"content":{"string":"enter-initrd","bootId":"0123456789abcdef0123456789abcdef","timestamp":12,"eventType":"phase"}}`+"\n", phaseSum)
	return sourceLog{name: "systemd", format: "systemd", data: []byte(record + record), want: phaseWant}
}

// dstackLog is dstack's JSON: an event of its own, whose digest is that of
// le32(type) ":" name ":" payload, and one of the firmware's.
func dstackLog() sourceLog {
	own := append(binary.LittleEndian.AppendUint32(nil, 0x08000001), ":app-id:\x01\x02"...)
	sum, firmware := testlogs.Hash(crypto.SHA384, own), testlogs.Hash(crypto.SHA384, make([]byte, 4))
	log := fmt.Sprintf(`[{"imr":0,"event_type":4,"digest":"%x","event":"","event_payload":"00000000"},`+
		`{"imr":3,"event_type":134217729,"digest":"%x","event":"app-id","event_payload":"0102"}]`, firmware, sum)
	zeros := make([]byte, 48)
	return sourceLog{name: "dstack", format: "dstack", data: []byte(log), want: []string{
		fmt.Sprintf("sha384 rtmr0 %x", testlogs.Fold(crypto.SHA384, zeros, firmware)),
		fmt.Sprintf("sha384 rtmr3 %x", testlogs.Fold(crypto.SHA384, zeros, sum))}}
}

// strippedDstackLog is dstackLog without the digest of dstack's own event.
func strippedDstackLog() sourceLog {
	l := dstackLog()
	before, own, _ := bytes.Cut(l.data, []byte("134217729"))
	_, after, _ := bytes.Cut(own, []byte(`","event":`))
	l.name, l.data, l.undigested = "dstack/stripped", slices.Concat(before, []byte(`134217729,"digest":"","event":`), after), true
	return l
}

// tlv is a CEL TLV: u8 type, be32 length, value.
func tlv(typ byte, value ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(value))), value...)
}

// celTLVLog has an EV_NO_ACTION event, then two of EV_IPL: pcclient_std (5),
// event_type 0, event_data 1.
func celTLVLog() sourceLog {
	record := func(n byte, typ byte) []byte {
		content := slices.Concat(tlv(0, 0, 0, 0, typ), tlv(1, phase...))
		return slices.Concat(tlv(0, 0, 0, 0, 0, 0, 0, 0, n), tlv(1, 11), tlv(3, tlv(testlogs.SHA256, phaseSum...)...), tlv(5, content...))
	}
	return sourceLog{name: "cel-tlv", format: "cel-tlv", want: phaseWant,
		data: slices.Concat(record(0, testlogs.NoAction), record(1, testlogs.IPL), record(2, testlogs.IPL))}
}

func celJSONLog() sourceLog {
	record := func(n int, typ string) string {
		return fmt.Sprintf(`{"recnum":%d,"pcr":11,"digests":[{"hashAlg":"sha256","digest":"%x"}],"content_type":"pcclient_std",`+
			`"content":{"event_type":"%s","event_data":"%s"}}`, n, phaseSum, typ, hex.EncodeToString(phase))
	}
	log := "[" + record(0, "EV_NO_ACTION") + "," + record(1, "EV_IPL") + "," + record(2, "EV_IPL") + "]"
	return sourceLog{name: "cel-json", format: "cel-json", data: []byte(log), want: phaseWant}
}

func celCBORLog() sourceLog {
	record := func(n, typ int) any {
		return map[int]any{0: n, 1: 11, 3: []any{map[int]any{0: testlogs.SHA256, 1: phaseSum}}, 9: 5, 10: map[int]any{0: typ, 1: phase}}
	}
	deterministic, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	log, err := deterministic.Marshal([]any{record(0, testlogs.NoAction), record(1, testlogs.IPL), record(2, testlogs.IPL)})
	if err != nil {
		panic(err)
	}
	return sourceLog{name: "cel-cbor", format: "cel-cbor", data: log, want: phaseWant}
}

// realOnes are parts of the names of real logs, a few of each format.
var realOnes = []string{"shim-grub-sb-6.12/boot", "uki-ovmf2025-7.3/boot", "violations-7.3/ima.", "ngv2-verity-6.12/ima.bin", "sig-6.12/ima_sha384",
	"debian-10", "windows_gcp", "arch-linux", "cos-113-intel-tdx.bin", "corpus/"}

// realLogs are real logs of every format that has any, and the list of a
// kernel that padded SHA-1.
func realLogs(t *testing.T) (all []sourceLog) {
	for _, l := range testlogs.All(t) {
		if slices.ContainsFunc(realOnes, func(part string) bool { return strings.Contains(l.Name, part) }) {
			all = append(all, sourceLog{name: l.Name, format: l.Format, data: l.Data})
		}
	}
	padded := fixtureMachine(t, "ng-small-6.1+ima.bin")
	return append(all, sourceLog{name: "padded-sha1", format: "ima", data: padded.Logs[1].Data, flags: []string{"--profile", padded.Profile}, want: []string{
		"sha384 pcr10 " + padded.Held[rtmr.SHA384][rtmr.MustParse("pcr10")].String()}})
}
