package cel_test

import (
	"fmt"
	"log"
	"os"
	"strings"

	"tallystick/eventlog/cel"
)

// A systemd log is read, and its entries are checked and written as one JSON
// record a line.
func Example() {
	const measured = "\x1e" + `{"pcr":11,"digests":[{"hashAlg":"sha256","digest":"51e6b92f405d1f98d96e3de343d61d420ad6923b25de21d766f9298192f14fed"}],` +
		`"content_type":"systemd","content":{"string":"enter-initrd","bootId":"0d8b1c1a2b3c4d5e8f90a1b2c3d4e5f6","timestamp":2345678,"eventType":"phase"}}` + "\n"

	format, ok := cel.Detect([]byte(measured))
	if !ok {
		log.Fatal("no canonical event log")
	}
	fmt.Println(format)

	w := cel.NewWriter(os.Stdout, cel.JSONLines)
	for m, err := range cel.NewReader(strings.NewReader(measured), format).Measurements() {
		if err != nil {
			log.Fatal(err)
		}
		check, _ := m.Entry.Verify(m.Digests[0])
		fmt.Println(m.Register, m.Entry.Type(), m.Entry.Detail(), check)
		if err := w.Write(m); err != nil {
			log.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// systemd
	// pcr11 systemd:phase enter-initrd verified
	// {"recnum":0,"pcr":11,"digests":[{"hashAlg":"sha256","digest":"51e6b92f405d1f98d96e3de343d61d420ad6923b25de21d766f9298192f14fed"}],"content_type":"systemd","content":{"string":"enter-initrd","bootId":"0d8b1c1a2b3c4d5e8f90a1b2c3d4e5f6","timestamp":2345678,"eventType":"phase"}}
}
