//go:build !windows

package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/proto/sevsnp"
	attestpb "github.com/google/go-tpm-tools/proto/attest"
	tpmpb "github.com/google/go-tpm-tools/proto/tpm"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/proto"

	"tallystick/bpf/attester"
	"tallystick/internal/snptest"
	"tallystick/quote"
	"tallystick/rtmr"
)

func init() {
	scriptCommands["softquote"] = softquote
	scriptCommands["double"] = double
}

// double writes to its third argument the IMA list that is its first, with the entry
// that is its second twice.
func double(ts *testscript.TestScript, neg bool, args []string) {
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	entries := records([]byte(ts.ReadFile(args[0])))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), bytes.Join(slices.Insert(entries, at, entries[at]), nil), 0o666))
}

// softLaunch is the launch digest in the reports.
var softLaunch = bytes.Repeat([]byte{0xA5}, 48)

// softquote lays out a software TPM's evidence: softquote VALUES. It quotes
// pcr0 to pcr10 of two banks with those values, by a key that an SEV-SNP report
// stands for, and lays reports beside it that stand for nothing. The variable
// BINDING is what REPORT_DATA has to be.
func softquote(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: softquote VALUES")
	}
	values, err := quote.ParseValues([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	first, err := attester.New(attester.Options{InsecureUnlocked: true})
	ts.Check(err)
	second, err := attester.New(attester.Options{InsecureUnlocked: true})
	ts.Check(err)
	amd, err := snptest.New()
	ts.Check(err)

	good, other := softQuoteOf(ts, first, values, 10), softQuoteOf(ts, first, values, 9)
	bound := good.ReportData()
	ts.Setenv("BINDING", hex.EncodeToString(bound[:]))
	for name, data := range map[string][]byte{
		"attest.bin": good.Attest, "signature.bin": good.Signature, "key.bin": good.Public,
		"other-attest.bin": other.Attest, "other-signature.bin": other.Signature, "other-key.bin": second.Public(),
		"roots.pem": amd.Roots(), "vcek.der": amd.Vcek.Raw, "vlek.der": amd.Vlek.Raw,
		"report.bin":       softReport(ts, amd, good, func([]byte) {}),
		"report-other.bin": softReport(ts, amd, other, func([]byte) {}),
		"report-vmpl.bin":  softReport(ts, amd, good, func(b []byte) { b[0x30] = 2 }),
		"report-debug.bin": softReport(ts, amd, good, func(b []byte) { b[0x0A] |= 8 }),
		"launch.json":      fmt.Appendf(nil, `{"sha384":{"launch":"%x"}}`, softLaunch),
		"bundle.pb":        softBundle(ts, good, softReport(ts, amd, good, func([]byte) {})),
	} {
		ts.Check(os.WriteFile(ts.MkAbs(name), data, 0o666))
	}
}

// softBundle is what go-tpm-tools would make of a quote and an SEV-SNP report,
// which in its bundle stands for nothing but itself.
func softBundle(ts *testscript.TestScript, q *attester.Quote, report []byte) []byte {
	snp, err := abi.ReportToProto(report)
	ts.Check(err)
	bundle, err := proto.Marshal(&attestpb.Attestation{
		AkPub:          q.Public,
		Quotes:         []*tpmpb.Quote{{Quote: q.Attest, RawSig: q.Signature}},
		TeeAttestation: &attestpb.Attestation_SevSnpAttestation{SevSnpAttestation: &sevsnp.Attestation{Report: snp}},
	})
	ts.Check(err)
	return bundle
}

func softQuoteOf(ts *testscript.TestScript, a *attester.Attester, values rtmr.Values, last int) *attester.Quote {
	var selection []rtmr.Selected
	for _, alg := range []rtmr.Alg{rtmr.SHA256, rtmr.SHA384} {
		for i := range last + 1 {
			register, _ := rtmr.PCR(i).Register()
			selection = append(selection, rtmr.Selected{Alg: alg, Register: register})
		}
	}
	q, err := a.Quote(values, selection, []byte{0xca, 0xfe})
	ts.Check(err)
	return q
}

func softReport(ts *testscript.TestScript, amd snptest.Authority, q *attester.Quote, edit func(report []byte)) []byte {
	report, err := amd.Report(func(b []byte) {
		data := q.ReportData()
		copy(b[0x50:], data[:])
		copy(b[0x90:], softLaunch)
		edit(b)
	})
	ts.Check(err)
	return report
}
