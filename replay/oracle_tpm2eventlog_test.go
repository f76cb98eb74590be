package replay_test

import (
	"bufio"
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tallystick/eventlog"
	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// tpm2Log is what tpm2_eventlog prints: per event its register, type and
// digests, and the folded values ("sha256 pcr0" to hex).
type tpm2Log struct {
	events []tpm2Event
	values map[string]string
}

type tpm2Event struct {
	index   string
	typ     string
	digests []string // "sha256:hex", in the record's order
}

// parseTPM2 reads its YAML line by line, by the exact indentation, so that no
// text within an event's data passes for a key.
func parseTPM2(out []byte) (log tpm2Log) {
	log.values = map[string]string{}
	bank, alg := "", ""
	inValues := false
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		line := lines.Text()
		key, value, _ := strings.Cut(line, ": ")
		value = strings.Trim(value, `"`)
		last := len(log.events) - 1
		switch {
		case line == "pcrs:":
			inValues = true
		case inValues && strings.HasPrefix(line, "    "):
			log.values[bank+" pcr"+strings.Trim(key, " :")] = strings.TrimPrefix(value, "0x")
		case inValues:
			bank = strings.Trim(line, " :")
		case key == "  PCRIndex": // "- EventNum" stands before it, but not in a SHA-1 log
			log.events = append(log.events, tpm2Event{index: value})
		case last < 0:
		case key == "  EventType":
			log.events[last].typ = value
		case key == "  Digest": // of a SHA-1 record
			log.events[last].digests = append(log.events[last].digests, "sha1:"+value)
		case key == "  - AlgorithmId":
			alg = value
		case key == "    Digest":
			log.events[last].digests = append(log.events[last].digests, alg+":"+value)
		}
	}
	return log
}

// runTPM2 runs tpm2_eventlog on a log. What it printed before an error counts.
func runTPM2(t *testing.T, command string, l testlogs.Log) (tpm2Log, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, l.Data, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command, path)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = errors.Join(err, errors.New(errs.String()))
	}
	return parseTPM2(out), err
}

// askTPM2Eventlog says where tpm2_eventlog differs from us.
func askTPM2Eventlog(t *testing.T, command string, l testlogs.Log) string {
	t.Helper()
	ours, f, ourErr := readTCG(t, l)
	log, err := runTPM2(t, command, l)
	if ourErr != nil || err != nil {
		return errorsDiffer(ourErr, err)
	}
	if len(log.events) != len(ours) {
		return fmt.Sprintf("%d events", len(log.events))
	}
	for i, e := range log.events {
		if e.index != fmt.Sprint(ours[i].index) || !sameType(e.typ, ours[i].typ) {
			return fmt.Sprintf("event %d is %s in %s", i, e.typ, e.index)
		}
		for k, d := range ours[i].digests {
			if k >= len(e.digests) || e.digests[k] != d.String() {
				return fmt.Sprintf("event %d has the digests %s", i, e.digests)
			}
		}
	}
	var said []string
	for _, v := range f.Registers() {
		index := v.Register.Index()
		if v.Register.Kind() != rtmr.KindPCR {
			index++ // the CC-MR index, which it takes for a PCR's
		}
		name := fmt.Sprintf("%s pcr%d", v.Alg, index)
		if got := log.values[name]; got != v.Value.String() {
			said = append(said, name+" is "+got)
		}
		delete(log.values, name)
	}
	for name, value := range log.values {
		if strings.Trim(value, "0") != "" {
			said = append(said, name+" is "+value)
		}
	}
	return strings.Join(said, ", ")
}

func sameType(name string, typ uint32) bool {
	return name == eventlog.EventType(typ).String() || name == fmt.Sprintf("0x%x", typ)
}

const tpm2ToolsVersion = "5.4" // what the table was made with

// TestTPM2Eventlog: the same events and the same values.
func TestTPM2Eventlog(t *testing.T) {
	command := tool(t, "tpm2_eventlog", "tpm2-tools")
	differs := map[string]string{
		"go-eventlog/testdata/eventlogs/tpm/glinux-alex.bin":       "sha1 pcr0 is ",
		"go-eventlog/testdata/legacydata/option_rom_eventlog":      "segmentation fault",
		"go-eventlog/testdata/legacydata/short_no_action_eventlog": "invalid eventDataSize in specid event",
		"corpus/tpm-failed-pcr0/failed-event_log.bin":              "sha1 pcr0 is ",
		"corpus/tpm-hcrtm/binary_measurements_hcrtm.bin":           "event 1 is Unknown event type",
		"corpus/tampered-event-data/uefi_event_log.bin":            "PCR Index -1 is out of bounds",
		"corpus/tampered-event-data/uefi_event_log_invalid.bin":    "size is insufficient for UEFI variable data",
		"startup_locality_3":                   "sha256 pcr0 is f67ba2a1",
		"startup_locality_after_an_extend":     "sha256 pcr0 is ",
		"startup_locality_of_18_bytes":         "sha256 pcr0 is f67ba2a1",
		"startup_locality_in_pcr1":             "sha256 pcr1 is ",
		"startup_locality_in_a_sha1_log":       "sha1 pcr0 is ",
		"hcrtm":                                "event 1 is Unknown event type",
		"hcrtm_after_startup_locality_3":       "event 2 is Unknown event type",
		"no_action_with_digests_in_the_middle": "sha256 pcr0 is ",
		"no_action_of_no_register":             "PCR Index -1 is out of bounds",
		"register_24":                          "no error",
		"two_digests_in_one_bank":              "no error",
		"sm3_bank":                             "sm3_256 pcr4 is ",
		"bank_of_an_unknown_algorithm":         "size insufficient for event data",
		"headerless":                           "insufficient size for SpecID event data",
		"header_without_vendor_size":           "PCR Index 134217728 is out of bounds",
		"padded_with_ff":                       "PCR Index -1 is out of bounds",
		"padded_with_zeros":                    "insufficient size for event header",
	}
	if !version(t, command, tpm2ToolsVersion) {
		t.Skipf("the table is of tpm2-tools %s", tpm2ToolsVersion)
	}
	compare(t, []string{"tcg12", "tcg2"}, differs, func(t *testing.T, l testlogs.Log) string { return askTPM2Eventlog(t, command, l) })
}

// TestTPM2EventlogExtendsNoAction: where its PCR 0 comes from in a log with a
// StartupLocality event: from zeros, extended with that event's own zeros.
func TestTPM2EventlogExtendsNoAction(t *testing.T) {
	command := tool(t, "tpm2_eventlog", "tpm2-tools")
	log := testlogs.TCG2(testlogs.SHA256Only,
		testlogs.Event{Index: 0, Type: testlogs.NoAction, Data: testlogs.StartupLocality(3), Digests: []testlogs.Digest{{Alg: testlogs.SHA256, Sum: make([]byte, 32)}}},
		testlogs.Event{Index: 0, Type: testlogs.SCRTMVersion, Data: []byte("1.0")})
	got, err := runTPM2(t, command, testlogs.Log{Data: log})
	if err != nil {
		t.Fatal(err)
	}
	version := testlogs.Hash(crypto.SHA256, []byte("1.0"))
	extended := hex.EncodeToString(testlogs.Fold(crypto.SHA256, make([]byte, 32), make([]byte, 32), version))
	right := hex.EncodeToString(testlogs.Fold(crypto.SHA256, append(make([]byte, 31), 3), version)) // later versions
	if v := got.values["sha256 pcr0"]; v != extended && v != right {
		t.Errorf("pcr0 is %s", v)
	}
}

// TestTPM2EventlogReadsNoCCLog: the header of a CC log is of register 1, and
// that is an error to it.
func TestTPM2EventlogReadsNoCCLog(t *testing.T) {
	command := tool(t, "tpm2_eventlog", "tpm2-tools")
	for _, l := range testlogs.OfFormat(t, "ccel") {
		log, err := runTPM2(t, command, l)
		if err == nil || !strings.Contains(err.Error(), "bad pcrIndex for EV_NO_ACTION event") || len(log.values) != 0 {
			t.Errorf("%s: %v, %d values", l.Name, err, len(log.values))
		}
	}
}
