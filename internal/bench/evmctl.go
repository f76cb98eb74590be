package main

import (
	"fmt"
	"os"
	"os/exec"

	"tallystick/rtmr"
)

// evmctl holds the built command against ima-evm-utils' on the same list.
func (b *bench) evmctl() (section, error) {
	const entries = 100_000
	s := section{title: "IMA list of 100,000 entries, beside evmctl", text: `
` + "`evmctl ima_measurement --pcrs BANK,FILE --verify-bank=BANK LIST`" + ` and
` + "`tally replay --bank BANK LIST`" + ` on one SHA-1 list, as the kernel's default one
is, process start included. Both come to the same PCR 10: evmctl is given what
tally folded, and exits with 0. The result is how many times as fast tally is.`}
	evmctl, err := exec.LookPath("evmctl")
	if err != nil {
		s.skipped = append(s.skipped, "evmctl is not installed (Debian: ima-evm-utils)")
		return s, nil
	}
	list, err := b.list("list-sha1", rtmr.SHA1, entries)
	if err != nil {
		return s, err
	}
	for _, alg := range []rtmr.Alg{rtmr.SHA256, rtmr.SHA1} {
		value, err := foldList(list, alg, entries)
		if err != nil {
			return s, err
		}
		pcrs, err := b.file("pcrs-"+alg.String(), func(f *os.File) error { return writePCRs(f, value) })
		if err != nil {
			return s, err
		}
		times, err := race(b.rounds, []contender{
			{"evmctl", func() error {
				return exec.Command(evmctl, "ima_measurement", "--pcrs", alg.String()+","+pcrs, "--verify-bank="+alg.String(), list).Run()
			}},
			{"tally", func() error { return b.replay(alg, list, nil, value) }},
		})
		if err != nil {
			return s, err
		}
		s.rows = append(s.rows, atLeast(alg.String()+" bank", ratio(times[0], times[1]), 10))
	}
	return s, nil
}

// writePCRs writes a bank in evmctl's form: a line for each PCR, in order.
func writePCRs(f *os.File, pcr10 []byte) error {
	for i := range rtmr.NumPCRs {
		value := make([]byte, len(pcr10))
		if i == 10 {
			value = pcr10
		}
		if _, err := fmt.Fprintf(f, "PCR-%02d: % X\n", i, value); err != nil {
			return err
		}
	}
	return nil
}
