//go:build !windows

// Package snptest makes SEV-SNP reports for tests, by an authority in AMD's place:
// of a real report no field can be changed without breaking its signature. What it
// is made with does not build on Windows.
package snptest

import (
	"crypto/x509"
	"encoding/pem"
	"time"

	"github.com/google/go-sev-guest/abi"
	sevtest "github.com/google/go-sev-guest/testing"
)

// Day is when the certificates are valid.
var Day = time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)

// Authority has AMD's certificates, and a VCEK and a VLEK, of the chip 00.. and
// the TCB 0.
type Authority struct{ *sevtest.AmdSigner }

// New makes an authority.
func New() (Authority, error) {
	s, err := sevtest.DefaultTestOnlyCertChain("Milan-B0", Day)
	return Authority{s}, err
}

// Roots are what to trust in place of AMD's certificates, in PEM.
func (a Authority) Roots() (roots []byte) {
	for _, c := range []*x509.Certificate{a.Ask, a.Asvk, a.Ark} {
		roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return roots
}

// Report makes a report whose signature is good, whatever edit makes it say.
func (a Authority) Report(edit func(report []byte)) ([]byte, error) {
	raw := sevtest.CreateRawReport(&sevtest.TestReportOptions{Version: 4})
	raw[0x0A] &^= 8 // POLICY's bit 19, by which the host may debug the guest
	report := raw[:abi.ReportSize]
	edit(report)
	r, s, err := a.Sign(abi.SignedComponent(report))
	if err != nil {
		return nil, err
	}
	return report, abi.SetSignature(r, s, report)
}
