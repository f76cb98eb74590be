package quote

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"

	"tallystick/rtmr"
)

// noncePlace is a claim in which a nonce may stand.
type noncePlace struct {
	name  string
	scope string // the submodule that it is in
	texts []string
	// field: it is of a fixed size in the hardware's report, where a shorter nonce is
	// followed by zeros.
	field bool
	// echoed: it is what the verifier was asked with, and not what the evidence holds.
	echoed bool
}

// nonceIn takes down places for the nonce, those in the evidence before those that the
// verifier only echoes.
func (r *result) nonceIn(c claims, names ...string) {
	for _, name := range names {
		if texts := c.texts(name); len(texts) > 0 {
			r.nonces = append(r.nonces, noncePlace{name: c.at(name), scope: r.scope, texts: texts})
		}
	}
}

// nonceField takes down a field of the hardware's report, in hexadecimal.
func (r *result) nonceField(c claims, name string) (value []byte) {
	value, ok := c.hex(name)
	if ok {
		r.nonces = append(r.nonces, noncePlace{name: c.at(name), scope: r.scope, texts: []string{hex.EncodeToString(value)}, field: true})
	}
	return value
}

func (r *result) nonceEchoed(c claims, name string) {
	if texts := c.texts(name); len(texts) > 0 {
		r.nonces = append(r.nonces, noncePlace{name: c.at(name), scope: r.scope, texts: texts, echoed: true})
	}
}

// holds reports whether the nonce stands there: as it is, in hexadecimal or in base64,
// for every verifier has its own way, and says nowhere which.
func (p *noncePlace) holds(nonce []byte) bool {
	for _, text := range p.texts {
		if text == string(nonce) {
			return true
		}
		if b, err := hex.DecodeString(text); err == nil && (bytes.Equal(b, nonce) || p.field && paddedEqual(b, nonce)) {
			return true
		}
		if b, err := decodeBase64(text); err == nil && bytes.Equal(b, nonce) {
			return true
		}
	}
	return false
}

// paddedEqual reports whether a field holds a value, and zeros after it.
func paddedEqual(field, value []byte) bool {
	return bytes.HasPrefix(field, value) && allZero(field[len(value):])
}

// nonceLink looks for the nonce: in the evidence of every submodule that states registers,
// for one's nonce says nothing of another's age, or where the verifier echoes it.
func (r *result) nonceLink(nonce []byte) Link {
	var seen, found []string
	echo, fresh := "", map[string]bool{}
	for i := range r.nonces {
		p := &r.nonces[i]
		name := rtmr.Escape(p.name)
		seen = append(seen, fmt.Sprintf("%s is %s", name, quoted(strings.Join(p.texts, ", "))))
		switch {
		case len(nonce) == 0 || !p.holds(nonce):
		case p.echoed:
			echo = name
		case r.stating[p.scope] && !fresh[p.scope]:
			fresh[p.scope] = true
			found = append(found, name)
		}
	}
	text := strings.Join(seen, "; ")
	switch {
	case len(nonce) == 0 && len(seen) == 0:
		return Link{Nonce, NotChecked, "no nonce given, and the result has none"}
	case len(nonce) == 0:
		return Link{Nonce, NotChecked, "no nonce given; " + text}
	case len(found) > 0 && len(fresh) == len(r.stating):
		return Link{Nonce, Verified, fmt.Sprintf("%s is the given nonce of %d bytes", strings.Join(found, ", "), len(nonce))}
	case echo != "":
		return Link{Nonce, Verified, fmt.Sprintf("%s is the given nonce of %d bytes, which the verifier echoes: the result is fresh, and of how fresh its evidence was that verifier knows", echo, len(nonce))}
	case len(seen) == 0:
		return Link{Nonce, Failed, "the result has no claim for a nonce"}
	case len(found) > 0:
		return Link{Nonce, Failed, fmt.Sprintf("%s is the given nonce, and other submodules state registers too, without it: %s", strings.Join(found, ", "), text)}
	}
	return Link{Nonce, Failed, fmt.Sprintf("no claim is the given nonce, %x: %s", nonce, text)}
}
