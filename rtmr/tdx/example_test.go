//go:build linux

package tdx_test

import (
	"context"
	"crypto/sha512"
	"log"
	"os"

	"tallystick/rtmr"
	"tallystick/rtmr/tdx"
)

// A measurement, and a quote that vouches for it.
func Example() {
	ctx := context.Background()
	d, err := tdx.Open(tdx.Options{})
	if err != nil {
		log.Fatal(err) // an *rtmr.NotSupportedError where this is no TD
	}
	sum := sha512.Sum384([]byte("what is measured"))
	if err := d.Extend(ctx, rtmr.MustParse("rtmr3"), []rtmr.Digest{{Alg: rtmr.SHA384, Sum: sum[:]}}); err != nil {
		log.Fatal(err)
	}
	quote, err := d.Quote(ctx, [64]byte{}) // the verifier's nonce
	if err != nil {
		log.Fatal(err)
	}
	os.Stdout.Write(quote)
}
