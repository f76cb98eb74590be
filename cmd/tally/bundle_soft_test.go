//go:build !windows

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"tallystick/bpf/attester"
	"tallystick/evidence"
	"tallystick/internal/snptest"
	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

func init() { scriptSetups["bundle"] = bundles }

// softGuest is a guest with registers in memory in the kernel's place: all that
// was measured is in its journal, the boot log and the IMA list of a real machine
// too. A report of the hardware's stands for the quote.
func softGuest(t *testing.T) (b *evidence.Bundle, roots, vcek []byte) {
	t.Helper()
	m := fixtureMachine(t, "violations-7.3+ima.bin")
	banks := []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384}
	var registers []rtmr.Register
	var selection []rtmr.Selected
	for i := range 15 {
		r, _ := rtmr.PCR(i).Register()
		registers = append(registers, r)
		for _, alg := range banks {
			selection = append(selection, rtmr.Selected{Alg: alg, Register: r})
		}
	}
	g := testlogs.NewGuest(t, banks, registers...)
	b = &evidence.Bundle{BootLog: m.Logs[0].Data, IMAList: m.Logs[1].Data}
	g.Boot(t, b.BootLog, true)
	g.IMA(t, b.IMAList, rtmr.MustParse("pcr10"))
	b.Journal = g.Journal()
	b.Statement = evidence.Statement{
		Helper: "tallyd test", Device: rtmr.Description{Kind: "bpf", Name: "a kernel"}, Nonce: []byte{0xca, 0xfe},
		Logs: []evidence.LogRole{
			{Item: evidence.ItemBootLog, Role: evidence.Checked}, {Item: evidence.ItemIMAList, Role: evidence.Checked},
			{Item: evidence.ItemJournal, Role: evidence.Folded},
		},
		Facts: []evidence.Fact{{Name: "tap", Value: "on"}}, Warnings: []string{"a warning \x1b[31m"},
	}
	a, err := attester.New(attester.Options{InsecureUnlocked: true})
	if err != nil {
		t.Fatal(err)
	}
	q, err := a.Quote(g.Values(t), selection, []byte{0xca, 0xfe})
	if err != nil {
		t.Fatal(err)
	}
	amd, err := snptest.New()
	if err != nil {
		t.Fatal(err)
	}
	b.Attest, b.Signature, b.Public, b.Values = q.Attest, q.Signature, q.Public, g.Values(t)
	b.Report, err = amd.Report(func(report []byte) {
		data := q.ReportData()
		copy(report[0x50:], data[:])
	})
	if err != nil {
		t.Fatal(err)
	}
	return b, amd.Roots(), amd.Vcek.Raw
}

// TestBundleSoft: a bundle of a software TPM, by an SEV-SNP report with its
// certificate beside it and behind it; and what is wrong with one.
func TestBundleSoft(t *testing.T) {
	other, _, _ := softGuest(t)
	for name, c := range map[string]struct {
		edit    func(b *evidence.Bundle)
		args    []string
		verdict string
		text    string
	}{
		"whole":            {func(b *evidence.Bundle) {}, nil, "reconciled", "the logs explain all"},
		"another nonce":    {func(b *evidence.Bundle) {}, []string{"--nonce", "beef"}, "untrusted", "nonce: extraData is cafe"},
		"another's report": {func(b *evidence.Bundle) { b.Report = other.Report }, nil, "untrusted", "REPORT_DATA is "},
		"another's key":    {func(b *evidence.Bundle) { b.Public = other.Public }, nil, "untrusted", "signature"},
		"another's values": {func(b *evidence.Bundle) {
			b.Values = rtmr.Values{rtmr.SHA256: {rtmr.MustParse("pcr0"): make([]byte, 32)}}
		}, nil, "untrusted", "binding"},
		"another's quote, key and report": {func(b *evidence.Bundle) {
			b.Attest, b.Signature, b.Public, b.Report = other.Attest, other.Signature, other.Public, other.Report
		}, nil, "reconciled", ""}, // of a guest that measured the same
		"the boot log is another": {func(b *evidence.Bundle) { b.BootLog = testlogs.Read(t, testlogs.Fixture(t, "sig-6.12", "boot.bin")) }, nil, "diverged",
			"boot-log and its copy in cel-journal part"},
		"the boot log is folded too": {func(b *evidence.Bundle) { b.Statement.Logs[0].Role = evidence.Folded }, nil, "diverged", "1 entry contradicts its own data or the boot log"},
		"the journal is another's": {func(b *evidence.Bundle) {
			b.Journal = testlogs.NewGuest(t, []rtmr.Alg{rtmr.SHA1}, rtmr.MustParse("pcr0")).Journal()
		}, nil, "diverged", "no log explains how pcr0"},
		"without the report": {func(b *evidence.Bundle) { b.Report = nil }, nil, "", "--hardware was given, and a software TPM's quote without --report"},
	} {
		t.Run(name, func(t *testing.T) {
			b, roots, vcek := softGuest(t)
			c.edit(b)
			own := files(t, map[string][]byte{"roots": roots, "vcek": vcek})
			args := []string{"--snp-roots", filepath.Join(own, "roots"), "--hardware", filepath.Join(own, "vcek"), "--at", "2025-06-01T00:00:00Z"}
			if c.args == nil {
				args = append(args, "--nonce", "cafe")
			}
			report, said := bundleSays(t, b, append(args, c.args...)...)
			if report.Verdict != c.verdict || !strings.Contains(said, c.text) {
				t.Errorf("%s (%s), expected %s (%s)", report.Verdict, said, c.verdict, c.text)
			}
			if c.verdict == "" {
				return
			}
			if report.Quote.Kind != "soft-tpm" || report.Quote.Inside == nil || report.Quote.Inside.Kind != "snp" {
				t.Errorf("%+v", report.Quote)
			}
			if name == "whole" {
				held := slices.Collect(func(yield func(copyJSON) bool) {
					for _, l := range report.Logs {
						if l.Copy != nil && !yield(*l.Copy) {
							return
						}
					}
				})
				extends := func(l logJSON) int { return l.Checks.Verified + l.Checks.Contradicting + l.Checks.Uncheckable }
				want := []copyJSON{{"cel-journal", extends(report.Logs[1]), 0, false, nil}, {"cel-journal", extends(report.Logs[2]), 0, false, nil}}
				if !reflect.DeepEqual(held, want) {
					t.Errorf("copies %v, expected %v", held, want)
				}
			}
		})
	}
	t.Run("self-asserted", func(t *testing.T) {
		b, _, _ := softGuest(t)
		b.Report = nil
		if report, said := bundleSays(t, b, "--nonce", "cafe"); report.Verdict != "untrusted" || report.Quote.Chain != "self-asserted" {
			t.Errorf("%s (%s)", report.Verdict, said)
		}
		if report, said := bundleSays(t, b, "--nonce", "cafe", "--accept-self-asserted"); report.Verdict != "reconciled" || !strings.Contains(said, "self-asserted") {
			t.Errorf("%s (%s)", report.Verdict, said)
		}
	})
	t.Run("not marked", func(t *testing.T) {
		m, q := sigMachine(t)
		b := testlogs.TPMBundle(m, q)
		b.Report = other.Report
		if _, said := bundleSays(t, b); !strings.Contains(said, "hardware-report: it stands for a software TPM's quote, and tpm-attest is not marked as one") {
			t.Error(said)
		}
	})
}

// bundles lays out bundles for a script: a software TPM's in soft.cmw, without
// report and values in quiet.cmw, and a machine's with a TPM in tpm.cmw; beside
// them what their verifiers have.
func bundles(t *testing.T, env *testscript.Env) error {
	soft, roots, vcek := softGuest(t)
	m, q := sigMachine(t)
	quiet := *soft
	quiet.Report, quiet.Values = nil, nil
	contents := map[string][]byte{"roots.pem": roots, "vcek.der": vcek, "key.bin": q.Key, "journal.bin": soft.Journal}
	for name, b := range map[string]*evidence.Bundle{"soft.cmw": soft, "quiet.cmw": &quiet, "tpm.cmw": testlogs.TPMBundle(m, q)} {
		data, err := b.Marshal()
		if err != nil {
			return err
		}
		contents[name] = data
	}
	for name, data := range contents {
		if err := os.WriteFile(filepath.Join(env.WorkDir, name), data, 0o666); err != nil {
			return err
		}
	}
	sum := sha256.Sum256(soft.Journal)
	env.Setenv("JOURNAL", hex.EncodeToString(sum[:]))
	env.Setenv("NONCE", hex.EncodeToString(q.Nonce))
	return nil
}
