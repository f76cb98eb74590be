package rtmr_test

import (
	"fmt"

	"tallystick/rtmr"
)

// PCR 2 of a machine without option ROMs holds one event: the separator, which
// is the digest of four zero bytes.
func Example() {
	pcr2 := rtmr.MustParse("pcr2")
	value := pcr2.ResetValue(rtmr.SHA256)

	separator := rtmr.SHA256.AppendHash(nil, make([]byte, 4))
	rtmr.SHA256.Extend(value, separator)

	fmt.Println(pcr2, rtmr.Digest{Alg: rtmr.SHA256, Sum: value})
	// Output:
	// pcr2 sha256:3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969
}
