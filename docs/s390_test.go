//go:build linux

package docs_test

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"testing"

	"tallystick/internal/s390test"
	"tallystick/softtpm"
)

func init() { pages["s390.md"] = secureExecution }

// secureExecution lays out a Secure Execution guest's responses, by a machine and a
// signing service of the tests' own, and what the owner of the request has.
func secureExecution(t *testing.T, s *shell) {
	host := s390test.Key("host")
	image, header := s390test.SmallImage("an image", host.PublicKey())
	request := s390test.NewRequest("a request", s390test.Nonce|s390test.ImageKey|s390test.HostKey|s390test.Secrets, host.PublicKey())
	arcb := request.ARCB()
	response := s390test.Answer(host, arcb, header, []byte("a word of the guest's"))
	ibm := s390test.NewAuthority(s390test.SigningName())

	m, _ := tpmMachine(t)
	b, _ := softGuest(t, m)
	b.Report = nil
	name := sha256.Sum256(b.Public)
	bound := softtpm.Binding(softNonce, append([]byte{0, 0x0b}, name[:]...), b.Attest)
	s.bundle(t, "evidence.cmw", b)
	for file, data := range map[string][]byte{
		"hdr.bin": header, "se.img": image, "arpk.bin": request.ProtectionKey, "owner.pem": s390test.PEM(request.Owner), "hkd.crt": ibm.Document(7, host.PublicKey()),
		"roots.pem": slices.Concat(ibm.Roots(), ibm.Lists()), "request.bin": s390test.Exchange(arcb, s390test.Response{}),
		"response.bin": s390test.Exchange(arcb, response), "arcb.bin": arcb, "measurement.bin": response.Measurement,
		"additional.bin": response.Additional, "user.bin": response.UserData, "cuid.bin": response.CUID,
		"bound.bin": s390test.Exchange(arcb, s390test.Answer(host, arcb, header, bound[:])),
		"nonce":     []byte(hex.EncodeToString(softNonce) + "\n"), "binding": []byte(hex.EncodeToString(bound[:]) + "\n"),
		"other-hdr.bin": s390test.Header("another image", host.PublicKey()),
	} {
		s.write(t, file, data)
	}
}
