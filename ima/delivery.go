package ima

import "tallystick/rtmr"

// delivery turns hashed batches into measurements. There is one entry at a
// time, in memory that stays in the caller's core.
type delivery struct {
	r       *Reader
	seen    aggregates
	entry   Entry
	hashes  []rtmr.Digest // what the entry's data hash to
	digests []rtmr.Digest // what extended each bank
	made    []byte        // room for a digest in each bank that the entry does not have
}

func newDelivery(r *Reader) *delivery {
	d := &delivery{
		r:       r,
		entry:   r.layout.entry(),
		hashes:  digestsIn(r.hashes),
		digests: digestsIn(r.banks),
		made:    make([]byte, len(r.banks)*rtmr.MaxDigestSize),
	}
	d.entry.computed = d.hashes
	return d
}

// digestsIn returns digests in some algorithms, yet without sums.
func digestsIn(algs []rtmr.Alg) []rtmr.Digest {
	out := make([]rtmr.Digest, len(algs))
	for i, a := range algs {
		out[i].Alg = a
	}
	return out
}

// deliver yields a batch's entries; false if the caller has had enough.
func (d *delivery) deliver(b *batch, yield func(rtmr.Measurement, error) bool) bool {
	for i := range b.records {
		d.open(b, i)
		m := rtmr.Measurement{Index: b.index + i, Offset: b.offset + int64(b.records[i].at), Digests: d.digests, Entry: &d.entry}
		var err error
		if m.Register, err = d.r.opts.Profile.register(d.entry.pcr); err != nil {
			yield(rtmr.Measurement{}, &SyntaxError{Offset: m.Offset, Entry: m.Index, Field: "PCR index", Err: err})
			return false
		}
		m.NoAction = m.Register.IsZero()
		d.seen.see(m.Index, &d.entry)
		if !yield(m, nil) {
			return false
		}
	}
	return true
}

// open makes the batch's i-th entry the current one, with its digests.
func (d *delivery) open(b *batch, i int) {
	b.entry(i, d.r.layout, &d.entry)
	sums := b.sums[i*len(b.sums)/len(b.records):]
	for k := range d.hashes {
		n := d.hashes[k].Alg.Size()
		d.hashes[k].Sum = sums[:n:n]
		sums = sums[n:]
	}
	for k := range d.digests {
		made := d.made[k*rtmr.MaxDigestSize:][:rtmr.MaxDigestSize:rtmr.MaxDigestSize]
		d.digests[k].Sum = d.r.opts.Profile.extended(made, &d.entry, d.digests[k].Alg)
	}
}
