//go:build linux

// Labtpm is the guest's tool for its TPM.
//
//	labtpm quote --nonce HEX [--banks sha1,sha256] [--pcrs 0,1,2]
//
// writes JSON, a lab.Evidence: the PCRs, the endorsement keys' certificates, and
// quotes of each bank, and of all banks together, by each of two attestation keys.
//
//	labtpm activate --key rsa --credential HEX --secret HEX
//
// gives back the secret that was encrypted to the RSA endorsement key and the
// name of an attestation key, in hex.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"tallystick/rtmr"
	"tallystick/rtmr/tpm"
)

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
	banks, pcrs, err := parseSelection(*bankText, *pcrText)
	if err != nil {
		return err
	}
	d, err := tpm.Open(tpm.Options{})
	if err != nil {
		return err
	}
	defer d.Close()
	evidence, err := collect(context.Background(), d, nonce, banks, pcrs)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(evidence)
}

func runActivate(args []string) error {
	flags := flag.NewFlagSet("activate", flag.ContinueOnError)
	keyName := flags.String("key", "rsa", "rsa or ecc, the attestation key")
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
	keyType, ok := keyTypes[*keyName]
	if !ok {
		return fmt.Errorf("key %q: expected rsa or ecc", *keyName)
	}
	d, err := tpm.Open(tpm.Options{})
	if err != nil {
		return err
	}
	defer d.Close()
	ctx := context.Background()
	key, err := d.PrimaryKey(ctx, keyType, tpm.Endorsement)
	if err != nil {
		return err
	}
	defer key.Close()
	returned, err := d.Activate(ctx, key, tpm.RSA, id, encrypted)
	if err != nil {
		return err
	}
	fmt.Printf("%x\n", returned)
	return nil
}

func parseSelection(bankText, pcrText string) (banks []rtmr.Alg, pcrs []rtmr.Register, err error) {
	for _, name := range strings.Split(bankText, ",") {
		alg, err := rtmr.ParseAlg(name)
		if err != nil {
			return nil, nil, err
		}
		banks = append(banks, alg)
	}
	for _, text := range strings.Split(pcrText, ",") {
		register, err := rtmr.ParseRegister("pcr" + text)
		if err != nil {
			return nil, nil, err
		}
		pcrs = append(pcrs, register)
	}
	return banks, pcrs, nil
}
