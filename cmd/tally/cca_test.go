package main

import (
	"crypto"
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"tallystick/internal/ccatest"
	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

func init() { scriptSetups["cca"], scriptSetups["virtcca"] = layOutCCA, layOutVirtCCA }

// layOutCCA writes, for each hash algorithm, a realm's logs and its token
// (ccel-sha256.bin, sha256.token), the platform's key, and tokens that say
// something else; RIM is the realms' in SHA-256.
func layOutCCA(t *testing.T, env *testscript.Env) error {
	out := map[string][]byte{}
	for _, alg := range []rtmr.Alg{rtmr.SHA256, rtmr.SHA384, rtmr.SHA512} {
		realm := ccatest.NewRealm(t, alg)
		token := ccatest.New(alg, realm.Values)
		out["ccel-"+alg.String()+".bin"], out["ima.bin"] = realm.CCEL, realm.IMA
		out[alg.String()+".token"], out["cpak.pem"] = token.Sign(), token.PEM()
	}
	realm := ccatest.NewRealm(t, rtmr.SHA256)
	edited := func(edit func(token *ccatest.Token)) []byte {
		token := ccatest.New(rtmr.SHA256, realm.Values)
		edit(token)
		return token.Sign()
	}
	rim := ccatest.New(rtmr.SHA256, nil).Realm[ccatest.RIM].([]byte)
	env.Setenv("RIM", fmt.Sprintf("%x", rim))
	out["expect.json"] = fmt.Appendf(nil, `{"sha256":{"rim":"%x"}}`, rim)
	out["expect-other.json"] = fmt.Appendf(nil, `{"sha256":{"rim":"%x"}}`, make([]byte, 32))
	out["debug.token"] = edited(func(k *ccatest.Token) { k.Platform[ccatest.Lifecycle] = 0x4000 })
	out["unbound.token"] = edited(func(k *ccatest.Token) { k.Platform[ccatest.Challenge] = make([]byte, 32) })
	out["profile.token"] = edited(func(k *ccatest.Token) { k.Platform[ccatest.Profile] = "http://arm.com/psa/2.0.0" })
	out["realm-only.token"] = edited(func(k *ccatest.Token) { k.Platform = nil })
	out["other-rem.token"] = edited(func(k *ccatest.Token) { k.Realm[ccatest.REM].([][]byte)[2][0] ^= 1 })
	other := ccatest.New(rtmr.SHA256, nil)
	other.CPAK = ccatest.Key(elliptic.P384(), "another")
	out["other.pem"] = other.PEM()
	return writeFiles(env.WorkDir, out)
}

// layOutVirtCCA writes a realm's logs, virtCCA's tokens of both forms, the
// certificates of devices (device1.der, device2.pem) and of who made them, and the
// second token in one file with its certificate and logs.
func layOutVirtCCA(t *testing.T, env *testscript.Env) error {
	realm := ccatest.NewRealm(t, rtmr.SHA256)
	first, second := ccatest.VirtCCA1(realm.Values), ccatest.VirtCCA2(realm.Values)
	maker1, maker2 := ccatest.NewMaker(first.Device()), ccatest.NewMaker(second.Device())
	evidence, err := json.Marshal(map[string]any{"attester_type": "virt_cca", "evidence": map[string]any{
		"vcca_token": second.Sign(), "dev_cert": maker2.Device.Raw,
		"logs": []any{map[string]any{"log_type": "ImaLog", "log_data": realm.IMA}, map[string]any{"log_type": "CCEL", "log_data": realm.CCEL}},
	}})
	if err != nil {
		return err
	}
	return writeFiles(env.WorkDir, map[string][]byte{
		"ccel.bin": realm.CCEL, "ima.bin": realm.IMA, "first.token": first.Sign(), "second.token": second.Sign(),
		"device1.der": maker1.Device.Raw, "device2.der": maker2.Device.Raw, "roots.pem": maker1.Roots(), "evidence.json": evidence,
	})
}

func writeFiles(dir string, contents map[string][]byte) error {
	for name, data := range contents {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// TestExplainCCA: what is missing from a realm's logs is found, in each bank, as in
// a TD's.
func TestExplainCCA(t *testing.T) {
	for _, alg := range []rtmr.Alg{rtmr.SHA256, rtmr.SHA384, rtmr.SHA512} {
		realm := ccatest.NewRealm(t, alg)
		token := ccatest.New(alg, realm.Values)
		list, cut := realm.IMA, 0
		for range 3 { // the entry left out
			cut = entryEnd(list, cut)
		}
		end := entryEnd(list, cut)
		dir := files(t, map[string][]byte{"token": token.Sign(), "cpak.pem": token.PEM(), "ccel": realm.CCEL, "ima": append(append([]byte{}, list[:cut]...), list[end:]...)})
		report, status := verdictIn(t, dir, "explain", "--json", "--quote", "token", "--cca-key", "cpak.pem", "ccel", "ima")
		if report.Verdict != "diverged" || status != 1 || report.Search == nil {
			t.Fatalf("%s: %s (%s)", alg, report.Verdict, report.Text)
		}
		var search searchJSON
		strictly(t, *report.Search, &search)
		if len(search.Found) == 0 || search.Found[0].Register != "rem2" {
			t.Errorf("%s: %s", alg, *report.Search)
		}
	}
}

// TestExplainVirtCCA: openEuler's kernel extends all of its list into the slot 1,
// which is REM0 (security/integrity/ima/ima_virtcca.c, CVM_IMA_SLOT_IDX), and not
// into the UEFI rule's REM2: that is found, and proven.
func TestExplainVirtCCA(t *testing.T) {
	realm, rem0 := ccatest.NewRealm(t, rtmr.SHA256), rtmr.MustParse("rem0")
	values := realm.Booted
	values.Set(rtmr.SHA256, rem0, ccatest.FoldIMA(crypto.SHA256, values[rtmr.SHA256][rem0], realm.IMA))
	token := ccatest.VirtCCA2(values)
	maker := ccatest.NewMaker(token.Device())
	dir := files(t, map[string][]byte{"token": token.Sign(), "device": maker.Device.Raw, "roots": maker.Roots(), "ccel": realm.CCEL, "ima": realm.IMA})
	report, status := verdictIn(t, dir, "explain", "--json", "--quote", "token", "--hardware", "device", "--virtcca-roots", "roots", "--at", "2025-06-01T00:00:00Z", "ccel", "ima")
	if report.Verdict != "diverged" || status != 1 || report.Search == nil {
		t.Fatalf("%s (%s)", report.Verdict, report.Text)
	}
	var search searchJSON
	strictly(t, *report.Search, &search)
	if len(search.Found) != 1 || search.Found[0].Kind != "register-column" || search.Found[0].Register != "rem0" || !search.Found[0].Proven {
		t.Errorf("%s", *report.Search)
	}
}

// entryEnd is where an entry of a binary list ends.
func entryEnd(list []byte, at int) int {
	u32 := func(at int) int {
		return int(list[at]) | int(list[at+1])<<8 | int(list[at+2])<<16 | int(list[at+3])<<24
	}
	name := at + 24
	data := name + 4 + u32(name)
	return data + 4 + u32(data)
}

// TestReconcileVirtCCACorpus: a real token and its realm's logs. Without the
// device's certificate, which is not in the corpus, it passes by
// --insecure-skip-signature alone, and its binding not even then.
func TestReconcileVirtCCACorpus(t *testing.T) {
	dir, ok := testlogs.Shared(t, "corpus", "virtcca")
	if !ok {
		t.Skip("../shared/corpus is not here")
	}
	report, status := verdictIn(t, dir, "reconcile", "--json", "--quote", "vcca_token.cbor", "CCEL.bin", "ImaLog.txt")
	q := report.Quote
	if report.Verdict != "untrusted" || status != 1 || q.Kind != "virtcca" || q.Signature != "verified" || q.Chain != "missing" || q.Binding != "missing" {
		t.Errorf("%s (%s): %+v", report.Verdict, report.Text, q)
	}
	// The list's entries were extended nowhere: PCR 10's would be in rem2.
	want := map[string]string{"rim": "static", "rem0": "match", "rem1": "log-ahead", "rem2": "log-ahead", "rem3": "reset"}
	for _, o := range report.Registers {
		if o.Status != want[o.Register.String()] {
			t.Errorf("%s: %s, expected %s", o.Register, o.Status, want[o.Register.String()])
		}
	}
	report, _ = verdictIn(t, dir, "reconcile", "--json", "--quote", "vcca_token.cbor", "CCEL.bin")
	for _, o := range report.Registers {
		if o.Status == "log-ahead" || o.Status == "mismatch" {
			t.Errorf("%s: %s by the CCEL alone", o.Register, o.Status)
		}
	}
}
