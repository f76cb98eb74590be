package replay_test

import (
	"crypto/sha256"
	"errors"
	"iter"
	"testing"

	"tallystick/replay"
	"tallystick/rtmr"
)

var pcr0 = rtmr.MustParse("pcr0")

func one(reg rtmr.Register, b byte) rtmr.Measurement {
	sum := sha256.Sum256([]byte{b})
	return rtmr.Measurement{Register: reg, Digests: []rtmr.Digest{{Alg: rtmr.SHA256, Sum: sum[:]}}}
}

func log(ms ...rtmr.Measurement) iter.Seq2[rtmr.Measurement, error] {
	return func(yield func(rtmr.Measurement, error) bool) {
		for _, m := range ms {
			if !yield(m, nil) {
				return
			}
		}
	}
}

// by hand: H(start ‖ H(b)), the start's last byte being the locality.
func byHand(locality, b byte) string {
	var buf [64]byte
	buf[31] = locality
	sum := sha256.Sum256([]byte{b})
	copy(buf[32:], sum[:])
	value := sha256.Sum256(buf[:])
	return rtmr.Hex(value[:]).String()
}

func TestReplay(t *testing.T) {
	locality3 := rtmr.Measurement{Register: pcr0, NoAction: true, Locality: 3}
	hcrtm := one(pcr0, 1)
	hcrtm.Locality = 4
	noAction := one(pcr0, 9)
	noAction.NoAction = true
	pcr17 := rtmr.MustParse("pcr17")
	for _, tc := range []struct {
		name string
		log  iter.Seq2[rtmr.Measurement, error]
		reg  rtmr.Register
		want string
	}{
		{"startup_locality_3", log(locality3, one(pcr0, 1)), pcr0, byHand(3, 1)},
		{"startup_locality_too_late", log(one(pcr0, 1), locality3), pcr0, byHand(0, 1)},
		{"hcrtm_starts_at_4", log(hcrtm), pcr0, byHand(4, 1)},
		{"no_action_anywhere_extends_nothing", log(noAction, one(pcr0, 1), noAction), pcr0, byHand(0, 1)},
		{"drtm_register_with_events_starts_at_zeros", log(one(pcr17, 1)), pcr17, byHand(0, 1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := replay.New(replay.Options{})
			if _, err := f.Log(tc.log); err != nil {
				t.Fatal(err)
			}
			if got := f.Values()[rtmr.SHA256][tc.reg].String(); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestInto(t *testing.T) {
	for want, kind := range map[string]rtmr.Kind{"pcr10": rtmr.KindNone, "rtmr2": rtmr.KindRTMR, "rem2": rtmr.KindREM} {
		f := replay.New(replay.Options{Into: kind})
		f.Log(log(one(rtmr.MustParse("pcr10"), 1)))
		if got := f.Values()[rtmr.SHA256][rtmr.MustParse(want)].String(); got != byHand(0, 1) {
			t.Errorf("%s is %s", want, got)
		}
	}
}

func TestLogErrorKeepsPrefix(t *testing.T) {
	fault := errors.New("fault")
	f := replay.New(replay.Options{})
	n, err := f.Log(func(yield func(rtmr.Measurement, error) bool) {
		_ = yield(one(pcr0, 1), nil) && yield(rtmr.Measurement{}, fault)
	})
	if n != 1 || !errors.Is(err, fault) {
		t.Errorf("%d events, error %v", n, err)
	}
	if got := f.Values()[rtmr.SHA256][pcr0].String(); got != byHand(0, 1) {
		t.Errorf("pcr0 is %s", got)
	}
}

func TestUnknownAlgorithmIsCarried(t *testing.T) {
	m := one(pcr0, 1)
	m.Digests = append(m.Digests, rtmr.Digest{Alg: rtmr.SM3, Sum: make([]byte, 32)})
	f := replay.New(replay.Options{})
	if _, err := f.Log(log(m)); err != nil {
		t.Fatal(err)
	}
	if len(f.Warnings()) != 1 || f.Values()[rtmr.SHA256][pcr0].String() != byHand(0, 1) {
		t.Errorf("%v %v", f.Warnings(), f.Values())
	}
}
