package quote_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"tallystick/quote"
	"tallystick/rtmr"
)

// sevLaunch is a launch measurement with all that it is by and over.
type sevLaunch struct {
	blob, tik, launch string // hexadecimal
	major, minor      uint8
	build             uint8
	policy            uint32
}

// sevLaunches are measurements that others computed: the first is in the tests of the
// crate sev of the virtee project; openssl made the others' MACs, and libvirt's
// virt-qemu-sev-validate accepts them for a firmware whose SHA-256 the launch digest is.
var sevLaunches = map[string]sevLaunch{
	"virtee": {
		"6faab2daae389bcd3405a05d6cafe33c0414f7bedd0bae19ba5f38b7fd1664ea4fbe0bedbad6c86ae8f68971d103e554", "66320db73158a35a255d051758e95ed4",
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0, 0x12, 0x0f, 0,
	},
	"libvirt": {
		"67e7ee56af8e5ac0121b3b70ad6ad4ff59cf687c2cbc25ad9bf5f6b04f645072000102030405060708090a0b0c0d0e0f", "30313233343536373839616263646566",
		"d67e5f54e5845e07fecd0582828d5b0dc8f55be0529d7bec66923a2c44ceb037", 1, 55, 24, 0x23,
	},
	"libvirt_policy_3": {
		"4e3ac3da7cde647d35324581d2bfed8cbd880b59677dd53dbae638e91876326a000102030405060708090a0b0c0d0e0f", "30313233343536373839616263646566",
		"d67e5f54e5845e07fecd0582828d5b0dc8f55be0529d7bec66923a2c44ceb037", 1, 55, 24, 3,
	},
}

func (l sevLaunch) options() quote.Options {
	return quote.Options{
		TIK: unhex(l.tik), Expect: rtmr.Values{rtmr.SHA256: {rtmr.Launch: unhex(l.launch)}},
		SEVGuest: quote.SEVGuest{SEVAPI: &quote.SEVAPI{Major: l.major, Minor: l.minor}, SEVBuild: &l.build, SEVPolicy: &l.policy},
	}
}

// TestSEV: measurements of others verify, and what they are of becomes a register.
func TestSEV(t *testing.T) {
	for name, l := range sevLaunches {
		blob := unhex(l.blob)
		for form, data := range map[string][]byte{
			"binary": blob, "base64": []byte(base64.StdEncoding.EncodeToString(blob) + "\n"), "hexadecimal": []byte(l.blob),
		} {
			q := open(t, data, l.options())
			status(t, q, quote.Signature, quote.Verified, "HMAC-SHA-256 by the TIK over the launch digest "+l.launch)
			if got := q.Launch()[rtmr.SHA256][rtmr.Launch]; q.Kind != quote.SEV || got.String() != l.launch {
				t.Errorf("%s as %s: %s, launch %s", name, form, q.Kind, got)
			}
			status(t, q, quote.Chain, quote.NotChecked, "taken as it is")
			if q.Trusted() != (l.policy == 0x23) {
				t.Errorf("%s: trusted is %t: %v", name, q.Trusted(), q.Links)
			}
		}
		for _, tik := range [][]byte{[]byte(l.tik + "\n"), []byte(base64.StdEncoding.EncodeToString(unhex(l.tik)))} {
			o := l.options()
			o.TIK = tik
			status(t, open(t, blob, o), quote.Signature, quote.Verified, "")
		}
	}
}

// TestSEVForged: each byte of the measurement, and each of the parts that the MAC is
// by or over.
func TestSEVForged(t *testing.T) {
	l := sevLaunches["libvirt"]
	for i := range 48 {
		q := open(t, flip(unhex(l.blob), i), l.options())
		if status(t, q, quote.Signature, quote.Failed, "one of them is another"); q.Trusted() || q.Values != nil {
			t.Errorf("byte %d: %v, values %v", i, q.Links, q.Values)
		}
	}
	for name, c := range map[string]struct {
		edit func(o *quote.Options)
		want quote.Status
		says string
	}{
		"tik":         {func(o *quote.Options) { o.TIK = flip(o.TIK, 3) }, quote.Failed, "not by this TIK"},
		"launch":      {func(o *quote.Options) { o.Expect = rtmr.Values{rtmr.SHA256: {rtmr.Launch: make(rtmr.Hex, 32)}} }, quote.Failed, "launch digest 0000"},
		"api":         {func(o *quote.Options) { o.SEVAPI = &quote.SEVAPI{Major: 1, Minor: 54} }, quote.Failed, "API 1.54"},
		"api_major":   {func(o *quote.Options) { o.SEVAPI = &quote.SEVAPI{Major: 0, Minor: 55} }, quote.Failed, "API 0.55"},
		"build":       {func(o *quote.Options) { o.SEVBuild = addressOf(uint8(25)) }, quote.Failed, "build 25"},
		"policy":      {func(o *quote.Options) { o.SEVPolicy = addressOf(uint32(0x27)) }, quote.Failed, "policy 0x27"},
		"high_policy": {func(o *quote.Options) { o.SEVPolicy = addressOf(uint32(0x80000023)) }, quote.Failed, "policy 0x80000023"},
		"no_launch":   {func(o *quote.Options) { o.Expect = nil }, quote.Missing, "the launch digest (--expect, as sha256 launch)"},
		"sha384":      {func(o *quote.Options) { o.Expect = rtmr.Values{rtmr.SHA384: {rtmr.Launch: make(rtmr.Hex, 48)}} }, quote.Missing, "the launch digest"},
		"short":       {func(o *quote.Options) { o.Expect = rtmr.Values{rtmr.SHA256: {rtmr.Launch: make(rtmr.Hex, 31)}} }, quote.Failed, "has 31 bytes"},
		"no_api":      {func(o *quote.Options) { o.SEVAPI = nil }, quote.Missing, "API version (--sev-api)"},
		"no_build":    {func(o *quote.Options) { o.SEVBuild = nil }, quote.Missing, "build (--sev-build)"},
		"no_policy":   {func(o *quote.Options) { o.SEVPolicy = nil }, quote.Missing, "policy (--sev-policy)"},
	} {
		o := l.options()
		c.edit(&o)
		q := open(t, unhex(l.blob), o)
		if status(t, q, quote.Signature, c.want, c.says); q.Trusted() || q.Values != nil {
			t.Errorf("%s: trusted is %t, values %v", name, q.Trusted(), q.Values)
		}
		o.SkipSignature = true
		if q := open(t, unhex(l.blob), o); q.Values != nil {
			t.Errorf("%s: values %v of a MAC that was skipped", name, q.Values)
		}
	}
}

// TestSEVPolicy: what a guest's own policy lets its host do, and its fields.
func TestSEVPolicy(t *testing.T) {
	l := sevLaunches["libvirt"]
	for policy, want := range map[uint32]string{
		0x22: "debugging (NODBG is 0)", 0x21: "another guest with this one's key (NOKS is 0)", 0x03: "to whoever has a key", 0x07: "to whoever has a key", 0: "debugging (NODBG is 0)",
		0x23: "", 0x0b: "", 0x13: "", 0x2f: "", 0x80010027: "",
	} {
		o := l.options()
		o.SEVPolicy = &policy
		q := open(t, unhex(l.blob), o)
		if want != "" {
			status(t, q, quote.Policy, quote.Failed, want)
		} else {
			status(t, q, quote.Policy, quote.Verified, "")
		}
		if es := policy&4 != 0; es != (len(q.Warnings) == 0) {
			t.Errorf("%#x: %q", policy, q.Warnings)
		}
	}
	o := l.options()
	o.SEVPolicy = addressOf(uint32(0x37010025))
	q := open(t, unhex(l.blob), o)
	for name, want := range map[string]string{
		"POLICY": "0x37010025", "POLICY.NODBG": "1", "POLICY.NOKS": "0", "POLICY.ES": "1", "POLICY.NOSEND": "0", "POLICY.DOMAIN": "0", "POLICY.SEV": "1",
		"POLICY.API_MAJOR": "1", "POLICY.API_MINOR": "55", "API_MAJOR": "1", "API_MINOR": "55", "BUILD": "24", "MNONCE": l.blob[64:], "MEASURE": l.blob[:64],
	} {
		if got := factNamed(q, name); got != want {
			t.Errorf("%s is %q, expected %q", name, got, want)
		}
	}
	o.SEVPolicy = nil
	status(t, open(t, unhex(l.blob), o), quote.Policy, quote.Missing, "no policy was given")
}

// TestSEVNonce: a verifier's nonce is nowhere.
func TestSEVNonce(t *testing.T) {
	l := sevLaunches["libvirt"]
	o := l.options()
	status(t, open(t, unhex(l.blob), o), quote.Nonce, quote.NotChecked, "")
	o.Nonce = unhex(l.blob[64:])
	if q := open(t, unhex(l.blob), o); q.Trusted() {
		t.Errorf("%v", q.Links)
	}
}

// TestSEVText: what QEMU's monitor and libvirt print, and what of it may be wrong.
func TestSEVText(t *testing.T) {
	l := sevLaunches["libvirt"]
	b64 := base64.StdEncoding.EncodeToString(unhex(l.blob))
	qemu := `{"return": {"enabled": true, "api-minor": 55, "handle": 1, "state": "launch-secret", "api-major": 1, "sev-type": "sev", "build-id": 24, "policy": 35}}`
	virsh := "sev-measurement: " + b64 + "\nsev-api-major  : 1\nsev-api-minor  : 55\nsev-build-id   : 24\nsev-policy     : 35\n\n"
	for name, c := range map[string]struct {
		text  string
		guest bool // states the firmware and the policy
	}{
		"measurement alone":      {`{"data": "` + b64 + `"}`, false},
		"a monitor's answer":     {`{"return": {"data": "` + b64 + `"}, "id": "1"}`, false},
		"both answers":           {`{"return":{"data":"` + b64 + `"}}` + "\n" + qemu, true},
		"a monitor's transcript": {`{"QMP": {"version": {}}}` + "\n" + `{"return": {}}` + qemu + `{"timestamp": {}, "event": "RESUME"}{"return":{"data":"` + b64 + `"}}`, true},
		"libvirt's JSON":         {`{"sev-measurement":"` + b64 + `","sev-api-major":1,"sev-api-minor":55,"sev-build-id":24,"sev-policy":35}`, true},
		"virsh":                  {virsh, true},
		"policy in hexadecimal":  {strings.Replace(virsh, ": 35", ": 0x23", 1), true},
	} {
		o := l.options()
		if c.guest {
			o.SEVGuest = quote.SEVGuest{}
		}
		q := open(t, []byte(c.text), o)
		if q.Kind != quote.SEV || !q.Trusted() {
			t.Errorf("%s: %s, %v", name, q.Kind, q.Links)
		}
		o.TIK = nil // recognised without
		q = open(t, []byte(c.text), o)
		status(t, q, quote.Signature, quote.Missing, "the TIK (--tik)")
		status(t, q, quote.Chain, quote.Missing, "no TIK")
		if c.guest {
			o.SEVPolicy = addressOf(uint32(7))
			if _, err := quote.Open([]byte(c.text), o); err == nil || !strings.Contains(err.Error(), "--sev-policy is 0x7, and the evidence states policy 0x23") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for text, says := range map[string]string{
		strings.Replace(virsh, ": 35", ": many", 1):                           `the policy: "many", expected a number of 32 bits`,
		strings.Replace(virsh, ": 24", ": 256", 1):                            `the build: "256", expected a number of 8 bits`,
		strings.Replace(virsh, b64, b64[:60], 1):                              "the measurement: ",
		virsh + "sev-policy: 7\n":                                             `sev-policy: "7", and it was "35" before`,
		`{"return":{"sev-measurement":"` + b64 + `","policy":1,"policy":3}}`:  `policy: "3", and it was "1" before`,
		`{"sev-measurement":"` + b64 + `"}]`:                                  "offset",
		`{"sev-measurement":"AAAA"}`:                                          `the measurement: "AAAA", expected 48 bytes in base64`,
		`{"sev-measurement":"` + b64 + `"`:                                    "the JSON ends early",
		`{"sev-measurement":"` + b64 + `","sev-api-major":-1}`:                `the API major version: "-1"`,
		`{"sev-measurement":"` + b64 + `"}{"sev-measurement":"` + b64 + `x"}`: "before",
		`{"sev-measurement":"` + b64 + `","sev-policy":4294967296}`:           `the policy: "4294967296"`,
		strings.Replace(virsh, "sev-api-minor  : 55", "sev-api-minor  : ", 1): `the API minor version: ""`,
	} {
		if q, err := quote.Open([]byte(text), quote.Options{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v, expected %s", text, q, err, says)
		}
	}
}

// TestSEVRecognised: 48 bytes are a launch measurement where a TIK was given, and
// nothing else is taken for one.
func TestSEVRecognised(t *testing.T) {
	l := sevLaunches["libvirt"]
	if _, err := quote.Open(unhex(l.blob), quote.Options{}); !errors.Is(err, quote.ErrUnsupported) {
		t.Error(err)
	}
	for _, data := range [][]byte{unhex(l.blob)[:47], append(unhex(l.blob), 0), tdReport(0), []byte(`{"data":"AAAA"}`), []byte(`{"sha256":{"pcr0":"00"}}`)} {
		if q, err := quote.Open(data, quote.Options{TIK: unhex(l.tik)}); err == nil {
			t.Errorf("%.8x: %s", data, q.Kind)
		}
	}
	o := l.options()
	o.TIK = []byte("no key")
	if _, err := quote.Open(unhex(l.blob), quote.Options{TIK: o.TIK}); err == nil || !strings.Contains(err.Error(), "the TIK: 6 bytes, expected 16") {
		t.Error(err)
	}
	o = l.options()
	o.EKRoots = []byte{1}
	if _, err := quote.Open(unhex(l.blob), o); err == nil || !strings.Contains(err.Error(), "--ek-roots was given, and an SEV launch measurement is not held against it") {
		t.Error(err)
	}
}

// FuzzSEV: whatever measurement, key and digest, what is trusted was MACed, and has
// the digest that was expected; text and binary are read alike.
func FuzzSEV(f *testing.F) {
	for _, l := range sevLaunches {
		f.Add(unhex(l.blob), unhex(l.tik), unhex(l.launch))
		f.Add([]byte(`{"return":{"data":"`+base64.StdEncoding.EncodeToString(unhex(l.blob))+`","api-major":1,"api-minor":55,"build-id":24,"policy":35}}`), []byte(l.tik), unhex(l.launch))
		f.Add([]byte("sev-measurement: "+base64.StdEncoding.EncodeToString(unhex(l.blob))+"\nsev-policy: 35\n"), unhex(l.tik), unhex(l.launch))
	}
	l := sevLaunches["libvirt"]
	f.Fuzz(func(t *testing.T, data, tik, launch []byte) {
		o := l.options()
		o.TIK, o.Expect = tik, rtmr.Values{rtmr.SHA256: {rtmr.Launch: launch}}
		q, err := quote.Open(data, o)
		if err != nil || q.Kind != quote.SEV {
			return
		}
		checkLines(t, q)
		m, err := quote.ParseSEV(data)
		if err != nil || len(m.Measure) != 32 || len(m.MNonce) != 16 {
			t.Fatalf("%+v, %v", m, err)
		}
		key := bytes.Equal(tik, unhex(l.tik)) || bytes.Contains(tik, []byte(l.tik)) || len(tik) != 16
		if q.Trusted() && (!key || !bytes.Equal(m.Measure, unhex(l.blob)[:32]) || hex.EncodeToString(launch) != l.launch) {
			t.Errorf("trusted: %v", q.Links)
		}
	})
}
