package quote

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	sevabi "github.com/google/go-sev-guest/abi"
	tdxabi "github.com/google/go-tdx-guest/abi"
	attestpb "github.com/google/go-tpm-tools/proto/attest"
	tpmpb "github.com/google/go-tpm-tools/proto/tpm"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"tallystick/evidence"
	"tallystick/rtmr"
)

// protoText is the beginning of an attest.Attestation as `gotpm attest --format
// textproto` writes it.
var protoText = regexp.MustCompile(`^\s*(ak_pub|quotes|event_log|instance_info|canonical_event_log|ak_cert|intermediate_certs|sev_snp_attestation|tdx_attestation)\s*[:{]`)

// isGoTPMTools tells go-tpm-tools' attest.Attestation. In binary it is one if
// it parses and its first quote is one of a TPM; in text or JSON by its names.
func isGoTPMTools(data []byte) bool {
	if protoText.Match(data) || isProtoJSON(data) {
		return true
	}
	var a attestpb.Attestation
	return len(data) > 0 && proto.Unmarshal(data, &a) == nil && len(a.GetQuotes()) > 0 && isTPMAttest(a.GetQuotes()[0].GetQuote())
}

// isProtoJSON tells protojson's form of it: names in camel case, or as in the
// .proto file.
func isProtoJSON(data []byte) bool {
	var keys map[string]json.RawMessage
	if len(data) == 0 || json.Unmarshal(data, &keys) != nil {
		return false
	}
	_, ak := keys["akPub"]
	if !ak {
		_, ak = keys["ak_pub"]
	}
	return ak && len(keys["quotes"]) > 0
}

func openGoTPMTools(data []byte, opts *Options) (*Quote, error) {
	a, err := parseGoTPMTools(data)
	if err != nil {
		return nil, err
	}
	if err := opts.only("a go-tpm-tools attestation", "key", "ek-cert", "ek-roots", "activation", "hardware", "collateral", "tdx-roots", "snp-roots"); err != nil {
		return nil, err
	}
	b, err := bundleOf(a)
	if err != nil {
		return nil, err
	}
	q, err := b.open(opts)
	if err != nil {
		return nil, err
	}
	if err := q.hold(a, opts); err != nil {
		return nil, err
	}
	return q, nil
}

func parseGoTPMTools(data []byte) (*attestpb.Attestation, error) {
	var a attestpb.Attestation
	var err error
	switch {
	case protoText.Match(data):
		err = prototext.Unmarshal(data, &a)
	case isProtoJSON(data):
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, &a)
	default:
		err = proto.Unmarshal(data, &a)
	}
	if err != nil {
		return nil, errors.New(rtmr.Escape(err.Error()))
	}
	return &a, nil
}

// bundleOf takes the TPM's part of an attestation.
func bundleOf(a *attestpb.Attestation) (*tpmBundle, error) {
	b := &tpmBundle{values: rtmr.Values{}}
	if err := b.takeKey(a); err != nil {
		return nil, err
	}
	for i, q := range a.GetQuotes() {
		b.quotes = append(b.quotes, bundledQuote{q.GetQuote(), q.GetRawSig()})
		values, err := protoValues(q.GetPcrs())
		if err == nil {
			err = mergeValues(b.values, values)
		}
		if err != nil {
			return nil, fmt.Errorf("quotes[%d].pcrs: %w", i, err)
		}
	}
	if log := a.GetEventLog(); len(log) > 0 {
		b.logs = append(b.logs, Log{Name: "event_log", Data: log})
	}
	if log := a.GetCanonicalEventLog(); len(log) > 0 {
		b.logs = append(b.logs, Log{Name: "canonical_event_log", Data: log})
	}
	if i := a.GetInstanceInfo(); i != nil {
		b.facts = append(b.facts, Fact{"instance_info", rtmr.Escape(fmt.Sprintf("projects/%s/zones/%s/instances/%s (project number %d, instance id %d), which nothing vouches for",
			i.GetProjectId(), i.GetZone(), i.GetInstanceName(), i.GetProjectNumber(), i.GetInstanceId()))})
	}
	return b, nil
}

// takeKey reads ak_pub, and ak_cert if it is a certificate of that key.
func (b *tpmBundle) takeKey(a *attestpb.Attestation) (err error) {
	if len(a.GetAkPub()) > 0 {
		if b.key, err = parseTPMKey(a.GetAkPub()); err != nil {
			return fmt.Errorf("ak_pub: %w", err)
		}
	}
	if len(a.GetAkCert()) == 0 {
		return nil
	}
	certs, err := parseCertificates(a.GetAkCert())
	if err != nil {
		return fmt.Errorf("ak_cert: %w", err)
	}
	certified, err := keyOfCertificate(certs[:1])
	if err != nil {
		return fmt.Errorf("ak_cert: %w", err)
	}
	for i, der := range a.GetIntermediateCerts() {
		more, err := parseCertificates(der)
		if err != nil {
			return fmt.Errorf("intermediate_certs[%d]: %w", i, err)
		}
		certs = append(certs, more...)
	}
	switch {
	case b.key == nil:
		b.key = certified
	case !b.key.equal(certified):
		b.warnings = append(b.warnings, "ak_cert is of another key than ak_pub, and left out")
		return nil
	}
	b.key.certs = certs
	return nil
}

// protoValues places the values of one bank.
func protoValues(pcrs *tpmpb.PCRs) (rtmr.Values, error) {
	alg := rtmr.Alg(pcrs.GetHash())
	values := rtmr.Values{}
	for index, value := range pcrs.GetPcrs() {
		register, ok := rtmr.PCR(index).Register()
		if !ok {
			return nil, fmt.Errorf("PCR %d, expected 0 to %d", index, rtmr.NumPCRs-1)
		}
		if pcrs.GetHash() < 0 || pcrs.GetHash() > 0xffff || !alg.Available() {
			return nil, fmt.Errorf("%w: hash: %s", ErrUnsupported, strconv.Itoa(int(pcrs.GetHash())))
		}
		if values[alg] == nil {
			values[alg] = map[rtmr.Register]rtmr.Hex{}
		}
		values[alg][register] = value
	}
	return values, nil
}

// openInside opens the bytes of a report that other evidence holds. It is Open,
// set when the program starts, for Open's table of formats leads back here. A
// bundle is no report.
var openInside func(data []byte, opts Options) (*Quote, error)

func init() {
	openInside = func(data []byte, opts Options) (*Quote, error) {
		if evidence.Is(data) {
			return nil, fmt.Errorf("%w: an evidence bundle, expected a report", ErrUnsupported)
		}
		return Open(data, opts)
	}
}

// hold opens the hardware's report that the attestation holds, from its bytes
// put together again. Nothing in it is of the TPM's key: what both answer is
// the nonce.
func (q *Quote) hold(a *attestpb.Attestation, opts *Options) error {
	inside := opts.inner()
	inside.Nonce = opts.Nonce
	var raw []byte
	var err error
	name := ""
	switch tee := a.GetTeeAttestation().(type) {
	case *attestpb.Attestation_TdxAttestation:
		name = "tdx_attestation"
		raw, err = tdxabi.QuoteToAbiBytes(tee.TdxAttestation)
	case *attestpb.Attestation_SevSnpAttestation:
		name = "sev_snp_attestation"
		raw, err = sevabi.ReportToAbiBytes(tee.SevSnpAttestation.GetReport())
		if len(inside.Hardware) == 0 {
			inside.Hardware = tee.SevSnpAttestation.GetCertificateChain().GetVcekCert()
		}
	default:
		return inside.only("an attestation without the hardware's")
	}
	if err != nil {
		return fmt.Errorf("%s: %s", name, rtmr.Escape(err.Error()))
	}
	held, err := openInside(raw, inside)
	switch {
	case errors.Is(err, ErrUnsupported):
		q.Facts = append(q.Facts, Fact{name, fmt.Sprintf("%d bytes, which are not read here", len(raw))})
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	default:
		q.Inside = held
		q.Warnings = append(q.Warnings, name+" says nothing of the TPM's key: that both are of one machine is not shown by them")
	}
	return nil
}
