package quote

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tallystick/rtmr"
)

// The links that an attestation result has beside Signature and Nonce.
const (
	Validity = "validity" // the result is of its time: nbf, iat, exp
	Result   = "result"   // what the verifier found
)

// resultFormat is one verifier's way to write what it found.
type resultFormat struct {
	name   string // for people
	detect func(claims) bool
	read   func(claims, *result)
}

// resultFormats are told apart by claims that only one of them has.
var resultFormats = []resultFormat{
	{"EAT Attestation Result (EAR)", isEAR, readEAR},
	{"Azure Attestation's token", isMAA, readMAA},
	{"Intel Trust Authority's token", isITA, readITA},
}

// result is what is read of an attestation result, before it is judged.
type result struct {
	values   rtmr.Values
	from     map[rtmr.Selected]claimName // the claim that states a value
	findings []finding                   // at least one, or nothing says what was found
	nonces   []noncePlace
	scope    string          // the submodule that is being read, "" outside of any
	stating  map[string]bool // those that state registers
	debug    []string        // claims that let the host into the guest
	closed   []string        // claims that say that it is not let in
	reported rtmr.Hex        // REPORTDATA, or REPORT_DATA, of the report that was appraised
	warnings []string
}

// claimName is a claim's object, and its name there.
type claimName struct{ path, name string }

func (n claimName) String() string { return joinClaim(n.path, n.name) }

// OpenEAR opens an attestation result: register values, and a judgement, that another
// verifier signed. It reads JWTs, by the claims in them:
//
//   - EAR (draft-ietf-rats-ear, as Veraison's and Confidential Containers' verifiers
//     write it), with registers in a submodule's annotated evidence, or in the claim
//     that tally writes itself;
//   - Azure Attestation's, with the claims x-ms-* and tdx_*;
//   - Intel Trust Authority's, with the claims tdx_*, at the top or in "tdx".
//
// docs/ear.md lists the claims. Options.EARKey is what the verifier signs with. It
// is never fetched: header members that say where it is (jku, x5u) or what it is (jwk,
// x5c) are not looked at.
//
// The quote is of the kind EAR, and its links are Signature, Validity, Result, Nonce,
// and Policy where the result says whether the host can debug the guest. Every claim of
// one value is a Fact by its full name. The error, which names the claim, means that the
// bytes are no such result; that they state no register's value, or those of two kinds
// of guest; or that a claim cannot be what it is said to be.
func OpenEAR(data []byte, opts Options) (*Quote, error) {
	if err := opts.only("an attestation result", "ear-key"); err != nil {
		return nil, err
	}
	q, err := openEAR(data, &opts)
	if err != nil {
		return nil, fmt.Errorf("attestation result: %w", err)
	}
	if opts.SkipSignature {
		q.skip()
	}
	return q, nil
}

func openEAR(data []byte, opts *Options) (*Quote, error) {
	t, err := parseJWS(data)
	if err != nil {
		return nil, err
	}
	var keys []resultKey
	if len(opts.EARKey) > 0 {
		if keys, err = parseResultKeys(opts.EARKey); err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
	}
	c := newClaims(t.claims)
	format, err := resultFormatOf(c)
	if err != nil {
		return nil, err
	}
	r := &result{values: rtmr.Values{}, from: map[rtmr.Selected]claimName{}, stating: map[string]bool{}}
	format.read(c, r)
	validity := validityLink(c, opts.now())
	if err := cmp.Or(*c.err, r.check()); err != nil {
		return nil, fmt.Errorf("%s: %w", format.name, err)
	}
	verdict, notes := r.link()
	q := &Quote{Kind: EAR, Values: r.values, Warnings: slices.Concat(r.warnings, notes), asked: asked{reportData: r.reported}, acceptsWarned: opts.EARAcceptWarning}
	nonce := r.nonceLink(opts.Nonce)
	if validity.Status == NotChecked && nonce.Status == Verified {
		validity.Status, validity.Text = Verified, validity.Text+"; it is as new as the nonce"
	}
	q.Links = []Link{t.signatureLink(keys), validity, verdict, nonce}
	if len(r.debug)+len(r.closed) > 0 {
		q.Links = append(q.Links, r.policy())
	}
	q.Facts = append([]Fact{{"format", format.name}, {"registers", r.sources()}}, slices.Concat(t.header.facts(), r.facts(c))...)
	if key, err := t.choose(keys); len(keys) > 0 && err == nil {
		q.Warnings = append(q.Warnings, key.expired(opts.now())...)
	}
	return q, nil
}

func resultFormatOf(c claims) (*resultFormat, error) {
	var found *resultFormat
	var names []string
	for i := range resultFormats {
		f := &resultFormats[i]
		names = append(names, f.name)
		if !f.detect(c) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("claims of two kinds of result, %s and %s", found.name, f.name)
		}
		found = f
	}
	if found == nil {
		return nil, fmt.Errorf("%w: a signed token (%s), and no claim tells what it is, expected one of: %s", ErrUnsupported, strings.Join(claimSample(c), ", "), strings.Join(names, ", "))
	}
	return found, nil
}

// claimSample are the first names of a token that nobody knows.
func claimSample(c claims) (names []string) {
	for i, name := range c.names() {
		if i == 8 {
			return append(names, "..")
		}
		names = append(names, quoted(name))
	}
	return names
}

// register takes a register's value. A claim that says the same again is fine, one
// that says another is not.
func (r *result) register(c claims, name string, alg rtmr.Alg, register rtmr.Register, value []byte) {
	s := rtmr.Selected{Alg: alg, Register: register}
	old, again := r.values[alg][register]
	r.stating[r.scope] = true
	switch {
	case len(value) != alg.Size():
		c.fail(name, "%s has %d bytes, expected %d", s, len(value), alg.Size())
	case again && !bytes.Equal(old, value):
		c.fail(name, "%s is %x, and by %s it is %s", s, value, rtmr.Escape(r.from[s].String()), old)
	case !again:
		r.values.Set(alg, register, value)
		r.from[s] = claimName{c.path, name}
	}
}

// hexRegister takes the register that a claim states in hexadecimal, if there is the claim.
func (r *result) hexRegister(c claims, name string, alg rtmr.Alg, register rtmr.Register) {
	if value, ok := c.hex(name); ok {
		r.register(c, name, alg, register, value)
	}
}

// compareSelected orders registers by bank, and in one by number.
func compareSelected(a, b rtmr.Selected) int {
	return cmp.Or(cmp.Compare(a.Alg, b.Alg), a.Register.Compare(b.Register))
}

// families are the kinds of guest that registers tell; a TPM is in any of them.
var families = map[rtmr.Kind]string{
	rtmr.KindMRTD: "a TD", rtmr.KindRTMR: "a TD", rtmr.KindRIM: "a realm", rtmr.KindREM: "a realm", rtmr.KindLaunch: "an SEV guest", // a Secure Execution guest's is in tally's own results alone
}

// check refuses results that say nothing of registers, or that mix two guests up.
func (r *result) check() error {
	guests := map[string]string{} // by family, the first claim that tells it
	for _, s := range selectedOf(r.values) {
		if family := families[s.Register.Kind()]; family != "" && guests[family] == "" {
			guests[family] = r.from[s].String()
		}
	}
	switch {
	case len(r.from) == 0:
		return errors.New("no claim states a register's value")
	case len(guests) > 1:
		var texts []string
		for _, family := range slices.Sorted(maps.Keys(guests)) {
			texts = append(texts, fmt.Sprintf("%s (%s)", family, rtmr.Escape(guests[family])))
		}
		return fmt.Errorf("claims of two guests: %s", strings.Join(texts, " and "))
	}
	return nil
}

// sources says which claims state the registers: those of one object together.
func (r *result) sources() string {
	var objects []string
	members := map[string][]string{}
	for _, s := range selectedOf(r.values) {
		claim := r.from[s]
		if members[claim.path] == nil {
			objects = append(objects, claim.path)
		}
		members[claim.path] = append(members[claim.path], claim.name)
	}
	for i, path := range objects {
		names := strings.Join(slices.Compact(members[path]), ", ")
		objects[i] = rtmr.Escape(strings.TrimPrefix(path+": "+names, ": "))
	}
	return strings.Join(objects, "; ")
}

// facts are the claims that state no register.
func (r *result) facts(c claims) []Fact {
	stated := map[string]bool{}
	for _, claim := range r.from {
		stated[rtmr.Escape(claim.String())] = true
	}
	return slices.DeleteFunc(c.facts(), func(f Fact) bool { return stated[f.Name] })
}

// policy tells of a guest that is open to its host.
func (r *result) policy() Link {
	if len(r.debug) > 0 {
		return Link{Policy, Failed, "the host can look into the guest and change it: " + strings.Join(r.debug, ", ")}
	}
	return Link{Policy, Verified, "the host is kept out: " + strings.Join(r.closed, ", ")}
}

// hostAccess takes down a claim that, where it is true, lets the host in.
func (r *result) hostAccess(c claims, name string) {
	set, ok := c.flag(name)
	text := rtmr.Escape(c.at(name))
	switch {
	case !ok:
	case set:
		r.debug = append(r.debug, text+" is true")
	default:
		r.closed = append(r.closed, text+" is false")
	}
}

// tdAttributes takes down a TD's attributes: its first byte is TUD, any bit of which
// puts the TD under debug.
func (r *result) tdAttributes(c claims, name string) {
	value, ok := c.hex(name)
	switch text := rtmr.Escape(c.at(name)); {
	case !ok:
	case len(value) != 8:
		c.fail(name, "has %d bytes, expected 8", len(value))
	case value[0] != 0:
		r.debug = append(r.debug, fmt.Sprintf("%s has debug bits set (%#02x)", text, value[0]))
	default:
		r.closed = append(r.closed, text+" has no debug bit set")
	}
}

// resultLeeway is how far the clocks of two machines may be apart.
const resultLeeway = time.Minute

// validityLink holds the times in a result (RFC 7519 §4.1.4 to §4.1.6) against the one
// at which it has to be valid.
func validityLink(c claims, now time.Time) Link {
	nbf, hasNBF := c.time("nbf")
	iat, hasIAT := c.time("iat")
	exp, hasEXP := c.time("exp")
	text := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case hasNBF && nbf.After(now.Add(resultLeeway)):
		return Link{Validity, Failed, fmt.Sprintf("it is not valid before %s (nbf), and that is after %s", text(nbf), text(now))}
	case hasIAT && iat.After(now.Add(resultLeeway)):
		return Link{Validity, Failed, fmt.Sprintf("it was issued at %s (iat), and that is after %s", text(iat), text(now))}
	case hasEXP && !now.Before(exp):
		return Link{Validity, Failed, fmt.Sprintf("it expired at %s (exp), and now it is %s", text(exp), text(now))}
	case !hasIAT && !hasEXP:
		return Link{Validity, Missing, "neither iat nor exp: nothing says of when the result is"}
	case !hasEXP:
		return Link{Validity, NotChecked, fmt.Sprintf("issued at %s, and it does not say until when it holds (exp)", text(iat))}
	case !hasIAT:
		return Link{Validity, Verified, "valid until " + text(exp)}
	}
	return Link{Validity, Verified, fmt.Sprintf("issued at %s, valid until %s", text(iat), text(exp))}
}

// Beside puts an attestation result beside the evidence, or refuses what is none, and
// tells in the result's link Binding whether both are of one guest: the values that both
// state have to be the same, and one of them a run-time register that moved, or else both
// of one report. The evidence is trusted only if the result is.
func (q *Quote) Beside(result *Quote) error {
	if result.Kind != EAR {
		return fmt.Errorf("evidence of the kind %s, expected an attestation result", result.Kind)
	}
	result.setLink(result.agrees(q))
	last := q
	for last.Inside != nil {
		last = last.Inside
	}
	last.Inside = result
	return nil
}

// agrees holds a result's values against those of evidence, and of the reports inside it.
//
// A launch measurement, or a register at rest, is the same in every guest of an image. A
// run-time register that moved tells guests apart as far as they measured other things;
// REPORTDATA, which a nonce or a key is in, tells them apart.
func (q *Quote) agrees(evidence *Quote) Link {
	var same []rtmr.Selected
	var other rtmr.Hex // REPORTDATA of a report that the result is not of
	oneReport := false
	for e := evidence; e != nil; e = e.Inside {
		both, bad := q.agreesWith(e)
		if bad != nil {
			return *bad
		}
		same = append(same, both...)
		switch {
		case allZero(q.reportData) || allZero(e.reportData):
		case bytes.Equal(q.reportData, e.reportData):
			oneReport = true
		default:
			other = e.reportData
		}
	}
	values := "the result has the evidence's values of " + registerList(slices.Clone(same))
	switch {
	case len(same) == 0:
		return Link{Binding, Missing, "the result and the evidence have no register in common: nothing says that they are of one guest"}
	case oneReport:
		return Link{Binding, Verified, values + ", and is of the same report"}
	case !slices.ContainsFunc(same, q.moved):
		return Link{Binding, Missing, values + ", which every guest has that was launched so: nothing says that the result is of this one"}
	case other != nil:
		return Link{Binding, NotChecked, fmt.Sprintf("%s, and is of another report (REPORTDATA is %s, and the evidence's %s): of this guest at another time, or of one that measured the same", values, q.reportData, other)}
	}
	return Link{Binding, Verified, values}
}

// moved reports whether a register is a run-time register, and has been extended.
func (q *Quote) moved(s rtmr.Selected) bool {
	return !s.Register.Static() && s.Alg.Available() && !bytes.Equal(q.Values[s.Alg][s.Register], s.Register.ResetValue(s.Alg))
}

// agreesWith returns the registers that one piece of evidence and the result both state,
// or the link that says where they part. Evidence that has a digest over its registers and
// not their values is held against the result's.
func (q *Quote) agreesWith(e *Quote) (same []rtmr.Selected, bad *Link) {
	digests := len(e.Values) == 0
	for _, s := range selectedOf(q.Values) {
		value, stated := q.Values[s.Alg][s.Register], e.Values[s.Alg][s.Register]
		switch {
		case digests && selects(e.Composites, s):
			same = append(same, s)
		case stated == nil:
		case !bytes.Equal(stated, value):
			return nil, &Link{Binding, Failed, fmt.Sprintf("%s is %s in the result, and %s in the %s evidence", s, value, stated, e.Kind)}
		default:
			same = append(same, s)
		}
	}
	if digests && len(same) > 0 {
		if l := bindingLink(e.Composites, q.Values); l.Status != Verified {
			return nil, &Link{Binding, l.Status, "the result's values are held against the quote's digest: " + l.Text}
		}
	}
	return same, nil
}

// selectedOf are the registers of values, in order.
func selectedOf(values rtmr.Values) (out []rtmr.Selected) {
	for alg, bank := range values {
		for register := range bank {
			out = append(out, rtmr.Selected{Alg: alg, Register: register})
		}
	}
	slices.SortFunc(out, compareSelected)
	return out
}
