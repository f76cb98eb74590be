package quote

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tdx-guest/pcs"
	"github.com/veraison/ear"

	"tallystick/rtmr"
)

// finding is one judgement in a result, in the terms of draft-ietf-rats-ar4si: a
// trustworthiness tier, and why.
type finding struct {
	tier ear.TrustTier
	text string
	note string // to warn of, "" if there is nothing
}

// find takes a judgement down.
func (r *result) find(tier ear.TrustTier, format string, args ...any) {
	r.findings = append(r.findings, finding{tier: tier, text: fmt.Sprintf(format, args...)})
}

// link is what the verifier found, over all its judgements: the worst counts.
//
// A warning leaves the decision to the relying party's policy (AR4SI §3.2). Who gave
// none has decided nothing: the link is Warned. A tier "none" is no judgement: the
// verifier could not make one.
func (r *result) link() (l Link, notes []string) {
	if len(r.findings) == 0 {
		return Link{Result, Missing, "no claim says what the verifier found"}, nil
	}
	var failed, warned, good []string
	for _, f := range r.findings {
		switch f.tier {
		case ear.TrustTierAffirming:
			good = append(good, f.text)
		case ear.TrustTierWarning:
			warned = append(warned, f.text)
		default:
			failed = append(failed, f.text)
		}
		if f.note != "" {
			notes = append(notes, f.note)
		}
	}
	switch {
	case len(failed) > 0:
		return Link{Result, Failed, strings.Join(slices.Concat(failed, warned), "; ")}, notes
	case len(warned) > 0:
		return Link{Result, Warned, strings.Join(slices.Concat(warned, good), "; ") + "; a warning is for your own policy to decide (--ear-accept-warning)"}, notes
	}
	return Link{Result, Verified, strings.Join(good, "; ")}, notes
}

// tierOf is a claim's tier, which is its name or its number (AR4SI §3.2).
func tierOf(c claims, name string) (tier ear.TrustTier, ok bool) {
	v := c.members[name]
	if _, isText := v.(string); !isText {
		n, isNumber := c.number(name)
		if !isNumber {
			return 0, false
		}
		v = n
	}
	t, err := ear.ToTrustTier(v)
	if err != nil {
		c.fail(name, "%s, expected none, affirming, warning or contraindicated", claimKind(c.members[name]))
		return 0, false
	}
	return *t, true
}

// trustClaims reads a trustworthiness vector. A claim that the specification does not
// know has a tier like any other.
func trustClaims(c claims) map[string]ear.TrustClaim {
	vector := map[string]ear.TrustClaim{}
	for _, name := range c.names() {
		v := c.members[name]
		if _, isText := v.(string); !isText {
			n, isNumber := c.number(name)
			if !isNumber {
				continue
			}
			v = int(n)
		}
		claim, err := ear.ToTrustClaim(v)
		if err != nil {
			c.fail(name, "%s, expected a trustworthiness claim, -128 to 127", claimKind(c.members[name]))
			continue
		}
		vector[name] = *claim
	}
	return vector
}

// tierRank orders the tiers from good to bad. To be unable to judge is worse than to
// have doubts.
func tierRank(t ear.TrustTier) int {
	return slices.Index([]ear.TrustTier{ear.TrustTierAffirming, ear.TrustTierWarning, ear.TrustTierNone, ear.TrustTierContraindicated}, t)
}

// tcb takes down the status of Intel's TCB level that a claim states. The statuses
// without published holes are good, as they are to the quote's own collateral.
func (r *result) tcb(c claims, name string) {
	status, ok := c.text(name)
	if !ok {
		return
	}
	f := finding{text: fmt.Sprintf("%s is %s", rtmr.Escape(c.at(name)), quoted(status))}
	switch pcs.TcbComponentStatus(status) {
	case pcs.TcbComponentStatusUpToDate:
		f.tier = ear.TrustTierAffirming
	case pcs.TcbComponentStatusSwHardeningNeeded, pcs.TcbComponentStatusConfigurationNeeded, pcs.TcbComponentStatusConfigurationAndSWHardeningNeeded:
		f.tier, f.note = ear.TrustTierAffirming, f.text
	case pcs.TcbComponentStatusOutOfDate, pcs.TcbComponentStatusOutOfDateConfigurationNeeded, tcbRelaunch, tcbRelaunchConfiguration:
		f.tier = ear.TrustTierWarning
	case pcs.TcbComponentStatusRevoked:
		f.tier = ear.TrustTierContraindicated
	default:
		f.tier = ear.TrustTierContraindicated
		f.text += ", which is none of Intel's TCB statuses"
	}
	r.findings = append(r.findings, f)
}

// Statuses of a TD whose platform was updated under it, by a TD-preserving update
// (Intel's DCAP quote verification library).
const (
	tcbRelaunch              pcs.TcbComponentStatus = "TDRelaunchAdvised"
	tcbRelaunchConfiguration pcs.TcbComponentStatus = "TDRelaunchAdvisedConfigurationNeeded"
)
