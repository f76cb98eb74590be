package rtmr_test

import (
	"testing"

	"tallystick/rtmr"
	"tallystick/rtmr/devicetest"
)

func TestMemory(t *testing.T) {
	var pcrs []rtmr.Register
	for i := range rtmr.NumPCRs {
		r, _ := rtmr.PCR(i).Register()
		pcrs = append(pcrs, r)
	}
	for name, device := range map[string]*rtmr.Memory{
		"tpm": rtmr.NewMemory([]rtmr.Alg{rtmr.SHA384, rtmr.SHA1, rtmr.SHA256}, pcrs...),
		"tdx": rtmr.NewMemory([]rtmr.Alg{rtmr.SHA384}, rtmr.MRTD, rtmr.MustParse("rtmr2"), rtmr.MustParse("rtmr3")),
	} {
		t.Run(name, func(t *testing.T) { devicetest.Run(t, device) })
	}
}
