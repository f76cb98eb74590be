//go:build linux

// Labtpm is the guest's tool for its TPM.
//
//	labtpm quote --nonce HEX [--banks sha1,sha256] [--pcrs 0,1,2]
//
// writes JSON, a lab.Evidence: it reads the PCRs and the endorsement keys' certificates, makes two attestation
// keys, and quotes each bank, and all banks together, with each of them.
//
//	labtpm activate --key rsa --credential HEX --secret HEX
//
// gives back the secret that was encrypted to the RSA endorsement key and the
// name of an attestation key, in hex.
package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
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
	if len(args) > 0 {
		switch args[0] {
		case "quote":
			return runQuote(args[1:])
		case "activate":
			return runActivate(args[1:])
		}
	}
	return errors.New("usage: labtpm quote --nonce HEX [--banks sha1,sha256] [--pcrs 0,1,2] | labtpm activate --key rsa --credential HEX --secret HEX")
}

func runQuote(args []string) error {
	flags := flag.NewFlagSet("quote", flag.ContinueOnError)
	nonceText := flags.String("nonce", "", "at most 64 bytes, in hex")
	bankText := flags.String("banks", "sha1,sha256,sha384", "banks, with commas")
	pcrText := flags.String("pcrs", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "PCRs, with commas")
	if err := flags.Parse(args); err != nil {
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

func runActivate(args []string) error {
	flags := flag.NewFlagSet("activate", flag.ContinueOnError)
	key := flags.String("key", "rsa", "rsa or ecc, the attestation key")
	credential := flags.String("credential", "", "TPMS_ID_OBJECT, in hex")
	secret := flags.String("secret", "", "encrypted secret, in hex")
	if err := flags.Parse(args); err != nil {
		return err
	}
	id, err := hex.DecodeString(*credential)
	if err != nil {
		return fmt.Errorf("credential: %w", err)
	}
	encrypted, err := hex.DecodeString(*secret)
	if err != nil {
		return fmt.Errorf("secret: %w", err)
	}
	tpm, err := linuxtpm.Open(device)
	if err != nil {
		return err
	}
	defer tpm.Close()
	returned, err := activate(tpm, *key, id, encrypted)
	if err != nil {
		return err
	}
	fmt.Printf("%x\n", returned)
	return nil
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
