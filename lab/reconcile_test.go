//go:build linux

package lab_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tallystick/lab"
	"tallystick/rtmr"
)

// policy measures what runs and what root reads from the root disk, and not what
// the kernel's own file systems hold.
const policy = `dont_measure fsmagic=0x9fa0
dont_measure fsmagic=0x62656572
dont_measure fsmagic=0x64626720
dont_measure fsmagic=0x73636673
dont_measure fsmagic=0x01021994
dont_measure fsmagic=0x858458f6
dont_measure fsmagic=0x27e0eb
measure func=BPRM_CHECK mask=MAY_EXEC
measure func=MMAP_CHECK mask=MAY_EXEC
measure func=FILE_CHECK mask=^MAY_READ
measure func=MODULE_CHECK
measure func=POLICY_CHECK
measure func=KEXEC_CMDLINE
measure func=CRITICAL_DATA
`

// workload are files that a guest runs and reads, beside its own.
func workload() map[string][]byte {
	files := map[string][]byte{
		"/opt/with space":                  []byte("a"),
		"/opt/new\nline":                   []byte("b"),
		"/opt/\xff\xfenon":                 []byte("c"),
		"/opt/empty":                       nil,
		"/opt/" + strings.Repeat("L", 250): []byte("d"),
	}
	for _, name := range []string{"one", "two", "three"} {
		files["/opt/"+name] = []byte("#!/bin/sh\necho " + name + "\ncat /etc/passwd\n")
	}
	return files
}

// work runs and reads the workload; and it opens a file for writing that is open
// for reading, and the reverse, which are violations.
func work(g *lab.Guest) {
	g.Shell(`for s in one two three; do /opt/$s; done; cat /opt/*; uname -a`)
	g.Shell(`echo x > /tmp/v; exec 3< /tmp/v; echo y >> /tmp/v; exec 4>> /tmp/v; cat /tmp/v`)
}

// TestReconcile boots machines, has them measure, quotes their TPMs with a nonce
// made here, and holds what their kernels logged against the quotes.
func TestReconcile(t *testing.T) {
	tally := tallyCommand(t)
	for _, test := range []struct {
		name string
		lab.Machine
		flags []string
	}{
		{"6.1 tcb, banks apart", lab.Machine{Kernel: "6.1", Append: lab.TCB, Template: "ima-ng", Hash: "sha256", Banks: []string{"sha1", "sha256"}}, nil},
		{"6.12 Secure Boot, policy", lab.Machine{Kernel: "6.12", Firmware: lab.SecureBoot, TPM: lab.TIS, Policy: policy}, nil},
		{"7.3 UKI, SHA-512 bank", lab.Machine{Kernel: "7.3", Firmware: lab.UKI, Policy: policy, Template: "ima-ngv2", Banks: []string{"sha256", "sha512"}}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := test.Machine
			m.Files = workload()
			g := m.Start(t)
			work(g)
			nonce := make([]byte, 32)
			rand.Read(nonce)
			evidence := g.Quote(nonce)
			dir := t.TempDir()
			logs := saveLogs(t, g, dir)
			endorsed := map[string][]string{}
			for key := range evidence.Keys {
				endorsed[key] = saveActivation(t, g, dir, evidence, key)
			}
			g.Put("/opt/later", []byte("#!/bin/sh\necho later\n"))
			g.Run("/opt/later") // the list runs ahead of the quote
			ahead := saveList(t, g, dir, "ahead.bin", lab.IMAList)
			if n := strings.TrimSpace(string(g.Get(lab.IMADir + "violations"))); n == "0" {
				t.Error("the kernel counted no violation")
			}
			g.Stop()

			for _, list := range logs[1:] {
				holdsValues(t, tally, evidence, []string{logs[0], list})
			}
			for _, q := range evidence.Quotes {
				flags := append(saveQuote(t, dir, evidence, q), test.flags...)
				reconcile := func(status int, verdict string, nonce []byte, logs ...string) string {
					t.Helper()
					args := slices.Concat([]string{"reconcile", "--json"}, flags, []string{"--nonce", hex.EncodeToString(nonce)}, logs)
					return runTally(t, tally, status, verdict, args...)
				}
				out := reconcile(0, "reconciled", nonce, logs[:2]...)
				if strings.Contains(out, `"log-ahead"`) {
					t.Errorf("%s %s: the list ran ahead of its quote", q.Key, q.Bank)
				}
				out = reconcile(0, "reconciled", nonce, logs[0], ahead)
				if !strings.Contains(out, `"log-ahead"`) {
					t.Errorf("%s %s: a longer list, and no register is ahead", q.Key, q.Bank)
				}
				flags = append(flags, endorsed[q.Key]...)
				if out = reconcile(0, "reconciled", nonce, logs[:2]...); !strings.Contains(out, `"chain":"verified"`) {
					t.Errorf("%s %s: the key does not lead to the endorsement key's certificate: %s", q.Key, q.Bank, out)
				}
				reconcile(1, "untrusted", bytes.Repeat([]byte{7}, 32), logs[:2]...)
			}
		})
	}
}

// saveLogs saves the boot log and the IMA list, and then each bank's list where
// the kernel has some, which is from 6.10 on.
func saveLogs(t *testing.T, g *lab.Guest, dir string) []string {
	logs := []string{saveList(t, g, dir, "boot.bin", lab.BootLog), saveList(t, g, dir, "ima.bin", lab.IMAList)}
	for _, bank := range []string{"sha256", "sha384", "sha512"} {
		if list, err := g.Read(lab.IMAList + "_" + bank); err == nil {
			logs = append(logs, save(t, dir, "ima_"+bank+".bin", list))
		}
	}
	return logs
}

func saveList(t *testing.T, g *lab.Guest, dir, name, path string) string {
	return save(t, dir, name, g.Get(path))
}

func save(t *testing.T, dir, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestNoTPM boots a machine whose kernel finds no TPM: IMA measures all the same,
// and its boot_aggregate is of nothing (ima_init.c, ima_add_boot_aggregate).
func TestNoTPM(t *testing.T) {
	tally := tallyCommand(t)
	g := lab.Machine{Firmware: lab.SeaBIOS, TPM: lab.NoTPM, Append: lab.TCB, Template: "ima-ng", Files: workload()}.Start(t)
	work(g)
	if _, err := g.Read(lab.BootLog); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a boot log without a TPM: %v", err)
	}
	list := saveList(t, g, t.TempDir(), "ima.bin", lab.IMAList)
	count := strings.TrimSpace(string(g.Get(lab.IMADir + "runtime_measurements_count")))
	g.Stop()
	first, _, _ := strings.Cut(runTally(t, tally, 0, "", "show", "--json", list), "\n")
	if zeros := strings.Repeat("0", 64); !strings.Contains(first, "boot_aggregate") || !strings.Contains(first, zeros) {
		t.Errorf("the first entry is %s", first)
	}
	out := runTally(t, tally, 0, "", "replay", "--json", "--bank", "sha256", list)
	if !strings.Contains(out, `"events":`+count) {
		t.Errorf("the kernel counted %s entries, and tally says %s", count, out)
	}
}

// saveQuote saves a quote and returns tally's flags for it.
func saveQuote(t *testing.T, dir string, e *lab.Evidence, q lab.Quote) []string {
	t.Helper()
	values, err := json.Marshal(e.Values)
	if err != nil {
		t.Fatal(err)
	}
	name := q.Key + "-" + q.Bank
	return []string{
		"--quote", save(t, dir, name+".attest", q.Attest),
		"--signature", save(t, dir, name+".signature", q.Signature),
		"--key", save(t, dir, q.Key+".public", e.Keys[q.Key]),
		"--values", save(t, dir, "values.json", values),
	}
}

// saveActivation has the TPM activate a credential, and returns tally's flags by
// which the attestation key leads to the authority that made the TPM.
func saveActivation(t *testing.T, g *lab.Guest, dir string, e *lab.Evidence, key string) []string {
	t.Helper()
	return []string{
		"--activation", save(t, dir, key+".activation", g.Activate(e, key)),
		"--ek-cert", save(t, dir, "ek.der", e.EKCerts["rsa2048"]),
		"--ek-roots", save(t, dir, "roots.pem", g.EKRoots()),
	}
}

// holdsValues folds logs with tally replay, and holds every register that it
// gives against the value that the TPM gave, in each of the TPM's banks.
func holdsValues(t *testing.T, tally string, e *lab.Evidence, logs []string) {
	t.Helper()
	var banks []string
	for a := range e.Values {
		banks = append(banks, a.String())
	}
	out := runTally(t, tally, 0, "", slices.Concat([]string{"replay", "--json", "--bank", strings.Join(banks, ",")}, logs)...)
	var replayed struct {
		Registers []struct {
			Register rtmr.Register
			Alg      rtmr.Alg
			Value    rtmr.Hex
		}
	}
	if err := json.Unmarshal([]byte(out), &replayed); err != nil {
		t.Fatal(err)
	}
	ima := 0
	for _, r := range replayed.Registers {
		if want := e.Values[r.Alg][r.Register]; !bytes.Equal(r.Value, want) {
			t.Errorf("%s %s: folded to %s, the TPM has %s", r.Alg, r.Register, r.Value, want)
		}
		if r.Register == rtmr.MustParse("pcr10") {
			ima++
		}
	}
	if ima != len(banks) {
		t.Errorf("PCR 10 was folded in %d banks, expected %d", ima, len(banks))
	}
}

// runTally runs tally and returns its standard output.
func runTally(t *testing.T, tally string, status int, verdict string, args ...string) string {
	t.Helper()
	cmd := exec.Command(tally, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if cmd.ProcessState.ExitCode() != status || (verdict != "" && !strings.Contains(string(out), `"verdict":"`+verdict+`"`)) {
		t.Errorf("tally %s: exit status %d, expected %d and %q\n%.3000s%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), status, verdict, out, stderr.Bytes())
	}
	return string(out)
}

// tallyCommand builds tally.
func tallyCommand(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tally")
	cmd := exec.Command("go", "build", "-o", path, "../cmd/tally")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}
