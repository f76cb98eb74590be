package quote

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"strings"

	"github.com/google/go-tdx-guest/pcs"

	"tallystick/rtmr"
)

// TDXCollateral is what Intel publishes about its platforms, as found in a folder
// of files. A file is told by its content, and may have any name:
//
//   - TCB info, {"tcbInfo":{..},"signature":".."}: the answer of the PCS and of
//     a PCCS to GET tdx/certification/v4/tcb?fmspc=..
//   - QE identity, {"enclaveIdentity":{..},"signature":".."}: the answer to GET
//     tdx/certification/v4/qe/identity
//   - revocation lists of "Intel SGX Root CA" and of the PCK's CA, in DER, in
//     PEM, or in hexadecimal as a PCCS answers to GET rootcacrl
//   - issuer chains, of which "Intel SGX TCB Signing" is needed: PEM, or the
//     answer's headers, in which the PEM is URL-encoded. A file that curl -i
//     wrote, with headers and body, is all of it in one.
//   - all of the above in one JSON object with the keys tcb_info,
//     tcb_info_signature, tcb_info_issuer_chain, qe_identity, .., root_ca_crl
//     and pck_crl, as DCAP's sgx_ql_qve_collateral_t names them
//
// There may be several of each: those that fit a quote are used. Subfolders are
// not read.
type TDXCollateral struct {
	tcbInfos []signedTCBInfo
	qes      []signedQE
	crls     []*x509.RevocationList
	certs    []*x509.Certificate

	// Warnings name the files that are none of these, or malformed.
	Warnings []string
}

// signedJSON is a JSON value and Intel's signature over its very bytes.
type signedJSON struct {
	body      []byte // without white space, as Intel signs it
	signature string // hexadecimal, r ‖ s
}

type signedTCBInfo struct {
	signedJSON
	pcs.TcbInfo
}

type signedQE struct {
	signedJSON
	pcs.EnclaveIdentity
}

// Limits of what is read: Intel's largest file is its PCK revocation list.
const (
	maxCollateralFile  = 16 << 20
	maxCollateralFiles = 1000
)

// ReadTDXCollateral reads the files of a folder. The error is one of the file
// system; a file that makes no sense is a warning.
func ReadTDXCollateral(dir fs.FS) (*TDXCollateral, error) {
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, err
	}
	if len(entries) > maxCollateralFiles {
		return nil, fmt.Errorf("%d files, expected at most %d", len(entries), maxCollateralFiles)
	}
	c := &TDXCollateral{}
	for _, e := range entries {
		info, err := fs.Stat(dir, e.Name()) // a link's target
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			continue
		}
		data, err := readAtMost(dir, e.Name(), maxCollateralFile)
		if err != nil {
			return nil, err
		}
		if err := c.add(data); err != nil {
			c.Warnings = append(c.Warnings, fmt.Sprintf("collateral file %s is not used: %s", rtmr.Escape(e.Name()), rtmr.Escape(err.Error())))
		}
	}
	return c, nil
}

func readAtMost(dir fs.FS, name string, limit int64) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", rtmr.Escape(name), limit)
	}
	return data, err
}

// add takes in one file.
func (c *TDXCollateral) add(data []byte) error {
	if bytes.HasPrefix(data, []byte{0x30}) { // a DER SEQUENCE, and not a digit that begins hexadecimal
		if err := c.addDER(data); err == nil {
			return nil
		}
	}
	switch text := bytes.TrimSpace(data); {
	case len(text) == 0:
		return errors.New("it is empty")
	case text[0] == '{':
		return c.addJSON(text)
	case bytes.Contains(text, []byte("-----BEGIN%20")):
		return c.addAnswer(text)
	case bytes.Contains(text, []byte("-----BEGIN ")):
		return c.addPEM(text)
	}
	if der, ok := decodeText(data); ok {
		return c.addDER(der)
	}
	return fmt.Errorf("%d bytes that begin %.16x are no TCB info, QE identity, revocation list or certificate", len(data), data)
}

func (c *TDXCollateral) addDER(der []byte) error {
	if crl, err := x509.ParseRevocationList(der); err == nil {
		c.crls = append(c.crls, crl)
		return nil
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return errors.New("neither a revocation list nor a certificate in DER")
	}
	c.certs = append(c.certs, cert)
	return nil
}

func (c *TDXCollateral) addPEM(text []byte) error {
	found := 0
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		if err := c.addDER(block.Bytes); err != nil {
			return fmt.Errorf("PEM block %d, %s: %w", found, block.Type, err)
		}
		found, text = found+1, rest
	}
	if found == 0 {
		return errors.New("no PEM block can be decoded")
	}
	return nil
}

// addAnswer takes in an HTTP answer's headers, and the body if one follows.
func (c *TDXCollateral) addAnswer(text []byte) error {
	headers, body, _ := bytes.Cut(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\n\n"))
	for line := range strings.Lines(string(headers)) {
		_, value, ok := strings.Cut(line, "-----BEGIN%20")
		if !ok {
			continue
		}
		// Not QueryUnescape, which takes a + for a space: in base64 it is a +.
		chain, err := url.PathUnescape("-----BEGIN%20" + strings.TrimSpace(value))
		if err != nil {
			return err
		}
		if err := c.addPEM([]byte(chain)); err != nil {
			return err
		}
	}
	if len(bytes.TrimSpace(body)) > 0 {
		if bytes.Contains(body, []byte("-----BEGIN%20")) {
			return errors.New("an issuer chain behind the headers' end")
		}
		return c.add(body)
	}
	return nil
}

func (c *TDXCollateral) addJSON(text []byte) error {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(text, &keys); err != nil {
		return err
	}
	signature := jsonString(keys["signature"])
	switch {
	case keys["tcbInfo"] != nil:
		return c.addTCBInfo(keys["tcbInfo"], signature)
	case keys["enclaveIdentity"] != nil:
		return c.addQE(keys["enclaveIdentity"], signature)
	case keys["tcb_info"] != nil, keys["qe_identity"] != nil:
		return c.addBundle(keys)
	}
	return errors.New("a JSON object without tcbInfo, enclaveIdentity or tcb_info")
}

// addTCBInfo decodes the very bytes that are signed. To decode the object around
// them would let a second key, "TCBINFO", replace what was signed: Go takes
// keys in any case.
func (c *TDXCollateral) addTCBInfo(raw []byte, signature string) error {
	info := signedTCBInfo{signedJSON: compact(raw, signature)}
	if err := json.Unmarshal(info.body, &info.TcbInfo); err != nil {
		return fmt.Errorf("tcbInfo: %w", err)
	}
	c.tcbInfos = append(c.tcbInfos, info)
	return nil
}

func (c *TDXCollateral) addQE(raw []byte, signature string) error {
	qe := signedQE{signedJSON: compact(raw, signature)}
	if err := json.Unmarshal(qe.body, &qe.EnclaveIdentity); err != nil {
		return fmt.Errorf("enclaveIdentity: %w", err)
	}
	c.qes = append(c.qes, qe)
	return nil
}

// compact undoes a tool's pretty printing: Intel signs JSON without white space.
func compact(raw []byte, signature string) signedJSON {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return signedJSON{raw, signature}
	}
	return signedJSON{b.Bytes(), signature}
}

// addBundle takes in all collateral in one object.
func (c *TDXCollateral) addBundle(keys map[string]json.RawMessage) error {
	var errs []error
	part := func(key string, add func(value string) error) {
		if value := jsonString(keys[key]); value != "" {
			if err := add(value); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", key, err))
			}
		}
	}
	part("tcb_info", func(s string) error { return c.addTCBInfo([]byte(s), jsonString(keys["tcb_info_signature"])) })
	part("qe_identity", func(s string) error { return c.addQE([]byte(s), jsonString(keys["qe_identity_signature"])) })
	for _, key := range []string{"tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_crl_issuer_chain"} {
		part(key, func(s string) error { return c.addPEM([]byte(s)) })
	}
	for _, key := range []string{"root_ca_crl", "pck_crl"} {
		part(key, func(s string) error { return c.add([]byte(s)) })
	}
	return errors.Join(errs...)
}

// offlinePCS answers go-tdx-guest's requests to Intel's provisioning
// certification service from files. It never asks a network.
type offlinePCS struct {
	fmspc           string
	tcbInfo, qe     []byte
	signing         []*x509.Certificate // signing certificate, root
	pckCRL, rootCRL []byte
	pckCA           []*x509.Certificate // PCK's CA, root
}

// Get answers as the service would: a body, and the issuer chain in a header.
func (p *offlinePCS) Get(address string) (map[string][]string, []byte, error) {
	answer := func(header string, issuers []*x509.Certificate, body []byte) (map[string][]string, []byte, error) {
		if body == nil {
			return nil, nil, fmt.Errorf("no file answers %s", address)
		}
		return map[string][]string{header: {escapedChain(issuers)}}, body, nil
	}
	switch {
	case address == pcs.TcbInfoURL(p.fmspc):
		return answer(pcs.TcbInfoIssuerChainPhrase, p.signing, p.tcbInfo)
	case address == pcs.QeIdentityURL():
		return answer(pcs.SgxQeIdentityIssuerChainPhrase, p.signing, p.qe)
	case strings.HasPrefix(address, pcs.SgxBaseURL+"/pckcrl?"):
		return answer(pcs.SgxPckCrlIssuerChainPhrase, p.pckCA, p.pckCRL)
	default: // the root certificate's distribution point
		return answer("", nil, p.rootCRL)
	}
}

func escapedChain(certs []*x509.Certificate) string {
	var b bytes.Buffer
	for _, cert := range certs {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	}
	return url.QueryEscape(b.String())
}

// document is the object that carried the signed bytes, rebuilt so that it has
// nothing beside them.
func (s signedJSON) document(key string) []byte {
	signature, _ := json.Marshal(s.signature)
	return fmt.Appendf(nil, `{"%s":%s,"signature":%s}`, key, s.body, signature)
}
