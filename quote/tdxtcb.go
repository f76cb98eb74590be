package quote

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/google/go-tdx-guest/abi"
	"github.com/google/go-tdx-guest/pcs"

	"tallystick/rtmr"
)

// tcbSigner is the subject of the certificate that Intel signs TCB info and QE
// identities with.
const tcbSigner = "Intel SGX TCB Signing"

// appraisal is what came of holding a quote against collateral.
type appraisal struct {
	*tdxChecker
	files *TDXCollateral

	good, missing []string
	failed        []string
	warnings      []string

	status pcs.TcbComponentStatus // of the platform, once known
	uses   offlinePCS             // what go-tdx-guest is given for its own judgement
}

// collateral checks TCB level, QE identity and revocations against the files.
// The error is one of reading them.
func (c *tdxChecker) collateral(dir fs.FS, chained bool) (Link, []string, error) {
	if dir == nil {
		return Link{Collateral, NotChecked, "absent: TCB level, QE identity and revocation are not known" + c.platform()}, nil, nil
	}
	files, err := ReadTDXCollateral(dir)
	if err != nil {
		return Link{}, nil, fmt.Errorf("collateral: %w", err)
	}
	if !chained {
		return Link{Collateral, NotChecked, "the PCK certificate, which says what platform this is, is not trusted"}, files.Warnings, nil
	}
	a := &appraisal{tdxChecker: c, files: files, warnings: files.Warnings}
	a.tcb()
	a.qe()
	a.revocations()
	link := a.link()
	if link.Status == NotChecked { // who gives collateral counts on what it tells
		link.Status = Missing
	}
	return link, a.warnings, nil
}

// platform says whose collateral to fetch.
func (c *tdxChecker) platform() string {
	if len(c.certs) == 0 {
		return ""
	}
	pck, err := pcs.PckCertificateExtensions(c.certs[0])
	if err != nil {
		return ""
	}
	return "; the platform's FMSPC is " + pck.FMSPC
}

func (a *appraisal) link() Link {
	if len(a.failed) == 0 && a.status == pcs.TcbComponentStatusUpToDate && a.uses.tcbInfo != nil && a.uses.qe != nil {
		if err := a.secondOpinion(&a.uses); err != nil {
			a.fail("go-tdx-guest refuses the quote: %v", err)
		}
	}
	parts := []string{}
	for _, p := range []struct {
		what  string
		texts []string
	}{{"", a.failed}, {"", a.good}, {"not checked: ", a.missing}} {
		if len(p.texts) > 0 {
			parts = append(parts, p.what+strings.Join(p.texts, "; "))
		}
	}
	status := Verified
	switch {
	case len(a.failed) > 0:
		status = Failed
	case len(a.missing) > 0:
		status = NotChecked
	}
	return Link{Collateral, status, rtmr.Escape(strings.Join(parts, "; "))}
}

func (a *appraisal) fail(format string, args ...any) {
	a.failed = append(a.failed, fmt.Sprintf(format, args...))
}

func (a *appraisal) miss(format string, args ...any) {
	a.missing = append(a.missing, fmt.Sprintf(format, args...))
}

// tcb finds the platform's TCB info, checks its signature, and reads the TCB
// level's status.
func (a *appraisal) tcb() {
	pck, err := pcs.PckCertificateExtensions(a.certs[0])
	if err != nil {
		a.fail("the PCK certificate's SGX extension: %v", err)
		return
	}
	infos := slices.DeleteFunc(slices.Clone(a.files.tcbInfos), func(i signedTCBInfo) bool {
		return i.ID != "TDX" || !strings.EqualFold(i.Fmspc, pck.FMSPC) || !strings.EqualFold(i.PceID, pck.PCEID)
	})
	if len(infos) == 0 {
		a.miss("the TCB level, for want of a TDX TCB info of FMSPC %s", pck.FMSPC)
		return
	}
	info := slices.MaxFunc(infos, func(x, y signedTCBInfo) int { return x.IssueDate.Compare(y.IssueDate) })
	if !a.signed("TCB info", info.signedJSON, info.IssueDate, info.NextUpdate) {
		return
	}
	a.uses.fmspc, a.uses.tcbInfo = pck.FMSPC, info.document("tcbInfo")
	if info.Version != 3 {
		a.fail("TCB info of version %d, expected 3", info.Version)
		return
	}
	status, text, err := tcbStatus(&info.TcbInfo, &pck.TCB, &a.quote.TDXBody)
	if err != nil {
		a.fail("TCB info: %v", err)
		return
	}
	a.judge("TCB", status, fmt.Sprintf("%s, evaluation data %d, FMSPC %s", text, info.TcbEvaluationDataNumber, pck.FMSPC))
}

// tcbStatus is the status of the platform with its TDX module; text says of when
// the level is, and which advisories concern it.
func tcbStatus(info *pcs.TcbInfo, pck *pcs.PckCertTCB, body *TDXBody) (status pcs.TcbComponentStatus, text string, err error) {
	level, err := tcbLevel(info, pck, body.TEETCBSVN)
	if err != nil {
		return "", "", err
	}
	module, err := moduleLevel(info, body)
	if err != nil {
		return "", "", err
	}
	status, text = level.TcbStatus, "of "+level.TcbDate
	advisories := slices.Clone(level.AdvisoryIDs)
	if module != nil {
		status = worse(status, module.TcbStatus)
		text += fmt.Sprintf(", TDX module %s", module.TcbStatus)
		advisories = append(advisories, module.AdvisoryIDs...)
	}
	slices.Sort(advisories)
	for _, id := range slices.Compact(advisories) {
		text += ", " + id
	}
	return status, text, nil
}

// judge takes a status into account. Intel's verification library leaves it to
// its caller whether a level that needs hardening or configuration, or is out of
// date, is good enough (sgx_ql_qv_result_t). Here the former are told and pass:
// no quote can show that a TD's own software is hardened. What is out of date
// fails: its holes are published.
func (a *appraisal) judge(what string, status pcs.TcbComponentStatus, text string) {
	a.status = worse(cmp.Or(a.status, pcs.TcbComponentStatusUpToDate), status)
	said := fmt.Sprintf("%s %s (%s)", what, status, text)
	if !acceptable(status) {
		a.fail("%s", said)
		return
	}
	a.good = append(a.good, said)
	if status != pcs.TcbComponentStatusUpToDate {
		a.warnings = append(a.warnings, rtmr.Escape(said))
	}
}

// tcbLevel is the first level, of levels from new to old, that the platform
// reaches: with every SGX component and the PCESVN of the PCK certificate, and
// every TDX component of TEE_TCB_SVN. Where the latter's second byte is the
// module's version, its first two are the module's, and moduleLevel's to judge
// (PCS API v4, "Get TDX TCB Info"). It is the TCB at the TD's launch that counts:
// TEE_TCB_SVN_2, of a module updated since, is not looked at.
func tcbLevel(info *pcs.TcbInfo, pck *pcs.PckCertTCB, svn []byte) (*pcs.TcbLevel, error) {
	from := 0
	if svn[1] > 0 {
		from = 2
	}
	for i := range info.TcbLevels {
		tcb := &info.TcbLevels[i].Tcb
		if len(tcb.SgxTcbcomponents) != 16 || len(tcb.TdxTcbcomponents) != 16 {
			return nil, fmt.Errorf("TCB level %d has %d SGX and %d TDX components, expected 16 and 16", i, len(tcb.SgxTcbcomponents), len(tcb.TdxTcbcomponents))
		}
		if reaches(pck.CPUSvnComponents, tcb.SgxTcbcomponents) && pck.PCESvn >= tcb.Pcesvn && reaches(svn[from:], tcb.TdxTcbcomponents[from:]) {
			return &info.TcbLevels[i], nil
		}
	}
	return nil, fmt.Errorf("the platform reaches none of the %d TCB levels: CPUSVN %x, PCESVN %d, TEE_TCB_SVN %x", len(info.TcbLevels), pck.CPUSvnComponents, pck.PCESvn, svn)
}

func reaches(svn []byte, level []pcs.TcbComponent) bool {
	for i, c := range level {
		if i >= len(svn) || svn[i] < c.Svn {
			return false
		}
	}
	return true
}

// moduleLevel holds the TDX module's signer and attributes against those that
// Intel states for its version, and returns the module's level; nil for the
// modules of version 0, which have none.
func moduleLevel(info *pcs.TcbInfo, body *TDXBody) (*pcs.TcbLevel, error) {
	version, svn := body.TEETCBSVN[1], uint32(body.TEETCBSVN[0])
	if version == 0 {
		m := &info.TdxModule
		return nil, moduleIs(body, "the TDX module", m.Mrsigner.Bytes, m.Attributes.Bytes, m.AttributesMask.Bytes)
	}
	id := fmt.Sprintf("TDX_%02x", version)
	i := slices.IndexFunc(info.TdxModuleIdentities, func(m pcs.TdxModuleIdentity) bool { return strings.EqualFold(m.ID, id) })
	if i < 0 {
		return nil, fmt.Errorf("no identity of the TDX module %s", id)
	}
	m := &info.TdxModuleIdentities[i]
	if err := moduleIs(body, id, m.Mrsigner.Bytes, m.Attributes.Bytes, m.AttributesMask.Bytes); err != nil {
		return nil, err
	}
	return isvLevel(id, m.TcbLevels, svn)
}

func moduleIs(body *TDXBody, id string, signer, attributes, mask []byte) error {
	if !bytes.Equal(body.MRSIGNERSEAM, signer) {
		return fmt.Errorf("MRSIGNERSEAM is %s, that of %s is %x", body.MRSIGNERSEAM, id, signer)
	}
	if !maskedEqual(body.SEAMATTRIBUTES, attributes, mask) {
		return fmt.Errorf("SEAMATTRIBUTES is %s, that of %s is %x under the mask %x", body.SEAMATTRIBUTES, id, attributes, mask)
	}
	return nil
}

// isvLevel is the first level, of levels from new to old, that an SVN reaches.
func isvLevel(of string, levels []pcs.TcbLevel, svn uint32) (*pcs.TcbLevel, error) {
	for i := range levels {
		if svn >= levels[i].Tcb.Isvsvn {
			return &levels[i], nil
		}
	}
	return nil, fmt.Errorf("%s of SVN %d reaches none of the %d TCB levels", of, svn, len(levels))
}

func maskedEqual(value, want, mask []byte) bool {
	if len(value) != len(want) || len(value) != len(mask) {
		return false
	}
	for i := range value {
		if value[i]&mask[i] != want[i] {
			return false
		}
	}
	return true
}

// worse is a TCB level's status in the light of a part's, the TDX module's or
// the QE's, as Intel's verification library converges them (DCAP QVL,
// TcbLevelCheck.cpp, TdxModuleCheck.cpp). go-tdx-guest takes the module's alone.
func worse(level, part pcs.TcbComponentStatus) pcs.TcbComponentStatus {
	const up, out, revoked = pcs.TcbComponentStatusUpToDate, pcs.TcbComponentStatusOutOfDate, pcs.TcbComponentStatusRevoked
	configure := level == pcs.TcbComponentStatusConfigurationNeeded || level == pcs.TcbComponentStatusConfigurationAndSWHardeningNeeded
	switch {
	case part == up:
		return level
	case level == up, part == revoked:
		return part
	case part == out && configure:
		return pcs.TcbComponentStatusOutOfDateConfigurationNeeded
	case acceptable(level) && !acceptable(part):
		return part
	}
	return level
}

// acceptable tells the levels without published holes.
func acceptable(status pcs.TcbComponentStatus) bool {
	switch status {
	case pcs.TcbComponentStatusUpToDate, pcs.TcbComponentStatusSwHardeningNeeded, pcs.TcbComponentStatusConfigurationNeeded, pcs.TcbComponentStatusConfigurationAndSWHardeningNeeded:
		return true
	}
	return false
}

// qe checks that the quoting enclave is Intel's, and its level.
func (a *appraisal) qe() {
	ids := slices.DeleteFunc(slices.Clone(a.files.qes), func(i signedQE) bool { return i.ID != "TD_QE" })
	if len(ids) == 0 {
		a.miss("the QE, for want of the identity TD_QE")
		return
	}
	id := slices.MaxFunc(ids, func(x, y signedQE) int { return x.IssueDate.Compare(y.IssueDate) })
	if !a.signed("QE identity", id.signedJSON, id.IssueDate, id.NextUpdate) {
		return
	}
	a.uses.qe = id.document("enclaveIdentity")
	if id.Version != 2 {
		a.fail("QE identity of version %d, expected 2", id.Version)
		return
	}
	level, err := qeLevel(&id.EnclaveIdentity, a.quote.QEReport)
	if err != nil {
		a.fail("%v", err)
		return
	}
	a.judge("QE", level.TcbStatus, "of "+level.TcbDate)
}

// qeLevel holds an SGX report (384 bytes; Intel SDM volume 3D, REPORT) against
// an enclave's identity.
func qeLevel(id *pcs.EnclaveIdentity, report []byte) (*pcs.TcbLevel, error) {
	for _, f := range []struct {
		name              string
		value, want, mask []byte
	}{
		{"MISCSELECT", report[16:20], id.Miscselect.Bytes, id.MiscselectMask.Bytes},
		{"ATTRIBUTES", report[48:64], id.Attributes.Bytes, id.AttributesMask.Bytes},
		{"MRSIGNER", report[128:160], id.Mrsigner.Bytes, bytes.Repeat([]byte{0xff}, 32)},
	} {
		if !maskedEqual(f.value, f.want, f.mask) {
			return nil, fmt.Errorf("the QE's %s is %x, Intel's is %x under the mask %x", f.name, f.value, f.want, f.mask)
		}
	}
	if prod := binary.LittleEndian.Uint16(report[256:]); prod != id.IsvProdID {
		return nil, fmt.Errorf("the QE's ISVPRODID is %d, Intel's is %d", prod, id.IsvProdID)
	}
	return isvLevel("the QE", id.TcbLevels, uint32(binary.LittleEndian.Uint16(report[258:])))
}

// signed checks that Intel signed the collateral, and that its time has come
// and not passed. What is wrong, it takes down.
func (a *appraisal) signed(what string, doc signedJSON, from, to time.Time) bool {
	if err := a.current(from, to); err != nil {
		a.fail("%s %v", what, err)
		return false
	}
	signers := slices.DeleteFunc(slices.Clone(a.files.certs), func(c *x509.Certificate) bool { return c.Subject.CommonName != tcbSigner })
	if len(signers) == 0 {
		a.miss("%s, for want of its issuer chain with the certificate %s", what, tcbSigner)
		return false
	}
	var err error
	for _, signer := range signers {
		if err = a.toRoot(signer); err != nil {
			continue
		}
		if err = doc.signedBy(signer); err == nil {
			a.uses.signing = []*x509.Certificate{signer, a.certs[2]}
			return true
		}
	}
	a.fail("%s: %v", what, err)
	return false
}

func (a *appraisal) current(from, to time.Time) error {
	at := a.now.UTC().Format(time.RFC3339)
	switch {
	case a.now.Before(from):
		return fmt.Errorf("is of %s, after %s", from.UTC().Format(time.RFC3339), at)
	case a.now.After(to):
		return fmt.Errorf("expired on %s, before %s", to.UTC().Format(time.RFC3339), at)
	}
	return nil
}

func (s signedJSON) signedBy(cert *x509.Certificate) error {
	raw, err := hex.DecodeString(s.signature)
	if err != nil || len(raw) != 64 {
		return errors.New("its signature is not 64 bytes in hexadecimal")
	}
	der, err := abi.SignatureToDER(raw)
	if err != nil {
		return err
	}
	if cert.CheckSignature(x509.ECDSAWithSHA256, s.body, der) != nil {
		return fmt.Errorf("not signed by %s", certName(cert))
	}
	return nil
}

// revocations looks for the PCK certificate and its CA, and for the TCB signing
// certificate, in their issuers' lists.
func (a *appraisal) revocations() {
	pck, ca, root := a.certs[0], a.certs[1], a.certs[2]
	suspects := []*x509.Certificate{ca}
	if len(a.uses.signing) > 0 {
		suspects = append(suspects, a.uses.signing[0])
	}
	rootCRL, rootOK := a.revoked(root, suspects...)
	pckCRL, pckOK := a.revoked(ca, pck)
	if rootOK && pckOK {
		a.good = append(a.good, "neither "+certName(pck)+" nor its CA is revoked")
	}
	if rootCRL != nil && pckCRL != nil {
		a.uses.rootCRL, a.uses.pckCRL, a.uses.pckCA = rootCRL.Raw, pckCRL.Raw, []*x509.Certificate{ca, root}
	}
}

// revoked looks for certificates in an issuer's newest list, and returns the
// list. What is wrong, it takes down.
func (a *appraisal) revoked(issuer *x509.Certificate, suspects ...*x509.Certificate) (*x509.RevocationList, bool) {
	lists := slices.DeleteFunc(slices.Clone(a.files.crls), func(l *x509.RevocationList) bool { return !bytes.Equal(l.RawIssuer, issuer.RawSubject) })
	if len(lists) == 0 {
		a.miss("revocation of %s, for want of the list of %s", certName(suspects[0]), certName(issuer))
		return nil, false
	}
	list := slices.MaxFunc(lists, func(x, y *x509.RevocationList) int { return x.ThisUpdate.Compare(y.ThisUpdate) })
	what := "the revocation list of " + certName(issuer)
	if err := list.CheckSignatureFrom(issuer); err != nil {
		a.fail("%s is not signed by it", what)
		return nil, false
	}
	if err := a.current(list.ThisUpdate, list.NextUpdate); err != nil {
		a.fail("%s %v", what, err)
		return nil, false
	}
	ok := true
	for _, entry := range list.RevokedCertificateEntries {
		for _, cert := range suspects {
			if entry.SerialNumber != nil && entry.SerialNumber.Cmp(cert.SerialNumber) == 0 {
				a.fail("%s %x is revoked since %s", certName(cert), cert.SerialNumber, entry.RevocationTime.UTC().Format(time.RFC3339))
				ok = false
			}
		}
	}
	return list, ok
}
