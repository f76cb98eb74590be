//go:build linux

package attester_test

import (
	"log"
	"os"

	"tallystick/bpf"
	"tallystick/bpf/attester"
	"tallystick/rtmr"
)

// Quote PCR 10 of the kernel's registers for a verifier's nonce, and write what
// tpm2_checkquote and tally take.
func Example() {
	a, err := attester.New(attester.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()
	registers, err := bpf.Open(bpf.Options{ReadOnly: true})
	if err != nil {
		log.Fatal(err)
	}
	defer registers.Close()

	snapshot, err := registers.Snapshot()
	if err != nil {
		log.Fatal(err)
	}
	pcr10 := rtmr.Selected{Alg: rtmr.SHA384, Register: rtmr.MustParse("pcr10")}
	q, err := a.Quote(snapshot.Values(), []rtmr.Selected{pcr10}, []byte("the verifier's nonce"))
	if err != nil {
		log.Fatal(err)
	}
	inblob := q.ReportData() // for /sys/kernel/config/tsm/report/NAME/inblob
	for name, data := range map[string][]byte{"attest": q.Attest, "signature": q.Signature, "public": q.Public, "inblob": inblob[:]} {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}
