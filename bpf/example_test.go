//go:build linux

package bpf_test

import (
	"fmt"
	"log"

	"tallystick/bpf"
	"tallystick/rtmr"
)

// Extend PCR 10 by the digests of one event, and read it back.
func Example() {
	registers, err := bpf.Open(bpf.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer registers.Close()

	event := []byte("the event")
	var digests []rtmr.Digest
	for _, alg := range bpf.Banks {
		digests = append(digests, rtmr.Digest{Alg: alg, Sum: alg.AppendHash(nil, event)})
	}
	pcr10 := rtmr.MustParse("pcr10")
	if err := registers.Extend(pcr10, digests); err != nil {
		log.Fatal(err)
	}
	snapshot, err := registers.Read()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(pcr10, snapshot.Value(pcr10, rtmr.SHA384))
}
