package quote

import (
	"fmt"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// tpmBundle is evidence of a TPM in one file: quotes by one key, and what the
// sender says beside them, for which nothing but the quotes vouches.
type tpmBundle struct {
	quotes []bundledQuote
	key    *tpmKey     // nil if it has none
	values rtmr.Values // of the PCRs
	logs   []Log
	facts  []Fact

	warnings []string
}

type bundledQuote struct{ attest, signature []byte }

// maxQuotes is how many quotes a bundle may have: one a bank is usual.
const maxQuotes = 64

// open verifies every quote of the bundle.
func (b *tpmBundle) open(opts *Options) (*Quote, error) {
	if n := len(b.quotes); n == 0 || n > maxQuotes {
		return nil, fmt.Errorf("%d quotes, expected 1 to %d", n, maxQuotes)
	}
	trusted, err := givenKey(opts)
	if err != nil {
		return nil, err
	}
	key, from := b.key, byEvidence
	if trusted != nil {
		key, from = preferred(trusted, b.key), byCaller
	}
	chain := keyChain(key, from, opts)
	all := &Quote{Kind: TPM}
	for i, one := range b.quotes {
		q, err := openTPM(one.attest, one.signature, key, chain, opts)
		if err != nil {
			return nil, fmt.Errorf("quote %d of %d: %w", i+1, len(b.quotes), err)
		}
		all.join(q, i, len(b.quotes))
	}
	if trusted != nil && b.key != nil && !trusted.equal(b.key) {
		all.Warnings = append(all.Warnings, "the key in the file is another than the key that was given, which is used")
	}
	all.Facts = append(all.Facts, b.facts...)
	all.Warnings = append(all.Warnings, b.warnings...)
	all.Logs = b.logs
	if len(b.values) > 0 {
		if err := all.Bind(b.values); err != nil {
			return nil, fmt.Errorf("the PCRs: %w", err)
		}
	}
	return all, nil
}

// preferred returns the key that the caller gave. Where the bundle's is the same
// key, and has the TPM's structure that the caller's lacks, that is kept: it
// holds the key's name, and can but narrow by which scheme the key signs.
func preferred(trusted, bundled *tpmKey) *tpmKey {
	if bundled == nil || !trusted.equal(bundled) || trusted.area != nil {
		return trusted
	}
	key := *bundled
	if len(trusted.certs) > 0 {
		key.certs = trusted.certs
	}
	return &key
}

// join adds one of a bundle's quotes to the quote that stands for all of them:
// its links are the worst of theirs.
func (q *Quote) join(one *Quote, i, of int) {
	place := ""
	if of > 1 {
		place = fmt.Sprintf("quotes[%d].", i)
	}
	for _, l := range one.Links {
		if of > 1 && l.Status == Failed && l.Name != Chain {
			l.Text = fmt.Sprintf("quote %d of %d: %s", i+1, of, l.Text)
		}
		if old, ok := q.Link(l.Name); ok {
			l = both(old, l)
		}
		q.setLink(l)
	}
	if one.Kind == SoftTPM {
		q.Kind, q.Version = one.Kind, one.Version
	}
	for _, f := range one.Facts {
		if strings.HasPrefix(f.Name, "key") { // all are by one key
			if !slices.Contains(q.Facts, f) {
				q.Facts = append(q.Facts, f)
			}
			continue
		}
		q.Facts = append(q.Facts, Fact{place + f.Name, f.Value})
	}
	for _, w := range one.Warnings {
		if !slices.Contains(q.Warnings, w) {
			q.Warnings = append(q.Warnings, w)
		}
	}
	q.Composites = append(q.Composites, one.Composites...)
}
