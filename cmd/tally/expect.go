package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tallystick/quote"
	"tallystick/rtmr"
)

// expected are the values that the caller wants registers to have.
func (f *evidenceFlags) expected() (rtmr.Values, error) {
	if f.expect == "" {
		return rtmr.Values{}, nil
	}
	data, err := readEvidence(f.expect)
	if err != nil {
		return nil, err
	}
	values, err := quote.ParseValues(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.expect, err)
	}
	return values, nil
}

// expectMRTD holds the quote's MRTD against --mrtd, and gives it to a boot_aggregate
// where the quote has none.
func (c *investigation) expectMRTD() (err error) {
	if c.own.mrtd == "" {
		return nil
	}
	if c.opts.MRTD, err = parseMRTD(c.own.mrtd); err != nil {
		return err
	}
	launch := c.quote.Launch()[rtmr.SHA384][rtmr.MRTD]
	if launch == nil && !ofTD(c.quote.Values) {
		return errors.New("--mrtd was given, and the quote is of no TD: it carries no MRTD")
	}
	if other := c.opts.Expect[rtmr.SHA384][rtmr.MRTD]; other != nil && !bytes.Equal(other, c.opts.MRTD) {
		return fmt.Errorf("--mrtd is %x, and %s says %s", c.opts.MRTD, c.own.expect, other)
	}
	if launch != nil {
		c.opts.Expect.Set(rtmr.SHA384, rtmr.MRTD, c.opts.MRTD)
	}
	return nil
}

// ofTD reports whether register values are a TD's.
func ofTD(values rtmr.Values) bool {
	for register := range values[rtmr.SHA384] {
		if register == rtmr.MRTD || register.Kind() == rtmr.KindRTMR {
			return true
		}
	}
	return false
}

// requirements are those of --require.
func (f *evidenceFlags) requirements() (all []quote.Requirement, err error) {
	for _, text := range f.require {
		r, err := quote.ParseRequirement(text)
		if err != nil {
			return nil, fmt.Errorf("--require %w", err)
		}
		all = append(all, r)
	}
	return all, nil
}

// unexpected lists the registers that are not what the caller expects, and those that
// the quote does not carry.
func (r *verdictReport) unexpected() (out []string) {
	var other, absent []string
	for _, o := range r.Registers {
		if o.Unexpected() {
			other = append(other, o.Alg.String()+":"+o.Register.String())
		}
	}
	for _, alg := range slices.Sorted(maps.Keys(r.expected)) {
		for _, register := range slices.SortedFunc(maps.Keys(r.expected[alg]), rtmr.Register.Compare) {
			if !slices.ContainsFunc(r.Registers, func(o registerReport) bool { return o.Alg == alg && o.Register == register }) {
				absent = append(absent, alg.String()+":"+register.String())
			}
		}
	}
	switch names := strings.Join(other, ", "); len(other) {
	case 0:
	case 1:
		out = append(out, names+" is not what was expected of it")
	default:
		out = append(out, names+" are not what was expected of them")
	}
	if len(absent) > 0 {
		out = append(out, "the quote carries no "+strings.Join(absent, ", ")+", of which a value was expected")
	}
	return out
}
