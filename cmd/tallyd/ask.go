//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tallystick/guest"
	"tallystick/rtmr"
)

// answerTime is how long the service may take. Where it is not running, systemd's
// socket takes requests all the same, and they wait for it.
const answerTime = time.Minute

// ask sends a request to the service and reads its answer, which is JSON.
func ask(ctx context.Context, socket, method, path string, body, into any) error {
	answer, err := send(ctx, socket, method, path, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	return json.NewDecoder(answer).Decode(into)
}

// send sends a request to the service and returns its answer.
func send(ctx context.Context, socket, method, path string, body any) (io.ReadCloser, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://tallyd"+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	client := guest.Client(socket)
	client.Timeout = answerTime
	answer, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w (is the service running? systemctl status tallyd)", err)
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		var refusal guest.Refusal
		if err := json.NewDecoder(answer.Body).Decode(&refusal); err != nil || refusal.Error == "" {
			return nil, fmt.Errorf("the service answers %s", answer.Status)
		}
		return nil, errors.New(refusal.Error)
	}
	return answer.Body, nil
}

func statusCommand() *cobra.Command {
	var at string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "How the service fares",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s guest.Status
			if err := ask(cmd.Context(), at, http.MethodGet, "/v1/status", nil, &s); err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(s)
			}
			printStatus(cmd.OutOrStdout(), &s)
			return nil
		},
	}
	cmd.Flags().StringVar(&at, "socket", socket, "the service's socket")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func valuesCommand() *cobra.Command {
	var at string
	cmd := &cobra.Command{
		Use:   "values",
		Short: "The registers' values, as tally reconcile --values takes them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var values rtmr.Values
			if err := ask(cmd.Context(), at, http.MethodGet, "/v1/values", nil, &values); err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(values)
		},
	}
	cmd.Flags().StringVar(&at, "socket", socket, "the service's socket")
	return cmd
}

func evidenceCommand() *cobra.Command {
	var at, nonce, out string
	cmd := &cobra.Command{
		Use:   "evidence --nonce HEX -o FILE",
		Short: "A quote and the logs that go with it, in one file for tally reconcile",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := hex.DecodeString(nonce)
			if err != nil || len(n) == 0 || len(n) > guest.MaxNonce {
				return fmt.Errorf("--nonce %q, expected 1 to %d bytes in hexadecimal", nonce, guest.MaxNonce)
			}
			if out == "" {
				return errors.New("-o FILE is missing")
			}
			answer, err := send(cmd.Context(), at, http.MethodPost, "/v1/evidence", guest.EvidenceRequest{Nonce: n})
			if err != nil {
				return err
			}
			defer answer.Close()
			data, err := io.ReadAll(answer)
			if err != nil {
				return err
			}
			if out == "-" {
				_, err = cmd.OutOrStdout().Write(data)
				return err
			}
			return os.WriteFile(out, data, 0o644)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&at, "socket", socket, "the service's socket")
	flags.StringVar(&nonce, "nonce", "", "the verifier's nonce, in hexadecimal")
	flags.StringVarP(&out, "output", "o", "", "the file to write; - is standard output")
	return cmd
}

func printStatus(w io.Writer, s *guest.Status) {
	fmt.Fprintf(w, "device    %s: %s\n", s.Device.Kind, s.Device.Name)
	fmt.Fprintf(w, "since     %s\n", s.Started.Format("2006-01-02 15:04:05"))
	fmt.Fprintf(w, "ima       %d entries extended since boot\n", s.IMA)
	fmt.Fprintf(w, "journal   %d bytes, %d measurements not yet extended\n", s.Journal, s.Behind)
	if r := s.Recovery; r.Damaged != "" {
		fmt.Fprintf(w, "damaged   a journal, kept as %s: %s\n", r.Damaged, r.Reason)
	}
	if r := s.Recovery; r.Foreign != "" {
		fmt.Fprintf(w, "others    extended %s\n", r.Foreign)
	}
	if s.Error != "" {
		fmt.Fprintf(w, "failing   %s\n", rtmr.Escape(s.Error))
	}
}

func extendCommand() *cobra.Command {
	var at, register, kind, file, key, name string
	cmd := &cobra.Command{
		Use:   "extend --register REGISTER --type TYPE --file FILE",
		Short: "Extend a register by an application's measurement",
		Long: `Extend measures a file's content. The register is extended with the hash of the
journal's entry, which has the content's digests, the name and the key.

With --key, a request that is sent again extends nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for flag, value := range map[string]string{"register": register, "type": kind, "file": file} {
				if value == "" {
					return fmt.Errorf("--%s is missing", flag)
				}
			}
			r, err := rtmr.ParseRegister(register)
			if err != nil {
				return fmt.Errorf("--register: %w", err)
			}
			app, err := measure(file, name, key)
			if err != nil {
				return err
			}
			var answer guest.ExtendAnswer
			if err := ask(cmd.Context(), at, http.MethodPost, "/v1/extend", guest.ExtendRequest{Register: r, Type: kind, App: *app}, &answer); err != nil {
				return err
			}
			if !answer.Extended {
				fmt.Fprintln(cmd.OutOrStdout(), "extended before, with the same key")
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&at, "socket", socket, "the service's socket")
	flags.StringVar(&register, "register", "", "the register: pcr0..pcr23, rtmr0..rtmr3")
	flags.StringVar(&kind, "type", "", "what kind of thing is measured, in the application's words")
	flags.StringVar(&file, "file", "", "the file whose content is measured; - is standard input")
	flags.StringVar(&name, "name", "", "what it is called in the log; by default the file's path")
	flags.StringVar(&key, "key", "", "makes a request that is sent again the same one")
	return cmd
}

func measure(file, name, key string) (*guest.App, error) {
	if name == "" {
		name = strings.ToValidUTF8(file, "\uFFFD")
	}
	if file == "-" {
		return guest.Measure(name, key, os.Stdin)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return guest.Measure(name, key, f)
}
