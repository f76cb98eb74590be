package evidence_test

import (
	"fmt"
	"log"

	"tallystick/evidence"
	"tallystick/rtmr"
)

// A guest without a quote says what its registers hold, and sends its journal.
func Example() {
	pcr10 := rtmr.MustParse("pcr10")
	bundle := &evidence.Bundle{
		Values:  rtmr.Values{rtmr.SHA256: {pcr10: make([]byte, 32)}},
		Journal: []byte("a canonical event log"),
		Statement: evidence.Statement{
			Helper: "tallyd 0.1",
			Logs:   []evidence.LogRole{{Item: evidence.ItemJournal, Role: evidence.Folded}},
		},
	}
	data, err := bundle.Marshal()
	if err != nil {
		log.Fatal(err)
	}

	received, err := evidence.Read(data)
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range received.Logs() {
		fmt.Printf("%s is %s: %d bytes\n", l.Item, l.Role, len(l.Data))
	}
	// Output:
	// cel-journal is folded: 21 bytes
}
