package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"tallystick/bpf/attester"
	"tallystick/internal/s390test"
	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

func init() { scriptSetups["s390"], scriptSetups["measure-s390"] = secureExecution, secureExecution }

// secureExecution lays out a Secure Execution guest's response, whole and in parts,
// what its verifier has, and what others have; and a software TPM's quote, for
// which the response of soft.bin stands.
func secureExecution(t *testing.T, env *testscript.Env) error {
	host, other := s390test.Key("host"), s390test.Key("another host")
	image, header := s390test.SmallImage("an image", host.PublicKey())
	altered := slices.Clone(image)
	altered[0x15000] ^= 1
	request := s390test.NewRequest("a request", s390test.Nonce|s390test.ImageKey|s390test.HostKey|s390test.Secrets, host.PublicKey())
	arcb := request.ARCB()
	response := s390test.Answer(host, arcb, header, []byte("user"))
	ibm := s390test.NewAuthority(s390test.SigningName())
	soft := s390Soft(t, env)
	bound := soft.ReportData()
	for name, data := range map[string][]byte{
		"exchange.bin": s390test.Exchange(arcb, response), "request.bin": s390test.Exchange(arcb, s390test.Response{}), "arcb.bin": arcb,
		"measurement.bin": response.Measurement, "additional.bin": response.Additional, "user.bin": response.UserData, "cuid.bin": response.CUID,
		"hdr.bin": header, "image.bin": image, "altered.bin": altered, "cut.bin": image[:s390test.HeaderAt+0x1000],
		"other-hdr.bin": s390test.Header("another image", host.PublicKey()),
		"arpk.bin":      request.ProtectionKey, "measurement-key.bin": request.MeasurementKey, "owner.pem": s390test.PEM(request.Owner),
		"other-arpk.bin": s390test.NewRequest("another", 0, host.PublicKey()).ProtectionKey,
		"hkd.pem":        ibm.Document(7, host.PublicKey()), "other-hkd.pem": ibm.Document(8, other.PublicKey()),
		"roots.pem": slices.Concat(ibm.Roots(), ibm.Lists()), "revoked.pem": slices.Concat(ibm.Roots(), ibm.Lists(7)),
		"attest.bin": soft.Attest, "signature.bin": soft.Signature, "key.bin": soft.Public,
		"soft.bin":  s390test.Exchange(arcb, s390test.Answer(host, arcb, header, bound[:])),
		"empty.bin": {},
	} {
		if err := os.WriteFile(filepath.Join(env.WorkDir, name), data, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// s390Soft is a software TPM's quote of the registers that journal.cel folds to,
// which it writes, and
// values.json with them.
func s390Soft(t *testing.T, env *testscript.Env) *attester.Quote {
	t.Helper()
	m := fixtureMachine(t, "violations-7.3+ima.bin")
	banks := []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384}
	var registers []rtmr.Register
	var selection []rtmr.Selected
	for i := range 15 {
		r, _ := rtmr.PCR(i).Register()
		registers = append(registers, r)
		selection = append(selection, rtmr.Selected{Alg: rtmr.SHA256, Register: r})
	}
	g := testlogs.NewGuest(t, banks, registers...)
	g.Boot(t, m.Logs[0].Data, true)
	g.IMA(t, m.Logs[1].Data, rtmr.MustParse("pcr10"))
	if err := os.WriteFile(filepath.Join(env.WorkDir, "journal.cel"), g.Journal(), 0o666); err != nil {
		t.Fatal(err)
	}
	a, err := attester.New(attester.Options{InsecureUnlocked: true})
	if err != nil {
		t.Fatal(err)
	}
	values, err := json.Marshal(g.Values(t))
	if err == nil {
		err = os.WriteFile(filepath.Join(env.WorkDir, "values.json"), values, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	q, err := a.Quote(g.Values(t), selection, []byte{0xca, 0xfe})
	if err != nil {
		t.Fatal(err)
	}
	return q
}
