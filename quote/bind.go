package quote

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// Bind holds register values from elsewhere against the quote's composites,
// makes those that it selects the quote's Values, and tells in the link Binding
// whether they are what was signed. Values that the quote does not select are
// vouched for by nothing: they are dropped, with a warning that names them.
//
// A link that is not Verified is no error. It is an error if the quote has no
// composites, or if a value does not have its bank's digest size; the quote is
// then as it was.
func (q *Quote) Bind(values rtmr.Values) error {
	if len(q.Composites) == 0 {
		return errors.New("the quote signs no digest of registers that values could be held against")
	}
	if err := values.Validate(); err != nil {
		return err
	}
	selected, dropped := rtmr.Values{}, []rtmr.Selected{}
	for alg, bank := range values {
		for register, value := range bank {
			if s := (rtmr.Selected{Alg: alg, Register: register}); !selects(q.Composites, s) {
				dropped = append(dropped, s)
				continue
			}
			if selected[alg] == nil {
				selected[alg] = map[rtmr.Register]rtmr.Hex{}
			}
			selected[alg][register] = value
		}
	}
	if len(dropped) > 0 {
		q.Warnings = append(q.Warnings, "not selected by the quote, and left out: "+registerList(dropped))
	}
	q.Values = selected
	q.setLink(bindingLink(q.Composites, selected))
	return nil
}

// bindingLink tells whether the values hash to every composite.
func bindingLink(composites []rtmr.Composite, values rtmr.Values) Link {
	link := Link{Binding, Verified, ""}
	for i, c := range composites {
		one := Link{Binding, Verified, fmt.Sprintf("the values hash to the quote's %s", c.Digest)}
		got, err := c.Of(values)
		switch {
		case err != nil:
			one.Status, one.Text = Missing, err.Error()
		case !bytes.Equal(got, c.Digest.Sum):
			one.Status, one.Text = Failed, fmt.Sprintf("the values hash to %x, the quote signs %s", got, c.Digest)
		}
		if i == 0 {
			link = one
		} else {
			link = both(link, one)
		}
	}
	return link
}

// both is the link that stands for two of the same name: the worse of them, or
// what both say where they are alike.
func both(l, m Link) Link {
	severity := []Status{Verified, Skipped, NotChecked, Warned, SelfAsserted, Missing, Failed}
	switch a, b := slices.Index(severity, l.Status), slices.Index(severity, m.Status); {
	case a > b || l.Text == m.Text:
		return l
	case b > a:
		return m
	}
	return Link{l.Name, l.Status, l.Text + "; " + m.Text}
}

// setLink replaces the link of that name, or adds it.
func (q *Quote) setLink(l Link) {
	i := slices.IndexFunc(q.Links, func(m Link) bool { return m.Name == l.Name })
	if i < 0 {
		q.Links = append(q.Links, l)
	} else {
		q.Links[i] = l
	}
}

// registerList writes registers by bank, neighbours as a range:
// "sha1:pcr0..pcr23, sha256:pcr11".
func registerList(registers []rtmr.Selected) string {
	slices.SortFunc(registers, func(a, b rtmr.Selected) int {
		return cmp.Or(cmp.Compare(a.Alg, b.Alg), a.Register.Compare(b.Register))
	})
	var list []string
	for len(registers) > 0 {
		first, n := registers[0], 1
		for n < len(registers) && registers[n].Alg == first.Alg && registers[n].Register.Kind() == first.Register.Kind() &&
			registers[n].Register.Index() == first.Register.Index()+n {
			n++
		}
		text := first.String()
		if n > 1 {
			text += ".." + registers[n-1].Register.String()
		}
		list, registers = append(list, text), registers[n:]
	}
	return strings.Join(list, ", ")
}

// mergeValues adds values to others; it is an error if a register has two.
func mergeValues(to, from rtmr.Values) error {
	for alg, bank := range from {
		if to[alg] == nil {
			to[alg] = map[rtmr.Register]rtmr.Hex{}
		}
		for register, value := range bank {
			if old, ok := to[alg][register]; ok && !bytes.Equal(old, value) {
				return fmt.Errorf("%s:%s has two values, %x and %x", alg, register, []byte(old), []byte(value))
			}
		}
		maps.Copy(to[alg], bank)
	}
	return nil
}
