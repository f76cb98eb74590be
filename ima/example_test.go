package ima_test

import (
	"fmt"
	"log"
	"os"

	"tallystick/ima"
	"tallystick/rtmr"
)

// A SHA-1 list is read with the digests that its entries extended in the SHA-256
// bank, recomputed from the template data.
func Example() {
	f, err := os.Open("../fixtures/ngv2-verity-6.12/ima.bin")
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()

	r, err := ima.NewReader(f, ima.Options{Banks: []rtmr.Alg{rtmr.SHA256}})
	if err != nil {
		log.Fatal(err)
	}
	for m, err := range r.Measurements() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Register, m.Entry.Type(), m.Entry.Detail())
		for _, d := range m.Digests {
			check, _ := m.Entry.Verify(d)
			fmt.Println(" ", d, check)
		}
		if m.Index == 1 {
			break
		}
	}
	// Output:
	// pcr10 ima-ngv2 ima:sha256:92b66e8411a3eb8f164dac4eaed34f17ff1c7f1e888ef7e7ce09b21de839d780 boot_aggregate
	//   sha1:85c72ea7e487d872b59503d746586569e03dfee4 verified
	//   sha256:9d523fcd906a4ca1c11eed35fa43413da89164b71d7e877d6ac015104aa76a01 verified
	// pcr10 ima-ngv2 ima:sha256:55b89ab22bee4792a210f493a53fb066accd5d30b69837c28d98be5ff863efcf /mnt/usr/bin/bash
	//   sha1:91447401427fca730579ac8578697c54b835cfcb verified
	//   sha256:818216c37d23cb801f687df81387695d147ecfda97a8dba623ebb263968d5ed5 verified
}
