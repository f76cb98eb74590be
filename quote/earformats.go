package quote

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/veraison/ear"

	"tallystick/rtmr"
)

// The profiles of EAR. The tag of the draft has the draft's claim names, with
// underscores; Veraison's and Trustee's implementations have dots.
var earProfiles = []string{ear.EatProfile, ear.EatTrusteeProfile, "tag:ietf.org,2026:rats/ear"}

// isEAR tells an EAR by its submodules: each has a status.
func isEAR(c claims) bool {
	submods, _ := c.members["submods"].(map[string]any)
	for _, m := range submods {
		if submod, ok := m.(map[string]any); ok && (submod["ear.status"] != nil || submod["ear_status"] != nil) {
			return true
		}
	}
	return false
}

// earName is a claim's name as the token spells it: "ear.status", or "ear_status" since
// draft-ietf-rats-ear-03.
func earName(c claims, name string) string {
	if draft := strings.ReplaceAll(strings.ReplaceAll(name, ".", "_"), "-", "_"); !c.has(name) && c.has(draft) {
		return draft
	}
	return name
}

func readEAR(c claims, r *result) {
	profile, _ := c.text("eat_profile")
	if base, _, _ := strings.Cut(profile, "#"); !slices.Contains(earProfiles, base) {
		r.warnings = append(r.warnings, fmt.Sprintf("eat_profile is %s, and known are %s: its claims may mean something else", quoted(profile), strings.Join(earProfiles, ", ")))
	}
	if name := earName(c, "ear.status"); c.has(name) {
		if tier, ok := tierOf(c, name); ok {
			r.find(tier, "%s is %s", name, tier)
		}
	}
	submods := c.object("submods")
	for _, name := range submods.names() {
		submod := submods.object(name)
		r.scope = submods.at(name)
		r.appraisal(name, submod)
		r.nonceIn(submod, "eat_nonce")
		for _, evidence := range []string{"ear.veraison.annotated-evidence", "ear.evidence-claims", "ear.attester-claims"} {
			r.evidence(submod.object(earName(submod, evidence)))
		}
	}
	r.scope = submods.at(hardwareSubmod)
	r.own(c)
	r.scope = ""
	r.nonceEchoed(c, "eat_nonce")
}

// appraisal takes down the judgement of one submodule. Its status may not be better than
// its trustworthiness vector's worst claim (draft-ietf-rats-ear, ear_status); where it is,
// the claim counts.
func (r *result) appraisal(name string, c claims) {
	status := earName(c, "ear.status")
	tier, ok := tierOf(c, status)
	if !ok {
		c.fail(status, "missing, expected a status of every submodule")
		return
	}
	vector := trustClaims(c.object(earName(c, "ear.trustworthiness-vector")))
	said, parts := tier, []string{}
	for _, claim := range slices.Sorted(maps.Keys(vector)) {
		value := vector[claim]
		if value.IsNone() {
			continue // AR4SI §3.1: as if it were not there
		}
		parts = append(parts, fmt.Sprintf("%s %d", rtmr.Escape(claim), value))
		if worse := value.GetTier(); tierRank(worse) > tierRank(tier) {
			tier = worse
		}
	}
	text := fmt.Sprintf("%s is %s", rtmr.Escape(name), said)
	if tier != said {
		text += ", though a claim of it is " + tier.String()
	}
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	r.find(tier, "%s", text)
}

// evidence reads the claims of an appraised report, which verifiers put beside their
// appraisal: those of Confidential Containers' Trustee by the TEE's name, and the claims of
// Veraison's CCA scheme and of Intel's as they are.
func (r *result) evidence(c claims) {
	for _, tee := range []string{"tdx", "az-tdx-vtpm"} {
		r.trusteeTDX(c.object(tee))
	}
	for _, tee := range []string{"snp", "az-snp-vtpm"} {
		r.trusteeSNP(c.object(tee))
	}
	for _, tpm := range []claims{c.object("tpm"), c.object("az-tdx-vtpm").object("tpm"), c.object("az-snp-vtpm").object("tpm")} {
		r.trusteeTPM(tpm)
	}
	r.realm(c)
	r.realm(c.object("realm"))
	r.realm(c.object("cca").object("realm"))
	r.tdClaims(c)
	r.nonceIn(c.object("runtime_data_claims"), "nonce")
	if text, ok := c.text("report_data"); ok {
		r.nonces = append(r.nonces, noncePlace{name: c.at("report_data"), scope: r.scope, texts: []string{text}, field: true})
	}
}

// trusteeTDX reads Trustee's claims of a TD quote (attestation-service/docs/tcb_claims.md).
func (r *result) trusteeTDX(c claims) {
	body := c.object("quote").object("body")
	r.hexRegister(body, "mr_td", rtmr.SHA384, rtmr.MRTD)
	for i := range rtmr.NumRTMRs {
		register, _ := rtmr.Index(i).RTMR()
		r.hexRegister(body, fmt.Sprintf("rtmr_%d", i), rtmr.SHA384, register)
	}
	if data := r.nonceField(body, "report_data"); data != nil {
		r.reported = data
	}
	r.tdAttributes(body, "td_attributes")
	r.hostAccess(c.object("td_attributes"), "debug")
}

// trusteeSNP reads Trustee's claims of an SEV-SNP report.
func (r *result) trusteeSNP(c claims) {
	r.hexRegister(c, "measurement", rtmr.SHA384, rtmr.Launch)
	r.hostAccess(c, "policy_debug_allowed")
	r.hostAccess(c, "policy_migrate_ma")
}

// trusteeTPM reads Trustee's PCRs, of the bank sha256: pcr00 to pcr23.
func (r *result) trusteeTPM(c claims) {
	for i := range rtmr.NumPCRs {
		register, _ := rtmr.PCR(i).Register()
		r.hexRegister(c, fmt.Sprintf("pcr%02d", i), rtmr.SHA256, register)
	}
}

// realm reads a realm's claims by their names in JSON (draft-ffm-rats-cca-token), with
// dashes, or with underscores as Trustee has them. The values are in base64, in the
// realm's own hash algorithm.
func (r *result) realm(c claims) {
	name := func(s string) string {
		if low := strings.ReplaceAll(s, "-", "_"); !c.has(s) && c.has(low) {
			return low
		}
		return s
	}
	rim, rems, hash := name("cca-realm-initial-measurement"), name("cca-realm-extensible-measurements"), name("cca-realm-hash-algo-id")
	if !c.has(rim) && !c.has(rems) {
		return
	}
	id, _ := c.text(hash)
	alg, err := rtmr.ParseAlg(id)
	if err != nil || !alg.Available() {
		c.fail(hash, "%s, expected the realm's hash algorithm, such as sha-256", quoted(id))
		return
	}
	r.realmRegister(c, rim, alg, rtmr.RIM)
	list, isList := c.members[rems].([]any)
	if c.has(rems) && (!isList || len(list) != rtmr.NumRTMRs) {
		c.fail(rems, "%s of %d, expected a list of %d", claimKind(c.members[rems]), len(list), rtmr.NumRTMRs)
		return
	}
	for i, value := range list {
		register, _ := rtmr.Index(i).REM()
		one := claims{c.path, map[string]any{rems: value}, c.err}
		r.realmRegister(one, rems, alg, register)
	}
	if challenge := name("cca-realm-challenge"); c.has(challenge) {
		if b, ok := c.base64(challenge); ok {
			r.nonces = append(r.nonces, noncePlace{name: c.at(challenge), scope: r.scope, texts: []string{fmt.Sprintf("%x", b)}, field: true})
			r.reported = b
		}
	}
}

func (r *result) realmRegister(c claims, name string, alg rtmr.Alg, register rtmr.Register) {
	if value, ok := c.base64(name); ok {
		r.register(c, name, alg, register, value)
	}
}

// tdClaims reads a TD's claims by the names that Intel Trust Authority and Azure
// Attestation share (draft-kdyxy-rats-tdx-eat-profile).
func (r *result) tdClaims(c claims) {
	r.hexRegister(c, "tdx_mrtd", rtmr.SHA384, rtmr.MRTD)
	for i := range rtmr.NumRTMRs {
		register, _ := rtmr.Index(i).RTMR()
		r.hexRegister(c, fmt.Sprintf("tdx_rtmr%d", i), rtmr.SHA384, register)
	}
	r.hostAccess(c, "tdx_is_debuggable")
	r.hostAccess(c, "tdx_td_attributes_debug")
	r.tdAttributes(c, "tdx_td_attributes")
	if data := r.nonceField(c, "tdx_report_data"); data != nil {
		r.reported = data
	}
}

// ownClaim is the claim in which tally itself writes what its appraisal was of.
const ownClaim = "ear.tallystick.evidence"

// hardwareSubmod is the submodule whose appraisal is of those registers.
const hardwareSubmod = "hardware"

// own reads the registers that tally wrote, bank by bank as --values takes them.
func (r *result) own(c claims) {
	banks := c.object(ownClaim).object("registers")
	for _, bank := range banks.names() {
		alg, err := rtmr.ParseAlg(bank)
		if err != nil || alg.Size() == 0 {
			banks.fail(bank, "expected a hash algorithm, such as sha256")
			return
		}
		registers := banks.object(bank)
		for _, name := range registers.names() {
			register, err := rtmr.ParseRegister(name)
			if err != nil {
				registers.fail(name, "expected a register, such as pcr0 or rtmr0")
				return
			}
			r.hexRegister(registers, name, alg, register)
		}
	}
}

// isMAA tells Azure Attestation's tokens.
func isMAA(c claims) bool { return c.has("x-ms-attestation-type") }

// readMAA reads Azure Attestation's token: of a confidential VM's guest attestation
// ("azurevm", with the hardware's claims in x-ms-isolation-tee), or of a report
// ("sevsnpvm", "tdxvm", at the top).
func readMAA(c claims, r *result) {
	tee := c.object("x-ms-isolation-tee")
	for _, c := range []claims{tee, c} {
		r.hexRegister(c, "x-ms-sevsnpvm-launchmeasurement", rtmr.SHA384, rtmr.Launch)
		r.tdClaims(c)
		r.hostAccess(c, "x-ms-sevsnpvm-is-debuggable")
		r.hostAccess(c, "x-ms-sevsnpvm-migration-allowed")
		if data := r.nonceField(c, "x-ms-sevsnpvm-reportdata"); data != nil {
			r.reported = data
		}
		r.compliance(c)
		r.tcb(c, "attester_tcb_status")
		runtime := c.object("x-ms-runtime")
		r.nonceIn(runtime.object("client-payload"), "nonce")
		r.nonceIn(runtime, "nonce")
		r.nonceField(runtime, "user-data")
	}
	r.dbgstat(c)
	r.nonceEchoed(c, "nonce")
}

// compliance takes down whether the guest is what Azure says that it runs.
func (r *result) compliance(c claims) {
	const name = "x-ms-compliance-status"
	status, ok := c.text(name)
	switch text := fmt.Sprintf("%s is %s", rtmr.Escape(c.at(name)), quoted(status)); {
	case !ok:
	case status == "azure-compliant-cvm", status == "azure-compliant-uvm":
		r.find(ear.TrustTierAffirming, "%s", text)
	default:
		r.find(ear.TrustTierContraindicated, "%s, expected azure-compliant-cvm or azure-compliant-uvm", text)
	}
}

// dbgstat takes down EAT's claim on debug facilities (RFC 9711 §4.2.9).
func (r *result) dbgstat(c claims) {
	status, ok := c.text("dbgstat")
	switch text := fmt.Sprintf("%s is %s", rtmr.Escape(c.at("dbgstat")), quoted(status)); {
	case !ok:
	case strings.HasPrefix(status, "disabled"):
		r.closed = append(r.closed, text)
	default:
		r.debug = append(r.debug, text)
	}
}

// isITA tells Intel Trust Authority's tokens: a TD's claims at the top, or in the object
// "tdx" since version 2, which Azure's claims are not beside.
func isITA(c claims) bool {
	tdx, _ := c.members["tdx"].(map[string]any)
	return !isMAA(c) && (c.has("tdx_mrtd") || tdx["tdx_mrtd"] != nil)
}

// readITA reads Intel Trust Authority's token.
func readITA(c claims, r *result) {
	for _, c := range []claims{c, c.object("tdx")} {
		r.tdClaims(c)
		r.tcb(c, "attester_tcb_status")
		r.dbgstat(c)
		runtime := c.object("attester_runtime_data")
		r.nonceField(runtime, "user-data")
		r.nonceIn(runtime, "nonce")
		r.nonceIn(c, "attester_held_data")
	}
	// By default a token is issued whether policies match or not, and says which.
	if unmatched, _ := c.members["policy_ids_unmatched"].([]any); len(unmatched) > 0 {
		r.find(ear.TrustTierWarning, "policy_ids_unmatched: %d of the policies did not match", len(unmatched))
	}
	for _, c := range []claims{c.object("tdx"), c} {
		r.nonceEchoed(c.object("verifier_nonce"), "val")
	}
	r.nonceEchoed(c, "eat_nonce")
}
