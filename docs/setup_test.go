//go:build linux

package docs_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"tallystick/bpf/attester"
	"tallystick/evidence"
	"tallystick/internal/snptest"
	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// sources gives a page the source's fixtures.
func sources(t *testing.T, s *shell) {
	t.Helper()
	fixtures, err := filepath.Abs("../fixtures")
	if err != nil {
		t.Fatal(err)
	}
	// Copied: a page may write beside them.
	s.must(t, "cp -r '"+fixtures+"' fixtures")
}

// guest runs the service as the package does, but for its device, on the logs of a
// machine of the lab's.
func guest(t *testing.T, s *shell) {
	sources(t, s)
	s.must(t, `mkdir -p root/sys/kernel/security/ima root/sys/kernel/security/tpm0 /run/tallystick
cp fixtures/sig-6.12/boot.bin root/sys/kernel/security/tpm0/binary_bios_measurements
cp fixtures/sig-6.12/ima.bin root/sys/kernel/security/ima/binary_runtime_measurements`)
	s.must(t, "tallyd run --device memory --root root 2>service.log &")
	s.write(t, "app.conf", []byte("listen = 443\n"))
}

// The nonce of the guest with registers in the kernel.
var softNonce = []byte("a nonce of the auditor's choosing")[:32]

// auditor lays out the evidence of a machine with a TPM, and of an SEV-SNP guest with
// registers in its kernel, with its report and without; and what their auditor has.
func auditor(t *testing.T, s *shell) {
	sources(t, s)
	m, q := tpmMachine(t)
	tpm := testlogs.TPMBundle(m, q)
	tpm.Statement.Kernel = "6.12.117+deb13-cloud-amd64"
	s.bundle(t, "tpm.cmw", tpm)
	s.write(t, "tpm.nonce", []byte(hex.EncodeToString(q.Nonce)+"\n"))
	s.write(t, "activation.json", q.Activation)
	s.write(t, "ek-roots.pem", q.EKRoots)

	b, amd := softGuest(t, m)
	s.bundle(t, "snp.cmw", b)
	s.write(t, "snp.nonce", []byte(hex.EncodeToString(softNonce)+"\n"))
	s.write(t, "vcek.der", amd.Vcek.Raw)
	s.write(t, "snp-roots.pem", amd.Roots())
	b.Report = nil
	s.bundle(t, "self.cmw", b)
}

func (s *shell) bundle(t *testing.T, name string, b *evidence.Bundle) {
	t.Helper()
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, name, data)
}

// tpmMachine is a machine, and its quote of the bank sha256.
func tpmMachine(t *testing.T) (testlogs.Machine, testlogs.TPMQuote) {
	t.Helper()
	machines := testlogs.Machines(t)
	i := slices.IndexFunc(machines, func(m testlogs.Machine) bool { return m.Name == "fixtures/sig-6.12+ima.bin" })
	if i < 0 {
		t.Fatal("no fixtures/sig-6.12+ima.bin")
	}
	m := machines[i]
	j := slices.IndexFunc(m.Quotes, func(q testlogs.TPMQuote) bool { return q.Name == "quote-ecc-sha256" })
	return m, m.Quotes[j]
}

// softGuest is the evidence of a guest with registers in its kernel that measured
// what the machine did, by a report of a hardware maker of the test's own.
func softGuest(t *testing.T, m testlogs.Machine) (*evidence.Bundle, snptest.Authority) {
	t.Helper()
	banks := []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384}
	var registers []rtmr.Register
	var selection []rtmr.Selected
	for i := range rtmr.NumPCRs {
		r, _ := rtmr.PCR(i).Register()
		registers = append(registers, r)
		for _, alg := range banks {
			selection = append(selection, rtmr.Selected{Alg: alg, Register: r})
		}
	}
	g := testlogs.NewGuest(t, banks, registers...)
	b := &evidence.Bundle{BootLog: m.Logs[0].Data, IMAList: m.Logs[1].Data}
	g.Boot(t, b.BootLog, true)
	g.IMA(t, b.IMAList, rtmr.MustParse("pcr10"))
	b.Journal, b.Values = g.Journal(), g.Values(t)
	b.Statement = evidence.Statement{
		Helper: "tallyd 0.1.0", Device: rtmr.Description{Kind: "bpf", Name: "registers in the kernel"}, Nonce: softNonce,
		Kernel: "6.12.117+deb13-cloud-amd64",
		Logs: []evidence.LogRole{
			{Item: evidence.ItemBootLog, Role: evidence.Checked}, {Item: evidence.ItemIMAList, Role: evidence.Checked},
			{Item: evidence.ItemJournal, Role: evidence.Folded},
		},
	}
	a, err := attester.New(attester.Options{InsecureUnlocked: true})
	if err != nil {
		t.Fatal(err)
	}
	q, err := a.Quote(b.Values, selection, softNonce)
	if err != nil {
		t.Fatal(err)
	}
	amd, err := snptest.New()
	if err != nil {
		t.Fatal(err)
	}
	b.Attest, b.Signature, b.Public = q.Attest, q.Signature, q.Public
	b.Report, err = amd.Report(func(report []byte) {
		data := q.ReportData()
		copy(report[0x50:], data[:])
	})
	if err != nil {
		t.Fatal(err)
	}
	return b, amd
}

// Every page that shows commands as these do is run.
func TestPagesAreRun(t *testing.T) {
	all, err := filepath.Glob("*.md")
	if err != nil || len(all) < len(pages) {
		t.Fatalf("%v, %v", all, err)
	}
	for _, page := range all {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if _, run := pages[page]; !run && bytes.Contains(data, []byte("```console")) {
			t.Errorf("%s has commands, and is not run", page)
		}
	}
}
