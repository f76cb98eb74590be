package main

import (
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// TestReconcileCorpus: each row of ../shared/corpus comes out as its README says.
// What has no signature or no key there passes with --insecure-skip-signature
// alone, which the verdict tells.
func TestReconcileCorpus(t *testing.T) {
	top, ok := testlogs.Shared(t, "corpus")
	if !ok {
		t.Skip("../shared/corpus is not here")
	}
	const insecure = "--insecure-skip-signature"
	all := []string{"rtmr0 match", "rtmr1 match", "rtmr2 match", "rtmr3 reset"}
	pcrs := func(first string) (out []string) {
		for _, reg := range []string{"pcr1", "pcr2", "pcr3", "pcr4", "pcr5", "pcr6", "pcr7"} {
			out = append(out, reg+" match")
		}
		return append([]string{first}, out...)
	}
	for _, row := range []struct {
		name, dir string
		args      []string
		verdict   string
		registers []string // with their statuses, in order, and without those that are static
		weak      string   // the link for which it is untrusted
	}{
		{"CCEL alone", "tdx-ccel-ima", []string{"--quote", "quote.bin", "ccel_data.bin"}, "untrusted",
			[]string{"rtmr0 match", "rtmr1 match", "rtmr2 mismatch", "rtmr3 reset"}, "chain"},
		{"CCEL then IMA", "tdx-ccel-ima", []string{"--quote", "quote.bin", "ccel_data.bin", "ima_log.bin"}, "untrusted", all, "chain"},
		{"CCEL then IMA, chain skipped", "tdx-ccel-ima", []string{insecure, "--quote", "quote.bin", "ccel_data.bin", "ima_log.bin"}, "reconciled", all, ""},
		{"dstack", "tdx-dstack", []string{"--quote", "quote.bin", "event_log.json"}, "reconciled",
			[]string{"rtmr0 match", "rtmr1 match", "rtmr2 match", "rtmr3 match"}, ""},
		{"dstack's bundle", "tdx-dstack", []string{"--quote", "quote-report.json"}, "reconciled",
			[]string{"rtmr0 match", "rtmr1 match", "rtmr2 match", "rtmr3 match"}, ""},
		{"live2 and its quote", "tdx-live", []string{"--quote", "tdx_quote_live.dat", "tdx_ccel_live2.dat"}, "reconciled", all, ""},
		{"live and the other boot's quote", "tdx-live", []string{"--quote", "tdx_quote_live.dat", "tdx_ccel_live.bin"}, "diverged",
			[]string{"rtmr0 match", "rtmr1 match", "rtmr2 mismatch", "rtmr3 reset"}, ""},
		{"live and its TDREPORT", "tdx-live", []string{"--quote", "tdx_tdreport_live.bin", "tdx_ccel_live.bin"}, "untrusted", all, "signature"},
		{"live and its TDREPORT, MAC skipped", "tdx-live", []string{insecure, "--quote", "tdx_tdreport_live.bin", "tdx_ccel_live.bin"}, "reconciled", all, ""},
		{"live2 and the other boot's TDREPORT", "tdx-live", []string{insecure, "--quote", "tdx_tdreport_live.bin", "tdx_ccel_live2.dat"}, "diverged",
			[]string{"rtmr0 match", "rtmr1 match", "rtmr2 mismatch", "rtmr3 reset"}, ""},
		{"PCR 0 as logged", "tpm-failed-pcr0", []string{insecure, "--quote", "good-quote.bin", "--signature", "good-signature.bin", "--values", "good-pcrs.json", "failed-event_log.bin"}, "reconciled", pcrs("pcr0 match"), ""},
		{"PCR 0 as logged, by the digest alone", "tpm-failed-pcr0", []string{insecure, "--quote", "good-quote.bin", "--signature", "good-signature.bin", "failed-event_log.bin"}, "reconciled", pcrs("pcr0 match"), ""},
		{"another PCR 0", "tpm-failed-pcr0", []string{insecure, "--quote", "failed-quote.bin", "--signature", "failed-signature.bin", "--values", "failed-pcrs.json", "failed-event_log.bin"}, "diverged", pcrs("pcr0 mismatch"), ""},
		{"the other quote's values", "tpm-failed-pcr0", []string{insecure, "--quote", "failed-quote.bin", "--signature", "failed-signature.bin", "--values", "good-pcrs.json", "failed-event_log.bin"}, "untrusted", pcrs("pcr0 match"), "binding"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			report, status := verdictIn(t, filepath.Join(top, row.dir), append([]string{"reconcile", "--json", "--at", "2026-11-24T00:00:00Z"}, row.args...)...)
			if want := map[bool]int{true: 0, false: 1}[row.verdict == "reconciled"]; report.Verdict != row.verdict || status != want {
				t.Errorf("%s (%s), status %d, expected %s", report.Verdict, report.Text, status, row.verdict)
			}
			var got []string
			for _, o := range report.Registers {
				if o.Status != "static" && (o.Events > 0 || o.Register.Kind() != rtmr.KindPCR) {
					got = append(got, o.Register.String()+" "+o.Status)
				}
			}
			if !slices.Equal(got, row.registers) {
				t.Errorf("got %q, expected %q", got, row.registers)
			}
			if row.weak != "" && !strings.Contains(report.Text, "("+row.weak+": ") {
				t.Errorf("%q does not name the %s", report.Text, row.weak)
			}
			if strings.Contains(report.Text, insecure) != (slices.Contains(row.args, insecure) && row.verdict == "reconciled") {
				t.Errorf("%q", report.Text)
			}
		})
	}
}

// TestReconcileAzure follows the chain from AMD's root to the PCRs: VCEK, SNP
// report, runtime data, vTPM key, quote, values. No log is there, so the
// registers that moved are not explained.
func TestReconcileAzure(t *testing.T) {
	top, ok := testlogs.Shared(t, "corpus")
	if !ok {
		t.Skip("../shared/corpus is not here")
	}
	args := []string{"reconcile", "--json", "--at", "2026-11-24T00:00:00Z", "--quote", "tpm_quote.msg", "--signature", "tpm_quote.sig",
		"--hcl", "hcl_report.bin", "--values", "pcrs.json", "--nonce", hex.EncodeToString([]byte("attestation-test-fixture"))}
	dir := filepath.Join(top, "azure-snp")
	report, status := verdictIn(t, dir, append(slices.Clone(args), "--hardware", "vcek.bin")...)
	q := report.Quote
	if q.Kind != "azure" || q.Signature != "verified" || q.Chain != "verified" || q.Nonce != "match" || q.Binding != "verified" {
		t.Errorf("the quote: %+v", q)
	}
	if hcl := q.Inside; hcl == nil || hcl.Binding != "verified" || hcl.Inside == nil || hcl.Inside.Kind != "snp" || hcl.Inside.Signature != "verified" || hcl.Inside.Chain != "verified" {
		t.Errorf("the report: %+v", hcl)
	}
	if report.Verdict != "diverged" || status != 1 {
		t.Errorf("%s (%s), status %d", report.Verdict, report.Text, status)
	}
	for _, o := range report.Registers {
		if o.Status != "unlogged" && o.Status != "reset" && o.Register != rtmr.Launch {
			t.Errorf("%s: %s", o.Register, o.Status)
		}
	}
	if report, _ := verdictIn(t, dir, args...); report.Verdict != "untrusted" || !strings.Contains(report.Text, "the snp report inside it: signature: ") {
		t.Errorf("without a VCEK: %s (%s)", report.Verdict, report.Text)
	}
	tdx, _ := verdictIn(t, filepath.Join(top, "azure-tdx"), "reconcile", "--json", "--quote", "hcl-report-tdx.bin")
	if tdx.Verdict != "untrusted" || tdx.Quote.Binding != "verified" || tdx.Quote.Inside.Kind != "tdreport" || tdx.Quote.Inside.Binding != "verified" {
		t.Errorf("a TDREPORT: %s (%s), %+v", tdx.Verdict, tdx.Text, tdx.Quote)
	}
}

// TestReconcileModules reconciles the quotes that ship in Go modules.
func TestReconcileModules(t *testing.T) {
	tdx := filepath.Join(testlogs.ModuleDir(t, testlogs.GoTDXGuest), "testing", "testdata", "ccel")
	report, status := verdictIn(t, tdx, "reconcile", "--json", "--at", "2026-11-24T00:00:00Z", "--quote", "cos-113-tdx-quote.dat", "ccel_data.dat")
	if report.Verdict != "reconciled" || status != 0 || report.Quote.Chain != "verified" {
		t.Errorf("%s (%s), status %d", report.Verdict, report.Text, status)
	}
	dump := filepath.Join(testlogs.ModuleDir(t, testlogs.GoAttestation), "attest", "testdata")
	report, status = verdictIn(t, dump, "reconcile", "--json", "--quote", "windows_gcp_shielded_vm.json")
	if report.Verdict != "untrusted" || status != 1 || report.Quote.Signature != "verified" || report.Quote.Chain != "missing" || report.Quote.Binding != "verified" {
		t.Errorf("%s (%s), status %d, %+v", report.Verdict, report.Text, status, report.Quote)
	}
	matched := 0
	for _, o := range report.Registers {
		if o.Status == "match" {
			matched++
		} else if o.Status != "reset" {
			t.Errorf("%s: %s", o.Register, o.Status)
		}
	}
	if matched != 8 {
		t.Errorf("%d registers match by the dump's own log, expected 8", matched)
	}
}

// TestReconcileCorpusValues holds the corpus's logs against the values that its
// index publishes for them, which nobody vouches for.
func TestReconcileCorpusValues(t *testing.T) {
	top, ok := testlogs.Shared(t, "corpus")
	if !ok {
		t.Skip("../shared/corpus is not here")
	}
	for file, want := range map[string]string{
		"ima-templates/imatest.log":                      "reconciled",
		"tpm-hcrtm/binary_measurements_hcrtm.bin":        "reconciled",
		"aael/CCEL_AAEL_alibabacloud":                    "reconciled",
		"virtcca/CCEL.bin":                               "reconciled",
		"tampered-event-data/uefi_event_log.bin":         "reconciled",
		"tampered-event-data/uefi_event_log_invalid.bin": "diverged", // by its data alone
	} {
		t.Run(file, func(t *testing.T) {
			values, err := json.Marshal(publishedValues(t, file))
			if err != nil {
				t.Fatal(err)
			}
			dir := files(t, map[string][]byte{"values": values})
			log := filepath.Join(top, filepath.FromSlash(file))
			report, status := verdictIn(t, dir, "reconcile", "--json", "--insecure-skip-signature", "--values", "values", log)
			if report.Verdict != want || status != map[string]int{"reconciled": 0, "diverged": 1}[want] {
				t.Errorf("%s (%s), status %d, expected %s", report.Verdict, report.Text, status, want)
			}
			for _, o := range report.Registers {
				if o.Status != "match" {
					t.Errorf("%s %s: %s", o.Alg, o.Register, o.Status)
				}
			}
			if report, status := verdictIn(t, dir, "reconcile", "--json", "--values", "values", log); report.Verdict != "untrusted" || status != 1 {
				t.Errorf("values alone: %s, status %d", report.Verdict, status)
			}
		})
	}
}

// publishedValues are a log's register values by the corpus's index, in the
// banks that can be computed.
func publishedValues(t *testing.T, file string) rtmr.Values {
	t.Helper()
	values := rtmr.Values{}
	for _, f := range testlogs.Corpus(t) {
		if f.File != file {
			continue
		}
		for bank, regs := range f.Expected.Banks {
			alg, err := rtmr.ParseAlg(bank)
			if err != nil || !alg.Available() {
				continue // sm3_256, and what a kernel that pads would have
			}
			values[alg] = map[rtmr.Register]rtmr.Hex{}
			for name, value := range regs {
				reg, err := rtmr.ParseRegister(name)
				if err != nil {
					reg = rtmr.MustParse("pcr" + name)
				}
				if file == "virtcca/CCEL.bin" { // its token says rem0 to rem2
					reg = reg.Realm()
				}
				var v rtmr.Hex
				if err := v.UnmarshalText([]byte(value)); err != nil {
					t.Fatal(err)
				}
				values[alg][reg] = v
			}
		}
	}
	if len(values) == 0 {
		t.Fatalf("the index has no values of %s", file)
	}
	return values
}

// TestExplainCorpus: what explains the corpus's mismatches, as far as its README
// tells.
func TestExplainCorpus(t *testing.T) {
	top, ok := testlogs.Shared(t, "corpus")
	if !ok {
		t.Skip("../shared/corpus is not here")
	}
	const insecure = "--insecure-skip-signature"
	for _, row := range []struct {
		name, dir string
		args      []string
		register  string
		kinds     []string // of the register's explanations
		proven    bool     // the first of them
	}{
		{"IMA's register column is an RTMR index", "tdx-ccel-ima", []string{insecure, "--profile", "mainline", "--quote", "quote.bin", "ccel_data.bin", "ima_log.bin"}, "rtmr2", []string{"register-column"}, true},
		{"the IMA list is a candidate", "tdx-ccel-ima", []string{insecure, "--candidates", "ima_log.bin", "--quote", "quote.bin", "ccel_data.bin"}, "rtmr2", []string{"later-list"}, true},
		{"the other boot's log", "tdx-live", []string{"--candidates", "tdx_ccel_live2.dat", "--quote", "tdx_quote_live.dat", "tdx_ccel_live.bin"}, "rtmr2", []string{"other-log"}, true},
		{"another boot", "tdx-live", []string{"--quote", "tdx_quote_live.dat", "tdx_ccel_live.bin"}, "rtmr2", []string{"unlogged-entry", "other-boot"}, false},
		{"another PCR 0", "tpm-failed-pcr0", []string{insecure, "--quote", "failed-quote.bin", "--signature", "failed-signature.bin", "--values", "failed-pcrs.json", "failed-event_log.bin"}, "pcr0", []string{"unlogged-entry", "other-boot"}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			report, status := verdictIn(t, filepath.Join(top, row.dir), append([]string{"explain", "--json", "--at", "2026-11-24T00:00:00Z"}, row.args...)...)
			if report.Verdict != "diverged" || status != 1 || report.Search == nil {
				t.Fatalf("%s (%s), status %d", report.Verdict, report.Text, status)
			}
			var search searchJSON
			strictly(t, *report.Search, &search)
			var kinds []string
			for _, f := range search.Found {
				kinds = append(kinds, f.Kind)
				if f.Register != row.register {
					t.Errorf("%s is blamed", f.Register)
				}
			}
			if !slices.Equal(kinds, row.kinds) || search.Found[0].Proven != row.proven {
				t.Errorf("%s", *report.Search)
			}
		})
	}
}
