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
	// pcr10 ima-ngv2 ima:sha256:64f10cd6855f5ed8936318dc95ffa8b238d51bf211703c8a532bcc5235fba896 boot_aggregate
	//   sha1:6cc5c45c70b326e6b4a171c4268552af1e9beaec verified
	//   sha256:cd219739da1b5009b38410504f940c70f4bab745f307415193192b39c2688a07 verified
	// pcr10 ima-ngv2 ima:sha256:b070a035e5b1fc646b225ca74cf0aed91ab68697fe1183a91fbc6feea42fd3b2 /lab/bin/labwork
	//   sha1:c85c79c134ba660f10e51bda7477732fd51a507e verified
	//   sha256:2064ce2c7cc2ecc9e06c503bd13ba750466ec2bdcdab23095aa080b3c493d266 verified
}
