//go:build linux

package bpf_test

import (
	"context"
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
	if err := registers.Extend(context.Background(), pcr10, digests); err != nil {
		log.Fatal(err)
	}
	values, err := registers.Read(context.Background(), pcr10)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(pcr10, values[rtmr.SHA384][pcr10])
}
