package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/veraison/ear"

	"tallystick/quote"
	"tallystick/replay"
	"tallystick/rtmr"
)

// layerAppraisal is one submodule of the attestation result that --emit-ear writes.
//
// A trustworthiness claim (draft-ietf-rats-ar4si §3.1) is made only of what was looked
// at, and left at 0, no claim, otherwise. That logs explain registers proves that they
// are the whole truth, and not that what they list is approved; so no claim affirms
// executables or files, but where their registers were expected to have these values.
type layerAppraisal struct {
	status ear.TrustTier
	claims ear.TrustVector

	Text      []string `json:"text"`
	Logs      []string `json:"logs,omitempty"`
	Registers []string `json:"registers,omitempty"`
}

// tiers from good to bad: to be unable to judge is worse than to have doubts.
var tierOrder = []ear.TrustTier{ear.TrustTierAffirming, ear.TrustTierWarning, ear.TrustTierNone, ear.TrustTierContraindicated}

func worseTier(a, b ear.TrustTier) ear.TrustTier {
	if slices.Index(tierOrder, b) > slices.Index(tierOrder, a) {
		return b
	}
	return a
}

// lower makes the status no better than the tier, and says why.
func (a *layerAppraisal) lower(tier ear.TrustTier, format string, args ...any) {
	a.status = worseTier(a.status, tier)
	a.Text = append(a.Text, fmt.Sprintf(format, args...))
}

// claim makes a trustworthiness claim, unless a worse one was made; the status is
// never better than it.
func (a *layerAppraisal) claim(claim *ear.TrustClaim, value ear.TrustClaim) {
	if *claim == ear.NoClaim || slices.Index(tierOrder, value.GetTier()) > slices.Index(tierOrder, claim.GetTier()) || value == ear.CryptoValidationFailedClaim {
		*claim = value
	}
	a.status = worseTier(a.status, value.GetTier())
}

// appraise turns the verdict into one appraisal a layer: hardware, and those of which
// there are logs.
func (r *verdictReport) appraise() map[string]*layerAppraisal {
	all := map[string]*layerAppraisal{"hardware": r.appraiseHardware()}
	if r.Verdict == untrusted {
		for _, l := range r.layers {
			a := layerIn(all, l.layer)
			a.Logs = append(a.Logs, filepath.Base(r.Logs[l.log].Path))
			a.lower(ear.TrustTierNone, "not looked at: the quote that would vouch for it is not to be trusted")
		}
		return all
	}
	for i := range r.layers {
		r.appraiseLog(layerIn(all, r.layers[i].layer), &r.layers[i])
	}
	r.appraiseOrphans(all)
	r.appraiseCopies(all)
	for name, a := range all {
		if hw := all["hardware"].status; worseTier(a.status, hw) != a.status && name != "hardware" {
			a.lower(hw, "what vouches for its registers is no better than %s", hw)
		}
	}
	r.bringDown(all)
	return all
}

// appraiseCopies makes what was held against a journal, and not folded, no better than the
// journal is, whose copies vouch for it.
func (r *verdictReport) appraiseCopies(all map[string]*layerAppraisal) {
	for _, l := range r.layers {
		if l.copy == nil {
			continue
		}
		of := slices.IndexFunc(r.layers, func(j layerReport) bool { return r.Logs[j.log].Path == l.copy.Of })
		if of < 0 {
			continue
		}
		a, journal := all[l.layer], all[r.layers[of].layer].status
		if a.status != worseTier(a.status, journal) {
			a.lower(journal, "%s, which has its copies, is no better than %s", l.copy.Of, journal)
		}
	}
}

// layerIn returns a layer's appraisal, which begins good.
func layerIn(all map[string]*layerAppraisal, layer string) *layerAppraisal {
	if all[layer] == nil {
		all[layer] = &layerAppraisal{status: ear.TrustTierAffirming, Text: []string{}}
	}
	return all[layer]
}

// bringDown makes sure that no verdict looks better in the result than it is.
func (r *verdictReport) bringDown(all map[string]*layerAppraisal) {
	if r.Verdict == reconciled {
		return
	}
	for _, a := range all {
		if a.status == ear.TrustTierContraindicated {
			return
		}
	}
	for name, a := range all {
		if name != "hardware" || len(all) == 1 {
			a.lower(ear.TrustTierContraindicated, "%s: %s", r.Verdict, r.Sentence)
		}
	}
}

// appraiseHardware is of all that vouches for the registers: the quote, the report inside
// it, and another verifier's result.
func (r *verdictReport) appraiseHardware() *layerAppraisal {
	a := &layerAppraisal{status: ear.TrustTierAffirming, Text: []string{}}
	for q := r.Quote; q != nil; q = q.Inside {
		for _, l := range q.Links {
			if q.Kind == quote.EAR {
				a.resultLink(l)
			} else {
				a.hardwareLink(q.Kind, l)
			}
		}
	}
	if a.claims.Hardware == ear.GenuineHardwareClaim && a.status != ear.TrustTierAffirming {
		a.claims.Hardware = ear.NoClaim // a part is not known
	}
	for _, o := range r.Registers {
		if !o.Register.Static() {
			continue
		}
		a.Registers = append(a.Registers, o.Register.String())
		switch {
		case o.Expected == nil:
		case o.Unexpected():
			a.claim(&a.claims.Configuration, ear.UnsupportableConfigClaim)
			a.Text = append(a.Text, o.Register.String()+" is not what was expected of it")
		default:
			a.claim(&a.claims.Configuration, ear.ApprovedConfigClaim)
		}
	}
	a.Registers = slices.Compact(a.Registers)
	return a
}

// hardwareLink takes one link of hardware evidence into account.
func (a *layerAppraisal) hardwareLink(kind quote.Kind, l linkReport) {
	text := fmt.Sprintf("%s: %s %s: %s", kind, l.Name, l.Status, l.Text)
	switch l.Status {
	case quote.Failed:
		a.lower(ear.TrustTierContraindicated, "%s", text)
		a.failed(l.Name)
	case quote.Missing, quote.SelfAsserted, quote.Skipped:
		a.lower(ear.TrustTierNone, "%s", text)
	case quote.NotChecked:
		if l.Name != quote.Nonce { // whose freshness is for who sent one
			a.lower(ear.TrustTierWarning, "%s", text)
		}
	case quote.Verified:
		switch l.Name {
		case quote.Chain:
			a.claim(&a.claims.Hardware, ear.GenuineHardwareClaim)
		case quote.Policy:
			a.claim(&a.claims.RuntimeOpaque, ear.EncryptedMemoryRuntimeClaim)
		}
	}
}

// failed makes the claim that a link which failed stands for.
func (a *layerAppraisal) failed(link string) {
	switch link {
	case quote.Signature, quote.Binding:
		a.claim(&a.claims.Hardware, ear.CryptoValidationFailedClaim)
		a.claim(&a.claims.InstanceIdentity, ear.CryptoValidationFailedClaim)
	case quote.Chain:
		a.claim(&a.claims.Hardware, ear.UnrecognizedHardwareClaim)
	case quote.Collateral:
		a.claim(&a.claims.Hardware, ear.ContraindicatedHardwareClaim)
	case quote.Policy:
		a.claim(&a.claims.RuntimeOpaque, ear.VisibleMemoryRuntimeClaim)
	case quote.Required:
		a.claim(&a.claims.Configuration, ear.UnsupportableConfigClaim)
	}
}

// resultLink takes one link of another verifier's result into account: the hardware was
// that one's to look at, and its word is data from elsewhere.
func (a *layerAppraisal) resultLink(l linkReport) {
	text := fmt.Sprintf("%s: %s %s: %s", quote.EAR, l.Name, l.Status, l.Text)
	switch {
	case l.Status == quote.Failed:
		a.lower(ear.TrustTierContraindicated, "%s", text)
		a.claim(&a.claims.SourcedData, ear.ContraindicatedSourcesClaim)
	case l.Status == quote.Missing, l.Status == quote.Skipped:
		a.lower(ear.TrustTierNone, "%s", text)
	case l.Status == quote.Warned:
		a.lower(ear.TrustTierWarning, "%s", text)
		a.claim(&a.claims.SourcedData, ear.UntrustedSourcesClaim)
	case l.Name == quote.Result && l.Status == quote.Verified:
		a.claim(&a.claims.SourcedData, ear.TrustedSourcesClaim)
	case l.Name == quote.Policy && l.Status == quote.Verified:
		a.claim(&a.claims.RuntimeOpaque, ear.EncryptedMemoryRuntimeClaim)
	}
}

// appraiseLog takes one log into account.
func (r *verdictReport) appraiseLog(a *layerAppraisal, l *layerReport) {
	path := r.Logs[l.log].Path
	a.Logs = append(a.Logs, filepath.Base(path))
	if names := l.names(); len(names) > 0 {
		a.Registers = append(a.Registers, names...)
		slices.Sort(a.Registers)
		a.Registers = slices.Compact(a.Registers)
	}
	late := l.quoted - l.vouched
	switch c := l.copy; {
	case c != nil && c.Parts, r.contradicted(l.log), slices.ContainsFunc(l.registers, r.mismatched):
		a.objects(l, ear.CryptoValidationFailedClaim)
		a.lower(ear.TrustTierContraindicated, "%s is not what was measured", path)
	case c != nil && c.Entries == 0 && c.Ahead > 0, c == nil && l.quoted == 0, !l.lasting(r.Quote):
		a.lower(ear.TrustTierNone, "nothing vouches for %s", path)
	case c != nil && c.Ahead > 0, c == nil && late > 0, r.uncovered(l.log):
		a.objects(l, ear.UnrecognizedRuntimeClaim)
		a.lower(ear.TrustTierWarning, "nothing vouches for a part of %s", path)
	case c == nil && !slices.ContainsFunc(l.registers, r.collisionFree):
		a.lower(ear.TrustTierWarning, "only the bank sha1 stands for %s, in which collisions can be made", path)
	default:
		if c == nil && r.approved(l.registers) {
			a.objects(l, ear.ApprovedBootClaim)
		}
		a.Text = append(a.Text, path+" is what was measured")
	}
}

// objects makes the claim on what a log lists: executables, and for the kernel's list the
// files that it measured, too.
func (a *layerAppraisal) objects(l *layerReport, value ear.TrustClaim) {
	files := map[ear.TrustClaim]ear.TrustClaim{
		ear.CryptoValidationFailedClaim: ear.CryptoValidationFailedClaim,
		ear.UnrecognizedRuntimeClaim:    ear.UnrecognizedFilesClaim,
		ear.ApprovedBootClaim:           ear.ApprovedFilesClaim,
	}
	if value == ear.ApprovedBootClaim && l.layer != "firmware" {
		value = ear.ApprovedRuntimeClaim
		files[value] = ear.ApprovedFilesClaim
	}
	a.claim(&a.claims.Executables, value)
	if l.layer == "kernel" {
		a.claim(&a.claims.FileSystem, files[value])
	}
}

// lasting reports whether a log's registers keep what was extended.
func (l *layerReport) lasting(q *quoteReport) bool {
	return l.quoted == 0 || !q.ofTPM() || slices.ContainsFunc(l.registers, lasts)
}

func (r *verdictReport) contradicted(log int) bool {
	return slices.ContainsFunc(r.Findings, func(f replay.Finding) bool { return f.Log == log })
}

func (r *verdictReport) mismatched(register rtmr.Register) bool {
	return slices.ContainsFunc(r.Registers, func(o registerReport) bool {
		return o.Register == register && (o.Status == replay.Mismatch || o.Status == replay.Unlogged || o.Unexpected())
	})
}

// collisionFree reports whether a register is quoted in a bank in which no two logs can be
// made that fold to one value.
func (r *verdictReport) collisionFree(register rtmr.Register) bool {
	return slices.ContainsFunc(r.Registers, func(o registerReport) bool { return o.Register == register && o.Alg != rtmr.SHA1 })
}

// approved reports whether all registers were expected to have the values that they have.
func (r *verdictReport) approved(registers []rtmr.Register) bool {
	expected := func(register rtmr.Register) bool {
		return slices.ContainsFunc(r.Registers, func(o registerReport) bool {
			return o.Register == register && o.Expected != nil && !o.Unexpected() && o.Alg != rtmr.SHA1
		})
	}
	return len(registers) > 0 && !slices.ContainsFunc(registers, func(register rtmr.Register) bool { return !expected(register) })
}

func (r *verdictReport) uncovered(log int) bool {
	of := func(u uncovered) bool { return u.Log == log }
	return slices.ContainsFunc(r.Uncovered, of) || slices.ContainsFunc(r.Undigested, of)
}

// appraiseOrphans takes into account the registers that moved, or are not as expected,
// and that no log speaks of: who uses them by convention answers for them.
func (r *verdictReport) appraiseOrphans(all map[string]*layerAppraisal) {
	for _, o := range r.Registers {
		owned := slices.ContainsFunc(r.layers, func(l layerReport) bool { return slices.Contains(l.registers, o.Register) })
		if owned || o.Register.Static() || !r.mismatched(o.Register) {
			continue
		}
		a := layerIn(all, layerUsing(o.Register))
		a.claim(&a.claims.Executables, ear.CryptoValidationFailedClaim)
		a.lower(ear.TrustTierContraindicated, "%s:%s: %s", o.Alg, o.Register, o.Text)
	}
}

// layerUsing is the layer that extends a register by convention: PCR 0 to 7 and RTMR 0
// and 1 are the firmware's, PCR 8 to 15 and RTMR 2 the kernel's with its loader and
// initrd, the others applications' (TCG PC Client PFP §3.3.4, UEFI 2.10 §38.4.1).
func layerUsing(register rtmr.Register) string {
	index := register.Index()
	switch register.Kind() {
	case rtmr.KindPCR:
		if index <= 7 {
			return "firmware"
		}
		if index <= 15 {
			return "kernel"
		}
	case rtmr.KindRTMR, rtmr.KindREM:
		if index <= 1 {
			return "firmware"
		}
		if index == 2 {
			return "kernel"
		}
	}
	return "application"
}
