package main

import (
	"fmt"
	"os"
	"os/exec"

	"tallystick/rtmr"
)

// evmctl holds the built command against ima-evm-utils' on the same list.
func (b *bench) evmctl() (section, error) {
	s := section{title: "IMA list, beside evmctl", text: fmt.Sprintf(`
`+"`evmctl ima_measurement --pcrs BANK,FILE --verify-bank=BANK LIST`"+` and
`+"`tally replay --bank BANK LIST`"+` on one list of %d entries, process start
included. Both come to the same PCR 10: evmctl is given what tally folded, and
exits with 0. The result is how many times as fast tally is.

The list is a SHA-1 list, the only kind that evmctl reads. In its own bank each
entry is hashed once to verify it; for the SHA-256 bank it is hashed in SHA-1 to
verify it and in SHA-256 besides. evmctl makes both banks whichever is asked
for: under `+"`valgrind --tool=callgrind`"+` it takes as many instructions for one as
for the other. So the last row, where tally folds both, is equal work.`, b.peerList)}
	evmctl, err := exec.LookPath("evmctl")
	if err != nil {
		s.skipped = append(s.skipped, "evmctl is not installed (Debian: ima-evm-utils)")
		return s, nil
	}
	list, err := b.writeList("list-sha1", rtmr.SHA1, b.peerList)
	if err != nil {
		return s, err
	}
	for _, c := range []struct {
		alg   rtmr.Alg // that is compared with
		banks string   // that tally folds
	}{{rtmr.SHA1, "sha1"}, {rtmr.SHA256, "sha256"}, {rtmr.SHA256, "sha1,sha256"}} {
		alg := c.alg
		value, err := foldList(list, alg, b.peerList)
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
			{"tally", func() error { return b.replay(c.banks, list, nil, value) }},
		})
		if err != nil {
			return s, err
		}
		r := ratio(times[0], times[1])
		if name := "`--bank " + c.banks + "`"; alg == rtmr.SHA1 {
			s.rows = append(s.rows, atLeast(name, r, 10))
		} else {
			s.rows = append(s.rows, shown(name, r))
		}
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
