package testlogs

import (
	"crypto"
	"encoding/json"
	"go/ast"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"tallystick/rtmr"
)

// Where RTMR0 stands in a TDX quote of version 4 and in a TDREPORT; the others
// follow it.
const (
	quoteV4RTMR0  = 376
	tdReportRTMR0 = 720
)

// rtmrsAt returns the four RTMRs that stand in b from an offset on.
func rtmrsAt(b []byte, offset int) rtmr.Values {
	held := rtmr.Values{rtmr.SHA384: {}}
	for i := range rtmr.NumRTMRs {
		reg, _ := rtmr.Index(i).RTMR()
		size := rtmr.SHA384.Size()
		held[rtmr.SHA384][reg] = b[offset+i*size:][:size]
	}
	return held
}

// dumpMachines are go-attestation's dumps: a log and PCR values in one file.
func dumpMachines(t testing.TB) (all []Machine) {
	t.Helper()
	for _, file := range []struct{ module, path string }{
		{GoAttestation, "attest/testdata/windows_gcp_shielded_vm.json"},
		{GoEventlog, "testdata/legacydata/linux_tpm12.json"},
	} {
		raw := Read(t, filepath.Join(ModuleDir(t, file.module), filepath.FromSlash(file.path)))
		var dump struct {
			Log struct {
				PCRs []struct {
					Index     uint32
					Digest    []byte
					DigestAlg crypto.Hash
				}
				Raw []byte
			}
		}
		if err := json.Unmarshal(raw, &dump); err != nil {
			t.Fatal(err)
		}
		m := Machine{Name: filepath.Base(file.module) + "/" + file.path, By: "its TPM", Held: rtmr.Values{}}
		m.Logs = []Log{{file.path, tcgFormat(dump.Log.Raw), dump.Log.Raw}}
		for _, pcr := range dump.Log.PCRs {
			alg := map[crypto.Hash]rtmr.Alg{crypto.SHA1: rtmr.SHA1, crypto.SHA256: rtmr.SHA256}[pcr.DigestAlg]
			set(m.Held, alg, rtmr.PCR(pcr.Index), pcr.Digest)
		}
		if file.module == GoEventlog {
			delete(m.Held[rtmr.SHA1], rtmr.MustParse("pcr10")) // IMA's, and its list is not in the dump
		}
		all = append(all, m)
	}
	return all
}

// ccMachines are the modules' CC logs: one with its signed quote, and
// go-eventlog's two with the RTMRs of its own tests.
func ccMachines(t testing.TB) []Machine {
	t.Helper()
	dir := filepath.Join(ModuleDir(t, GoTDXGuest), "testing", "testdata", "ccel")
	signed := Machine{Name: "go-tdx-guest/ccel_data.dat", By: "a signed TDX quote",
		Held: rtmrsAt(Read(t, filepath.Join(dir, "cos-113-tdx-quote.dat")), quoteV4RTMR0)}
	signed.add(t, "ccel", filepath.Join(dir, "ccel_data.dat"))
	return []Machine{
		signed,
		goEventlogCC(t, "TestReplayAndExtract", "cos-113-intel-tdx.bin"),
		goEventlogCC(t, "TestReplayAndExtractFailDuplicateSeparator", "cos-113-intel-tdx-dupe-separator.bin"),
	}
}

// goEventlogCC takes the values from `rtmr0 := []byte("..")` in a function of
// go-eventlog's ccel/replay_test.go.
func goEventlogCC(t testing.TB, function, file string) Machine {
	t.Helper()
	dir := ModuleDir(t, GoEventlog)
	m := Machine{Name: "go-eventlog/" + file, By: "go-eventlog's tests", Held: rtmr.Values{rtmr.SHA384: {}}}
	m.add(t, "ccel", filepath.Join(dir, "testdata", "eventlogs", "ccel", file))
	source := parseGo(t, filepath.Join(dir, "ccel", "replay_test.go"))
	i := slices.IndexFunc(source.Decls, func(d ast.Decl) bool {
		f, ok := d.(*ast.FuncDecl)
		return ok && f.Name.Name == function
	})
	ast.Inspect(source.Decls[i], func(n ast.Node) bool {
		set, ok := n.(*ast.AssignStmt)
		if !ok {
			return true
		}
		call, ok := set.Rhs[0].(*ast.CallExpr)
		if reg, err := rtmr.ParseRegister(set.Lhs[0].(*ast.Ident).Name); ok && err == nil {
			text, _ := strconv.Unquote(call.Args[0].(*ast.BasicLit).Value)
			m.Held[rtmr.SHA384][reg] = rtmr.Hex(text)
		}
		return true
	})
	return m
}

// corpusMachines are the logs of ../shared/corpus that come with evidence.
func corpusMachines(t testing.TB) (all []Machine) {
	t.Helper()
	if _, ok := Shared(t, "corpus", "index.json"); !ok {
		return nil
	}
	read := func(name string) []byte {
		path, _ := Shared(t, "corpus", filepath.FromSlash(name))
		return Read(t, path)
	}
	add := func(log, format, by string, held rtmr.Values) {
		all = append(all, Machine{Name: "corpus/" + log, Logs: []Log{{log, format, read(log)}}, By: by, Held: held})
	}
	add("tdx-dstack/event_log.json", "dstack", "a signed TDX quote", rtmrsAt(read("tdx-dstack/quote.bin"), quoteV4RTMR0))
	add("tdx-live/tdx_ccel_live2.dat", "ccel", "a signed TDX quote", rtmrsAt(read("tdx-live/tdx_quote_live.dat"), quoteV4RTMR0))
	add("tdx-live/tdx_ccel_live.bin", "ccel", "a TDREPORT", rtmrsAt(read("tdx-live/tdx_tdreport_live.bin"), tdReportRTMR0))
	add("virtcca/CCEL.bin", "ccel", "a CCA token", remsOf(t, read("virtcca/vcca_token.cbor")))
	add("tdx-live/tdx_ccel_live.bin", "ccel", "the other boot's quote", rtmrsAt(read("tdx-live/tdx_quote_live.dat"), quoteV4RTMR0))
	all[len(all)-1].Differ = []rtmr.Register{rtmr.MustParse("rtmr2")}
	add("tdx-live/tdx_ccel_live2.dat", "ccel", "the other boot's TDREPORT", rtmrsAt(read("tdx-live/tdx_tdreport_live.bin"), tdReportRTMR0))
	all[len(all)-1].Differ = []rtmr.Register{rtmr.MustParse("rtmr2")}
	add("tdx-ccel-ima/ccel_data.bin", "ccel", "a TDX quote", rtmrsAt(read("tdx-ccel-ima/quote.bin"), quoteV4RTMR0))
	patched := &all[len(all)-1] // its IMA, patched for RTMRs, writes their index into the list
	patched.Profile = "rtmr-column,violation-zero"
	patched.Logs = append(patched.Logs, Log{"tdx-ccel-ima/ima_log.bin", "ima-ascii", read("tdx-ccel-ima/ima_log.bin")})
	good, _ := Shared(t, "corpus", "tpm-failed-pcr0", "good-pcrs.json")
	add("tpm-failed-pcr0/failed-event_log.bin", "tcg2", "a TPM quote", pcrsJSON(t, good))
	failed, _ := Shared(t, "corpus", "tpm-failed-pcr0", "failed-pcrs.json")
	add("tpm-failed-pcr0/failed-event_log.bin", "tcg2", "a TPM quote", pcrsJSON(t, failed))
	all[len(all)-1].Differ = []rtmr.Register{rtmr.MustParse("pcr0")}
	return all
}

// TPMQuote is a TPM's signature over PCRs of a bank: a TPMS_ATTEST, a
// TPMT_SIGNATURE, the key's TPMT_PUBLIC, and the nonce.
type TPMQuote struct {
	Name                          string
	Bank                          rtmr.Alg
	PCRs                          int // how many are quoted, from PCR 0 on
	Attest, Signature, Key, Nonce []byte

	// What leads from the key to who made the TPM, where there is that: the
	// record of a credential's activation, the RSA endorsement key's certificate
	// (DER), and its authority's (PEM).
	Activation, EKCert, EKRoots []byte
}

// tpmQuotes returns the quotes of one of the lab's machines, by two keys in each
// of its TPM's banks.
func tpmQuotes(t testing.TB, dir string, pcrs int) (quotes []TPMQuote) {
	t.Helper()
	for _, key := range []string{"rsa", "ecc"} {
		for _, bank := range []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384, rtmr.SHA512} {
			name := "quote-" + key + "-" + bank.String()
			attest := filepath.Join(dir, name+".tpms_attest.bin")
			if _, err := os.Stat(attest); err != nil {
				continue // the TPM has not this bank
			}
			q := TPMQuote{
				Name: name, Bank: bank, PCRs: pcrs,
				Attest:    Read(t, attest),
				Signature: Read(t, filepath.Join(dir, name+".tpmt_signature.bin")),
				Key:       Read(t, filepath.Join(dir, "ak-"+key+".tpmt_public.bin")),
				Nonce:     Read(t, filepath.Join(dir, "nonce.bin")),
			}
			activation := filepath.Join(dir, "activation-"+key+".json")
			if _, err := os.Stat(activation); err == nil {
				q.Activation = Read(t, activation)
				q.EKCert = Read(t, filepath.Join(dir, "ek-rsa-cert.der"))
				q.EKRoots = Read(t, filepath.Join(dir, "ek-roots.pem"))
			}
			quotes = append(quotes, q)
		}
	}
	if len(quotes) == 0 {
		t.Fatalf("%s: no quotes", dir)
	}
	return quotes
}

// remsOf finds the realm extensible measurements in a CCA token: claim 44239,
// cca-realm-extensible-measurements.
func remsOf(t testing.TB, token []byte) rtmr.Values {
	t.Helper()
	held := rtmr.Values{rtmr.SHA256: {}}
	rems, ok := findClaim(token, 44239).([]any)
	if !ok {
		t.Fatal("no extensible measurements in the token")
	}
	for i, value := range rems {
		reg, _ := rtmr.Index(i).REM()
		held[rtmr.SHA256][reg] = value.([]byte)
	}
	return held
}

// findClaim looks for a map's key in CBOR, and in byte strings that hold CBOR.
func findClaim(data []byte, key uint64) any {
	var v any
	if cbor.Unmarshal(data, &v) != nil {
		return nil
	}
	return claimIn(v, key)
}

func claimIn(v any, key uint64) any {
	switch v := v.(type) {
	case cbor.Tag:
		return claimIn(v.Content, key)
	case []byte:
		return findClaim(v, key)
	case []any:
		for _, e := range v {
			if c := claimIn(e, key); c != nil {
				return c
			}
		}
	case map[any]any:
		if c, ok := v[key]; ok {
			return c
		}
		for _, e := range v {
			if c := claimIn(e, key); c != nil {
				return c
			}
		}
	}
	return nil
}
