//go:build linux

package tpm_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"

	"tallystick/rtmr"
	"tallystick/rtmr/tpm"
)

// A measurement goes into PCR 23 in each of its banks, and a quote says so.
func Example() {
	d, err := tpm.Open(tpm.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	description := d.Describe()
	pcr23 := rtmr.MustParse("pcr23")
	info, ok := description.Register(pcr23)
	if !ok {
		log.Fatalf("%s keeps no pcr23", description.Name)
	}
	var digests []rtmr.Digest
	for _, a := range info.Banks {
		digests = append(digests, rtmr.Digest{Alg: a, Sum: a.AppendHash(nil, []byte("a measurement"))})
	}
	ctx := context.Background()
	if err := d.Extend(ctx, pcr23, digests); err != nil {
		log.Fatal(err)
	}

	key, err := d.PrimaryKey(ctx, tpm.ECC, tpm.Endorsement)
	if err != nil {
		log.Fatal(err)
	}
	defer key.Close()
	nonce := make([]byte, 32)
	rand.Read(nonce)
	q, err := d.Quote(ctx, key, nonce, nil, pcr23)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d bytes, signed in %d; pcr23 is %s\n", len(q.Attest), len(q.Signature), q.Values[rtmr.SHA256][pcr23])
}
