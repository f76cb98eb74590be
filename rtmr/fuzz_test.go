package rtmr_test

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"tallystick/internal/readertest"
	"tallystick/rtmr"
)

// FuzzParseAlg: every algorithm has one name that String writes, and whatever
// else ParseAlg reads is a spelling of such a name.
func FuzzParseAlg(f *testing.F) {
	for i, s := range []string{"sha256", "SHA-384", "sm3-256", "sm3", "SHA3_512", "alg_0x0014", "ALG_0xB", "alg_0x00010000", ""} {
		f.Add(s, uint16(i))
	}
	f.Fuzz(func(t *testing.T, s string, id uint16) {
		if a, err := rtmr.ParseAlg(s); err == nil {
			if again, err := rtmr.ParseAlg(a.String()); err != nil || again != a {
				t.Errorf("%q is %s, which is %s, %v", s, a, again, err)
			}
		}
		a := rtmr.Alg(id)
		if got, err := rtmr.ParseAlg(a.String()); err != nil || got != a {
			t.Errorf("%s is read as %s, %v", a, got, err)
		}
		if a.Available() && len(a.AppendHash(nil, []byte(s))) != a.Size() {
			t.Errorf("%s: a hash that is not of %d bytes", a, a.Size())
		}
	})
}

// FuzzParseRegister: a register has one spelling, in any text form.
func FuzzParseRegister(f *testing.F) {
	for _, s := range []string{"pcr0", "pcr23", "pcr24", "rtmr3", "rem0", "mrtd", "rim", "pcr01", "pcr+1", "PCR1", "pcr1x", "pcr٣", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := rtmr.ParseRegister(s)
		if err != nil {
			return
		}
		if r.String() != s || r.IsZero() {
			t.Errorf("%q is read as %s", s, r)
		}
	})
}

// FuzzValues: values that are read are written and read the same.
func FuzzValues(f *testing.F) {
	f.Add([]byte(`{"sha256":{"pcr0":"00"},"sha1":{"rtmr3":"0102"}}`))
	f.Add([]byte(`{"SHA-256":{"mrtd":""},"alg_0x7777":{"rim":"ff"}}`))
	f.Add([]byte(`{"sha256":null}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var v, again rtmr.Values
		if json.Unmarshal(in, &v) != nil {
			return
		}
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &again); err != nil || !reflect.DeepEqual(again, v) {
			t.Errorf("%s\nread and written is %s\nwhich is %v, %v", in, out, again, err)
		}
		if v.Validate() != nil {
			return
		}
		for alg, bank := range v {
			for r, value := range bank {
				if alg.Size() != 0 && len(value) != alg.Size() {
					t.Errorf("%s %s: valid with %d bytes", alg, r, len(value))
				}
			}
		}
	})
}

// FuzzEscape: the text is one printable line, and says what it was made of.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"/usr/bin/true", "a\nb\x1b[31m", "\xff\xfe", "na\u00efve", "\u202egnp.exe", `back\slash "quoted"`, "real \uFFFD, false \xef\xbf", "\x7f\u0085"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		escaped := rtmr.Escape(s)
		readertest.CheckLine(t, escaped, len(s))
		if got, err := strconv.Unquote(`"` + strings.ReplaceAll(escaped, `"`, `\"`) + `"`); err != nil || got != s {
			t.Errorf("%q is escaped as %s, which says %q, %v", s, escaped, got, err)
		}
	})
}
