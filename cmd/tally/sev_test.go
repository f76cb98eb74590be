//go:build !windows

package main

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"

	"github.com/rogpeppe/go-internal/testscript"

	"tallystick/internal/snptest"
	"tallystick/quote"
)

func init() { scriptCommands["amdguest"] = amdguest }

// amdguest lays out the evidence of an SEV-SNP guest with an SVSM: amdguest RECORD
// NONCE. The vTPM's endorsement key is the one of an activation record of a machine of
// the lab's, so that this machine's quotes are the vTPM's. The variable NONCE is the
// nonce in hexadecimal.
func amdguest(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: amdguest RECORD NONCE")
	}
	record, err := quote.ParseActivation([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	nonce := []byte(ts.ReadFile(args[1]))
	ts.Setenv("NONCE", hex.EncodeToString(nonce))
	amd, err := snptest.New()
	ts.Check(err)
	table, err := amd.CertTableBytes()
	ts.Check(err)

	report := func(manifest []byte, edit func(b []byte)) []byte {
		sum := sha512.Sum512(slices.Concat(nonce, make([]byte, 64-len(nonce)), manifest))
		r, err := amd.Report(func(b []byte) {
			copy(b[0x50:], sum[:])
			copy(b[0x90:], bytes.Repeat([]byte{0xA5}, 48))
			binary.LittleEndian.PutUint64(b[0x38:], 0x73_08_000000000003) // CURRENT_TCB
			if edit != nil {
				edit(b)
			}
		})
		ts.Check(err)
		return r
	}
	ek := record.EKPublic
	services := servicesManifest(ek)
	good := report(ek, nil)
	for name, data := range map[string][]byte{
		"ek.manifest": ek, "services.manifest": services, "ak.manifest": keysManifest(ek, record.AKPublic), "cut.manifest": services[:90],
		"report.bin": good, "report-services.bin": report(services, nil), "report-ak.bin": report(keysManifest(ek, record.AKPublic), nil),
		"report-guest.bin": report(ek, func(b []byte) { b[0x30] = 2 }), "report-other.bin": report([]byte("another"), nil),
		"report-vlek.bin": report(ek, func(b []byte) { b[0x48] = 1 << 2 }), "report-table.bin": slices.Concat(good, table),
		"report-debug.bin": report(ek, func(b []byte) { b[0x0A] |= 8 }), "report.hex": []byte(hex.EncodeToString(good)),
		"table.bin": table, "vcek.der": amd.Vcek.Raw, "vlek.der": amd.Vlek.Raw, "roots.pem": amd.Roots(),
		"record-bad.json": badRecord(ts, *record),
	} {
		ts.Check(os.WriteFile(ts.MkAbs(name), data, 0o666))
	}
}

// servicesManifest is a table with the vTPM's manifest alone.
func servicesManifest(vtpm []byte) []byte {
	m := []byte("\xbb\x9e\x84\x63\x92\x3d\x70\x46\xa1\xff\x58\xf9\xc9\x4b\x87\xbb")
	m = binary.LittleEndian.AppendUint32(m, uint32(48+len(vtpm)))
	m = append(m, 1, 0, 0, 0)
	m = append(m, "\xeb\xf1\x76\xc4\x23\x01\xa5\x45\x96\x41\xb4\xe7\xdd\xe5\xbf\xe3"...)
	m = append(m, 48, 0, 0, 0)
	m = binary.LittleEndian.AppendUint32(m, uint32(len(vtpm)))
	return append(m, vtpm...)
}

// keysManifest is a vTPM's manifest of version 1.
func keysManifest(keys ...[]byte) []byte {
	m := []byte{0, 0, 0, 1, 0, 0, 0, byte(len(keys))}
	for _, k := range keys {
		m = append(binary.BigEndian.AppendUint16(m, uint16(len(k))), k...)
	}
	return m
}

func badRecord(ts *testscript.TestScript, r quote.Activation) []byte {
	r.Returned = slices.Clone(r.Returned)
	r.Returned[0] ^= 1
	data, err := json.Marshal(r)
	ts.Check(err)
	return data
}
