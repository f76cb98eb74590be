package rtmr_test

import (
	"testing"

	"tallystick/rtmr"
)

// TestTVMRegisters: a CoVE TVM has up to 8 initial and 18 runtime measurements
// (MAX_INITIAL_MEASUREMENT_REGISTERS and MAX_RUNTIME_MEASUREMENT_REGISTERS of the
// RISC-V CoVE specification, COVE Guest Get Attestation Capabilities).
func TestTVMRegisters(t *testing.T) {
	for name, want := range map[string]struct {
		kind   rtmr.Kind
		index  int
		static bool
	}{
		"tvm-initial0": {rtmr.KindTVMInitial, 0, true}, "tvm-initial7": {rtmr.KindTVMInitial, 7, true},
		"tvm-runtime0": {rtmr.KindTVMRuntime, 0, false}, "tvm-runtime17": {rtmr.KindTVMRuntime, 17, false},
	} {
		r, err := rtmr.ParseRegister(name)
		if err != nil || r.String() != name || r.Kind() != want.kind || r.Index() != want.index || r.Static() != want.static || r.Realm() != r {
			t.Errorf("%s: %s, %v, kind %d, index %d, static %t", name, r, err, r.Kind(), r.Index(), r.Static())
		}
	}
	for _, name := range []string{"tvm-initial8", "tvm-runtime18", "tvm-runtime01", "tvm-runtime", "tvm0", "runtime0"} {
		if r, err := rtmr.ParseRegister(name); err == nil {
			t.Errorf("%q was read as %s", name, r)
		}
	}
	order := []string{"mrtd", "pcr23", "rem3", "tvm-initial0", "tvm-initial7", "tvm-runtime0", "tvm-runtime17"}
	for i := 1; i < len(order); i++ {
		if rtmr.MustParse(order[i-1]).Compare(rtmr.MustParse(order[i])) >= 0 {
			t.Errorf("%s is not before %s", order[i-1], order[i])
		}
	}
}
