package replay

import (
	"crypto/sha256"
	"fmt"
	"hash/maphash"
	"iter"
	"strings"

	"tallystick/rtmr"
)

// comparison holds two logs as far as comparing needs them.
//
// Digests are compared whole: each gets a number, the same in both logs. What
// is not measured, data and subjects, is compared by 64-bit hashes under a
// random seed, at which whoever wrote a log cannot aim.
type comparison struct {
	opts    DiffOptions
	bank    rtmr.Alg
	banks   []rtmr.Alg // all that are looked at
	seed    maphash.Seed
	numbers map[string]uint32
	keys    []string // by number
	sides   [2]side
	found   []rtmr.Digest // digestsOf's
}

// side is one of the logs.
type side struct {
	chains     map[rtmr.Register]*chain
	unmeasured chain
	events     int
	fault      error
}

// chain is what one register was extended with, in order.
type chain struct {
	register rtmr.Register
	entries  []chained
	locality uint8 // from which PCR 0 starts
	value    []byte
}

// chained is an entry of a chain.
type chained struct {
	index   int    // in the log
	key     uint32 // the number of the digest, or of what stands for one
	whole   uint64 // hash of key, type, data and the digests in other banks
	subject uint64 // hash of the subject, or 0
}

func newComparison(opts DiffOptions) *comparison {
	return &comparison{opts: opts, seed: maphash.MakeSeed(), numbers: map[string]uint32{}}
}

// read reads both logs: each up to its first measured entry, whose banks
// decide in which bank to compare, then to its end.
func (c *comparison) read(a, b Source) error {
	var rest [2]func() (rtmr.Measurement, error, bool)
	var first [2]rtmr.Measurement
	for i, src := range []Source{a, b} {
		next, stop := iter.Pull2(src())
		defer stop()
		c.sides[i].chains = map[rtmr.Register]*chain{}
		first[i], rest[i] = c.begin(&c.sides[i], next), next
	}
	var err error
	if c.bank, err = commonBank(first[0].Digests, first[1].Digests, c.opts.Bank); err != nil {
		return err
	}
	c.banks = []rtmr.Alg{c.bank}
	if c.opts.Bank == 0 {
		c.banks = append(c.banks, otherBanks(first[0].Digests, first[1].Digests, c.bank)...)
	}
	for i := range c.sides {
		c.finish(&c.sides[i], &first[i], rest[i])
	}
	return nil
}

// begin takes the entries that extend nothing and returns the one behind them,
// which is the zero Measurement where the log ends before.
func (c *comparison) begin(s *side, next func() (rtmr.Measurement, error, bool)) rtmr.Measurement {
	for {
		m, err, ok := next()
		if !ok || err != nil {
			s.fault = err
			return rtmr.Measurement{}
		}
		if extends(&m) {
			return m
		}
		c.note(s, &m)
	}
}

// finish takes the first measured entry and all behind it.
func (c *comparison) finish(s *side, first *rtmr.Measurement, next func() (rtmr.Measurement, error, bool)) {
	if s.fault != nil || !extends(first) {
		return
	}
	for m, ok := *first, true; ok && s.fault == nil; {
		if s.fault = c.add(s, &m); s.fault == nil {
			m, s.fault, ok = next()
		}
	}
}

// extends is false too for an entry without digests: a canonical event log may
// have a timestamp that is not measured.
func extends(m *rtmr.Measurement) bool {
	return !m.NoAction && !m.Register.IsZero() && len(m.Digests) > 0
}

func (c *comparison) add(s *side, m *rtmr.Measurement) error {
	if !extends(m) {
		c.note(s, m)
		return nil
	}
	d, ok := c.digestOf(m)
	if !ok {
		return &rtmr.SyntaxError{Offset: m.Offset, Entry: m.Index, Field: "digests",
			Err: fmt.Errorf("none in %s, the bank in which the logs are compared, expected one in every entry", c.bank)}
	}
	ch := c.chain(s, m)
	s.events++
	ch.extend(d)
	ch.entries = append(ch.entries, c.chained(m, d.Sum))
	return nil
}

// note takes an entry that extends nothing: it is known by its data, and by
// the digest of an NV index, which is no register of this project's.
func (c *comparison) note(s *side, m *rtmr.Measurement) {
	c.chain(s, m)
	s.events++
	h := sha256.New()
	if m.Entry != nil {
		h.Write(m.Entry.Data())
	}
	if m.Register.IsZero() {
		h.Write(strongestDigest(m))
	}
	s.unmeasured.entries = append(s.unmeasured.entries, c.chained(m, h.Sum(nil)))
}

// chain returns the chain of an entry's register, and sets from where it
// starts if the entry tells; that has no effect once it has been extended.
func (c *comparison) chain(s *side, m *rtmr.Measurement) *chain {
	reg := c.registerOf(m)
	ch := s.chains[reg]
	if ch == nil {
		ch = &chain{register: reg}
		s.chains[reg] = ch
	}
	if m.Locality != 0 && len(ch.entries) == 0 {
		ch.locality = m.Locality
	}
	return ch
}

func (c *comparison) registerOf(m *rtmr.Measurement) rtmr.Register {
	reg := m.Register
	if c.opts.Into != rtmr.KindNone && reg.Kind() == rtmr.KindPCR {
		if cc, ok := rtmr.PCR(reg.Index()).CC(); ok {
			reg = cc
		}
	}
	if c.opts.Into == rtmr.KindREM {
		reg = reg.Realm()
	}
	return reg
}

// extend folds a digest into the chain's value.
func (ch *chain) extend(d rtmr.Digest) {
	if ch.register.Static() || !d.Alg.Available() {
		return
	}
	if ch.value == nil {
		ch.value = ch.register.StartValue(d.Alg)
		ch.value[len(ch.value)-1] = ch.locality
	}
	d.Alg.Extend(ch.value, d.Sum)
}

func (c *comparison) digestOf(m *rtmr.Measurement) (rtmr.Digest, bool) {
	for _, d := range m.Digests {
		if d.Alg == c.bank {
			return d, true
		}
	}
	return rtmr.Digest{}, false
}

// digestsOf returns a measured entry's digests in the banks that are looked
// at, in their order, valid until the next call. Where it has none the Sum is
// nil.
func (c *comparison) digestsOf(m *rtmr.Measurement) []rtmr.Digest {
	if !extends(m) {
		return nil
	}
	out := c.found[:0]
	for _, bank := range c.banks {
		of := rtmr.Digest{Alg: bank}
		for _, d := range m.Digests {
			if d.Alg == bank {
				of = d
			}
		}
		out = append(out, of)
	}
	c.found = out
	return out
}

// chained returns what is kept of an entry that is known by key.
func (c *comparison) chained(m *rtmr.Measurement, key []byte) chained {
	e := chained{index: m.Index, key: c.number(key)}
	var h maphash.Hash
	h.SetSeed(c.seed)
	h.Write(key)
	for _, d := range c.digestsOf(m) {
		h.Write(d.Sum)
	}
	if m.Entry != nil {
		h.WriteString(family(m.Entry.Type()))
		h.WriteByte(0)
		h.Write(m.Entry.Data())
		if s := subjectOf(m.Entry); s != "" {
			e.subject = maphash.String(c.seed, s)
		}
	}
	e.whole = h.Sum64()
	return e
}

// about hashes what an entry says that it is and is about.
func (c *comparison) about(e rtmr.Entry) uint64 {
	if e == nil {
		return 0
	}
	var h maphash.Hash
	h.SetSeed(c.seed)
	h.WriteString(family(e.Type()))
	h.WriteByte(0)
	h.WriteString(subjectOf(e))
	return h.Sum64()
}

// family is a type without what stands behind a colon, an annotation that
// systemd's own log has and its canonical copy in TLV or CBOR has not.
func family(typ string) string {
	name, _, _ := strings.Cut(typ, ":")
	return name
}

func (c *comparison) number(key []byte) uint32 {
	n, ok := c.numbers[string(key)]
	if !ok {
		n = uint32(len(c.keys))
		c.keys = append(c.keys, string(key))
		c.numbers[c.keys[n]] = n
	}
	return n
}
