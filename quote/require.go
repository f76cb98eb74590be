package quote

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Requirement is what a verifier wants a field of the evidence to be, beside what
// the evidence has to be for its own sake.
type Requirement struct {
	Field    string // a Fact's name, as the specification spells it: POLICY.SMT
	Operator string // "=", ">=" or "<="
	Value    string
}

var (
	requirementText = regexp.MustCompile(`^([^=<>!\s]+)(=|>=|<=)([^\s=<>].*)$`)
	hexText         = regexp.MustCompile(`^(0x)?[[:xdigit:]]+$`)
)

// ParseRequirement reads FIELD=VALUE, FIELD>=NUMBER or FIELD<=NUMBER. A value is written
// as the report writes the field's.
func ParseRequirement(text string) (Requirement, error) {
	m := requirementText.FindStringSubmatch(text)
	if m == nil {
		return Requirement{}, fmt.Errorf("%s, expected FIELD=VALUE, FIELD>=NUMBER or FIELD<=NUMBER", quoted(text))
	}
	r := Requirement{m[1], m[2], m[3]}
	if _, ok := number(r.Value); !ok && (r.Operator != "=" || is0x(r.Value) && !hexText.MatchString(r.Value)) {
		return Requirement{}, fmt.Errorf("%s: %s is no number, expected decimal digits, or 0x and hexadecimal ones", quoted(text), quoted(r.Value))
	}
	return r, nil
}

func (r Requirement) String() string { return r.Field + r.Operator + r.Value }

// Require holds the evidence, and the report inside it, against requirements, and
// adds a link of the name Required for each. A field that stands in both has to meet
// it in both; one that stands in neither is Missing.
func (q *Quote) Require(requirements ...Requirement) {
	for _, r := range requirements {
		q.Links = append(q.Links, r.check(q))
	}
}

func (r Requirement) check(q *Quote) Link {
	link := Link{Required, Missing, fmt.Sprintf("%s: the evidence has no field %s", r, r.Field)}
	for at := q; at != nil; at = at.Inside {
		for _, f := range at.Facts {
			if f.Name != r.Field {
				continue
			}
			met, err := r.met(f.Value)
			switch {
			case err != nil:
				return Link{Required, Failed, fmt.Sprintf("%s: %v", r, err)}
			case !met:
				return Link{Required, Failed, fmt.Sprintf("%s: %s is %s", r, r.Field, f.Value)}
			}
			link = Link{Required, Verified, fmt.Sprintf("%s: %s is %s", r, r.Field, f.Value)}
		}
	}
	return link
}

// met holds the field's value against the wanted one. To be equal they have to be written
// in the same notation: bytes in hexadecimal have no 0x, and could be decimal digits.
func (r Requirement) met(value string) (bool, error) {
	have, isNumber := number(value)
	want, wantsNumber := number(r.Value)
	switch {
	case r.Operator == "=" && isNumber && wantsNumber && is0x(value) && is0x(r.Value):
		return have == want, nil
	case r.Operator == "=":
		return value == r.Value || hexText.MatchString(value) && strings.EqualFold(value, r.Value), nil
	case !isNumber:
		return false, fmt.Errorf("%s is %s, which is no number", r.Field, value)
	}
	return slices.Contains([]int{0, map[string]int{">=": 1, "<=": -1}[r.Operator]}, cmp.Compare(have, want)), nil
}

func is0x(text string) bool { return strings.HasPrefix(text, "0x") }

// number reads decimal digits, or hexadecimal ones behind 0x. Digits alone that begin
// with 0, or are more than 32 bits have, are bytes in hexadecimal.
func number(text string) (uint64, bool) {
	if digits, ok := strings.CutPrefix(text, "0x"); ok {
		n, err := strconv.ParseUint(digits, 16, 64)
		return n, err == nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	return n, err == nil && strconv.FormatUint(n, 10) == text
}
