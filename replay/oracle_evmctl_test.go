package replay_test

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"tallystick/ima"
	"tallystick/internal/testlogs"
	"tallystick/replay"
	"tallystick/rtmr"
)

// evmctlRun is what evmctl made of a list in one bank: the registers after
// each entry, extended with the bank's own hash and with padded SHA-1.
type evmctlRun struct {
	own, padded []map[int]string
	matched     bool
}

// evmctlFault is how it says that it stopped reading.
var evmctlFault = regexp.MustCompile(`(?m)(Unable to read|Invalid PCR|\d+ ERROR: |file pathname is too long|Mixed measurement list).*$`)

var pcrAgg = regexp.MustCompile(`(?m)[a-z0-9]+: PCRAgg +(\d+): ([0-9a-f]+)$`)

// runEvmctl runs "evmctl ima_measurement" on a list, with a PCR value that
// nothing folds to, so that it says after each entry what it has instead.
func runEvmctl(t *testing.T, command string, bank rtmr.Alg, list []byte, flags ...string) (run evmctlRun, err error) {
	t.Helper()
	dir := t.TempDir()
	files := map[string][]byte{"list": list, "pcrs": []byte("PCR-00: EE\n")}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"ima_measurement", "-v", "-v", "--pcrs", bank.String() + "," + filepath.Join(dir, "pcrs")}, flags...)
	out, err := exec.Command(command, append(args, filepath.Join(dir, "list"))...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	run.parse(out)
	switch fault := evmctlFault.Find(out); {
	case exit != nil && exit.ExitCode() < 0: // killed by a signal
		return run, exit
	case fault != nil:
		return run, errors.New(string(fault))
	}
	return run, nil // another exit status means that the PCR does not match
}

// parse reads the registers off the output: after each entry those of its own
// hashes, then those of padded SHA-1, each in ascending order.
func (run *evmctlRun) parse(out []byte) {
	last, group, padded := rtmr.NumPCRs, map[int]string(nil), true
	for _, m := range pcrAgg.FindAllSubmatch(out, -1) {
		pcr, _ := strconv.Atoi(string(m[1]))
		if pcr <= last {
			group, padded = map[int]string{}, !padded
			if padded {
				run.padded = append(run.padded, group)
			} else {
				run.own = append(run.own, group)
			}
		}
		group[pcr], last = string(m[2]), pcr
	}
	run.matched = bytes.Contains(out, []byte("Matched per TPM bank calculated digest(s)."))
}

// foldEach folds a list and returns the registers of a bank after each entry.
func foldEach(list []byte, bank rtmr.Alg, profile ima.Profile) (after []map[int]string, err error) {
	r, err := ima.NewReader(bytes.NewReader(list), ima.Options{Banks: []rtmr.Alg{bank}, Profile: profile})
	if err != nil {
		return nil, err
	}
	f := replay.New(replay.Options{Banks: []rtmr.Alg{bank}, SkipVerify: true})
	for m, err := range r.Measurements() {
		if err != nil {
			return after, err
		}
		f.Add(&m)
		now := map[int]string{}
		for _, v := range f.Registers() {
			now[v.Register.Index()] = v.Value.String()
		}
		after = append(after, now)
	}
	return after, nil
}

// askEvmctl says where evmctl differs from us in the SHA-1 and SHA-256 banks,
// which are all that it has.
func askEvmctl(t *testing.T, command string, list []byte) string {
	t.Helper()
	for _, bank := range []rtmr.Alg{rtmr.SHA1, rtmr.SHA256} {
		run, err := runEvmctl(t, command, bank, list, "--ignore-violations")
		own, ourErr := foldEach(list, bank, ima.Profile{})
		if said := registersDiffer(own, run.own); said != "" {
			return fmt.Sprintf("%s: %s, %v", bank, said, err)
		}
		if said := errorsDiffer(ourErr, err); said != "" {
			return said
		}
		padded, _ := foldEach(list, bank, ima.Profile{PaddedSHA1: true})
		if said := registersDiffer(padded, run.padded); said != "" {
			return fmt.Sprintf("%s padded: %s", bank, said)
		}
	}
	return ""
}

func registersDiffer(ours, theirs []map[int]string) string {
	for i := range min(len(ours), len(theirs)) {
		if !maps.Equal(ours[i], theirs[i]) {
			return fmt.Sprintf("after entry %d it has %v", i, theirs[i])
		}
	}
	if len(ours) != len(theirs) {
		return fmt.Sprintf("%d entries", len(theirs))
	}
	return ""
}

const evmctlVersion = "1.4" // what the table was made with

// TestEvmctl: the same values after every entry.
func TestEvmctl(t *testing.T) {
	command := tool(t, "evmctl", "ima-evm-utils")
	if !version(t, command, evmctlVersion) {
		t.Skipf("the table is of ima-evm-utils %s", evmctlVersion)
	}
	differs := map[string]string{
		"corpus/ima-templates/imatest.log": "6 entries, Mixed measurement list",
		"ima_beside_ima_ng":                "1 entries, Mixed measurement list",
		"forged":                           "sha1: after entry 0 it has",
		"big_endian":                       "0 entries, Invalid PCR 167772160",
		"sha256_list":                      "0 entries, 1540548713 ERROR: event name too long",
		"trailing_bytes":                   "no error",
		"pcr_24":                           "sha1: 1 entries, Invalid PCR 24",
	}
	check := func(name, want string, list []byte) {
		t.Run(name, func(t *testing.T) {
			if said := askEvmctl(t, command, list); !strings.Contains(said, want) || want == "" && said != "" {
				t.Errorf("it says %q, and %q in docs/oracles.md", said, want)
			}
		})
	}
	for _, l := range testlogs.OfFormat(t, "ima") {
		want := differs[l.Name]
		if file := filepath.Base(l.Name); strings.Contains(file, "sha256") || strings.Contains(file, "sha384") || strings.Contains(file, "sha512") {
			want = "0 entries" // of a list whose hashes are not SHA-1
		}
		check(l.Name, want, l.Data)
	}
	inDocs(t, differs)
	for _, l := range testlogs.OddLists() {
		check(l.Name, differs[l.Name], l.List)
	}
}

// TestEvmctlViolations: unless told to ignore violations it extends their
// zeros, and its value is not the TPM's. It is that of our profile
// violation-zero.
func TestEvmctlViolations(t *testing.T) {
	command := tool(t, "evmctl", "ima-evm-utils")
	list := testlogs.Read(t, testlogs.Fixture(t, "violations-7.3", "ima.bin"))
	for _, bank := range []rtmr.Alg{rtmr.SHA1, rtmr.SHA256} {
		run, err := runEvmctl(t, command, bank, list)
		zeros, ourErr := foldEach(list, bank, ima.Profile{ViolationZero: true})
		if err != nil || ourErr != nil || registersDiffer(zeros, run.own) != "" {
			t.Errorf("%s: %v, %v, %s", bank, err, ourErr, registersDiffer(zeros, run.own))
		}
		if last := run.own[len(run.own)-1]; last[10] == held(t, "violations-7.3")[bank][rtmr.MustParse("pcr10")].String() {
			t.Errorf("%s: it has the TPM's value now", bank)
		}
	}
}

// TestEvmctlMatchesAnything: with the SHA-1 bank alone and a list of one entry
// it reports a match whatever the PCR, since the bank that it was given no
// value of counts as matched, and last.
func TestEvmctlMatchesAnything(t *testing.T) {
	command := tool(t, "evmctl", "ima-evm-utils")
	if !version(t, command, evmctlVersion) {
		t.Skipf("seen in ima-evm-utils %s", evmctlVersion)
	}
	one := testlogs.IMA(binary.LittleEndian, crypto.SHA1, testlogs.IMAEntry("/bin/sh"))
	run, err := runEvmctl(t, command, rtmr.SHA1, one)
	if err != nil || !run.matched {
		t.Errorf("%v, matched %t", err, run.matched)
	}
}
