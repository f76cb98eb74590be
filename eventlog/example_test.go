package eventlog_test

import (
	"fmt"
	"log"
	"os"

	"tallystick/eventlog"
)

// A machine's boot log is read, and what went into PCR 7 is printed, with whether
// the event's data explain its digests.
func Example() {
	f, err := os.Open("../fixtures/sig-6.12/boot.bin")
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()

	r, err := eventlog.NewReader(f, eventlog.Options{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Format())
	for m, err := range r.Measurements() {
		if err != nil {
			log.Fatal(err)
		}
		if m.Register.String() != "pcr7" {
			continue
		}
		check, _ := m.Entry.Verify(m.Digests[0])
		fmt.Println(m.Index, m.Entry.Type(), m.Entry.Detail(), check)
	}
	// Output:
	// tcg2
	// 4 EV_EFI_VARIABLE_DRIVER_CONFIG EFI_GLOBAL-SecureBoot: disabled verified
	// 5 EV_EFI_VARIABLE_DRIVER_CONFIG EFI_GLOBAL-PK: empty verified
	// 6 EV_EFI_VARIABLE_DRIVER_CONFIG EFI_GLOBAL-KEK: empty verified
	// 7 EV_EFI_VARIABLE_DRIVER_CONFIG IMAGE_SECURITY_DATABASE-db: empty verified
	// 8 EV_EFI_VARIABLE_DRIVER_CONFIG IMAGE_SECURITY_DATABASE-dbx: empty verified
	// 9 EV_SEPARATOR 00000000 verified
}
