//go:build linux

// Labtpm is the guest's tool for its TPM. It writes JSON, a lab.Evidence.
//
//	labtpm quote --nonce HEX [--banks sha1,sha256] [--pcrs 0,1,2]
//
// reads the PCRs and the endorsement keys' certificates, makes two attestation
// keys, and quotes each bank, and all banks together, with each of them.
package main

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
)

// device is the kernel's resource manager, which keeps what this program leaves
// in the TPM apart from others'.
const device = "/dev/tpmrm0"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "labtpm:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 || args[0] != "quote" {
		return fmt.Errorf("usage: labtpm quote --nonce HEX [--banks sha1,sha256] [--pcrs 0,1,2]")
	}
	flags := flag.NewFlagSet("quote", flag.ContinueOnError)
	nonceText := flags.String("nonce", "", "at most 64 bytes, in hex")
	bankText := flags.String("banks", "sha1,sha256,sha384", "banks, with commas")
	pcrText := flags.String("pcrs", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "PCRs, with commas")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	nonce, err := hex.DecodeString(*nonceText)
	if err != nil {
		return fmt.Errorf("nonce: %w", err)
	}
	selected, err := parseSelection(*bankText, *pcrText)
	if err != nil {
		return err
	}
	tpm, err := linuxtpm.Open(device)
	if err != nil {
		return err
	}
	defer tpm.Close()
	evidence, err := collect(tpm, nonce, selected)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(evidence)
}

func parseSelection(banks, pcrs string) (s selection, err error) {
	for _, name := range strings.Split(banks, ",") {
		alg, ok := algorithms[name]
		if !ok {
			return s, fmt.Errorf("bank %q is not known", name)
		}
		s.banks = append(s.banks, bank{name, alg})
	}
	for _, text := range strings.Split(pcrs, ",") {
		pcr, err := strconv.ParseUint(text, 10, 5)
		if err != nil || pcr > 23 {
			return s, fmt.Errorf("PCR %q: expected 0 to 23", text)
		}
		s.pcrs = append(s.pcrs, uint(pcr))
	}
	return s, nil
}
