package quote_test

import (
	"fmt"
	"time"

	"github.com/google/go-tdx-guest/testing/testdata"

	"tallystick/quote"
	"tallystick/rtmr"
)

// A TD quote that Intel's quoting enclave signed, without collateral: nothing
// says whether its platform is up to date, and all else is vouched for.
func ExampleOpen() {
	q, err := quote.Open(testdata.RawQuote, quote.Options{Time: time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(q.Kind, q.Version, "trusted:", q.Trusted())
	for _, l := range q.Links {
		fmt.Println(l.Name, l.Status)
	}
	fmt.Printf("rtmr0 %.8s..\n", q.Values[rtmr.SHA384][rtmr.MustParse("rtmr0")])
	// Output:
	// tdx 4 trusted: true
	// signature verified
	// chain verified
	// collateral not-checked
	// nonce not-checked
	// policy verified
	// rtmr0 2927da70..
}
