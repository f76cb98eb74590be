package imagen_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"tallystick/ima"
	"tallystick/internal/imagen"
	"tallystick/replay"
	"tallystick/rtmr"
)

var sha1List = ima.Layout{Alg: rtmr.SHA1, Order: binary.LittleEndian}

// evmctl, reading the list by its own lights, comes to the value that the
// fold does, and to no other.
func TestListAgreesWithEvmctl(t *testing.T) {
	evmctl, err := exec.LookPath("evmctl")
	if err != nil {
		t.Skip("evmctl is not installed")
	}
	const entries = 2000
	var list bytes.Buffer
	if err := imagen.Write(&list, sha1List, entries); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, list.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := ima.NewReader(&list, ima.Options{Banks: []rtmr.Alg{rtmr.SHA256}})
	if err != nil {
		t.Fatal(err)
	}
	f := replay.New(replay.Options{})
	if n, err := f.Log(r.Measurements()); n != entries || err != nil {
		t.Fatalf("%d entries, %v", n, err)
	}
	for _, v := range f.Registers() {
		verify := func(value []byte) error {
			pcrs := filepath.Join(t.TempDir(), "pcrs")
			if err := os.WriteFile(pcrs, pcrFile(value), 0o600); err != nil {
				t.Fatal(err)
			}
			return exec.Command(evmctl, "ima_measurement", "--pcrs", v.Alg.String()+","+pcrs, "--verify-bank="+v.Alg.String(), path).Run()
		}
		if err := verify(v.Value); err != nil {
			t.Errorf("%s: evmctl does not come to %s: %v", v.Alg, v.Value, err)
		}
		v.Value[0] ^= 1
		if verify(v.Value) == nil {
			t.Errorf("%s: evmctl accepts %s", v.Alg, v.Value)
		}
	}
}

// pcrFile is evmctl's form of a bank's values: a line for each PCR, in order.
func pcrFile(pcr10 []byte) (b []byte) {
	for i := range rtmr.NumPCRs {
		value := make([]byte, len(pcr10))
		if i == 10 {
			value = pcr10
		}
		b = fmt.Appendf(b, "PCR-%02d: % X\n", i, value)
	}
	return b
}
