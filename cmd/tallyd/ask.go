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
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"tallystick/guest"
	"tallystick/rtmr"
)

// asked is where the service is asked.
type asked struct {
	socket string
	vsock  string // CID:PORT; the socket if ""
}

// client returns a client of the service, and what it is called in errors.
func (s *asked) client() (*http.Client, string, error) {
	if s.vsock == "" {
		return guest.Client(s.socket), s.socket, nil
	}
	cid, port, _ := strings.Cut(s.vsock, ":")
	c, errCID := strconv.ParseUint(cid, 10, 32)
	p, errPort := strconv.ParseUint(port, 10, 32)
	if errCID != nil || errPort != nil {
		return nil, "", fmt.Errorf("--vsock %q, expected CID:PORT", s.vsock)
	}
	return guest.VsockClient(uint32(c), uint32(p)), "vsock " + s.vsock, nil
}

// ask sends a request to the service and reads its answer, which is JSON.
func (s *asked) ask(ctx context.Context, method, path string, body, into any) error {
	answer, err := s.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		return &noAnswer{fmt.Errorf("the answer of the service: %w", err)}
	}
	return nil
}

// noAnswer says that a request was taken, or may have been, and what came of it is not
// known.
type noAnswer struct{ error }

func (e *noAnswer) Unwrap() error { return e.error }

// taken reports whether a request that failed may have reached the service.
func taken(err error) bool {
	var op *net.OpError
	return !errors.As(err, &op) || op.Op != "dial"
}

// patience is for how long a request is sent again that was one too many.
const patience = time.Minute

// send sends a request to the service and returns its answer. One that was one too
// many, for which nothing was done, it sends again when the service says.
func (s *asked) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	client, where, err := s.client()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	for began := time.Now(); ; {
		request, err := http.NewRequestWithContext(ctx, method, "http://tallyd"+path, bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		answer, err := client.Do(request)
		if err != nil {
			if taken(err) {
				return nil, &noAnswer{unanswered(where, err)}
			}
			return nil, unanswered(where, err)
		}
		if answer.StatusCode == http.StatusOK || answer.StatusCode == http.StatusAccepted {
			return answer, nil
		}
		err = refusal(answer)
		wait, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
		if answer.StatusCode != http.StatusTooManyRequests || time.Since(began) > patience {
			return nil, err
		}
		if err := guest.Poll(time.Duration(max(1, wait)) * time.Second).Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// unanswered says where nobody answered, and what to look at.
func unanswered(where string, err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err // without an address that means nothing
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s: %w (this user may not ask: tallyd run --allow-uid, and a --state folder that it may enter)", where, err)
	}
	return fmt.Errorf("no answer from %s: %w (is the service running? systemctl status tallyd)", where, err)
}

// refusal is why the service did not do what was asked.
func refusal(answer *http.Response) error {
	defer answer.Body.Close()
	var refusal guest.Refusal
	if err := json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&refusal); err != nil || refusal.Error == "" {
		return fmt.Errorf("the service answers %s", answer.Status)
	}
	if refusal.Undecided {
		return &noAnswer{errors.New(rtmr.Escape(refusal.Error))}
	}
	return errors.New(rtmr.Escape(refusal.Error))
}

func statusCommand() *cobra.Command {
	var at asked
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "How the service fares",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s guest.Status
			if err := at.ask(cmd.Context(), http.MethodGet, "/v1/status", nil, &s); err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(s)
			}
			printStatus(cmd.OutOrStdout(), &s)
			return nil
		},
	}
	cmd.Flags().StringVar(&at.socket, "socket", socket, "the service's socket")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func valuesCommand() *cobra.Command {
	var at asked
	cmd := &cobra.Command{
		Use:   "values",
		Short: "The registers' values, as tally reconcile --values takes them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var values rtmr.Values
			if err := at.ask(cmd.Context(), http.MethodGet, "/v1/values", nil, &values); err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(values)
		},
	}
	cmd.Flags().StringVar(&at.socket, "socket", socket, "the service's socket")
	return cmd
}

func evidenceCommand() *cobra.Command {
	var at asked
	var nonce, out string
	cmd := &cobra.Command{
		Use:   "evidence --nonce HEX -o FILE",
		Short: "A quote and the logs that go with it, in one file for tally reconcile",
		Long: `Evidence asks the service for a bundle: a quote for the nonce, and the logs as they
were at its moment. With --vsock it asks that of another machine, such as a guest
of this one. The file appears when all of it is there.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := hex.DecodeString(nonce)
			if err != nil || len(n) == 0 || len(n) > guest.MaxNonce {
				return fmt.Errorf("--nonce %q, expected 1 to %d bytes in hexadecimal", nonce, guest.MaxNonce)
			}
			if out == "" {
				return errors.New("-o FILE is missing")
			}
			if at.vsock != "" && cmd.Flags().Changed("socket") {
				return errors.New("both --socket and --vsock, expected one")
			}
			answer, err := at.send(cmd.Context(), http.MethodPost, "/v1/evidence", guest.EvidenceRequest{Nonce: n})
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			return store(out, cmd.OutOrStdout(), answer)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&at.socket, "socket", socket, "the service's socket")
	flags.StringVar(&at.vsock, "vsock", "", "CID:PORT of the service in another machine, in place of the socket")
	flags.StringVar(&nonce, "nonce", "", "the verifier's nonce, in hexadecimal: 1 to 64 bytes, not all zeros. A TD's REPORTDATA holds it with zeros behind, so let it have always the same length")
	flags.StringVarP(&out, "output", "o", "", "the file to write; - is standard output")
	return cmd
}

// maxBundle bounds what is taken from a service that may be anybody's, in bytes.
const maxBundle = 1 << 30

// store writes the bundle that is the answer to a file, all of it or none; or to
// standard output, or to what is no file, such as a pipe.
func store(path string, stdout io.Writer, answer *http.Response) error {
	if n := answer.ContentLength; n <= 0 || n > maxBundle {
		return fmt.Errorf("evidence of %d bytes, expected 1 to %d", n, maxBundle)
	}
	if path == "-" {
		return receive(stdout, answer)
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(receive(f, answer), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // in vain, once it is renamed
	umask := unix.Umask(0)
	unix.Umask(umask)
	if err := errors.Join(f.Chmod(os.FileMode(0o666&^umask)), receive(f, answer), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// receive writes all of the answer.
func receive(w io.Writer, answer *http.Response) error {
	n, err := io.Copy(w, answer.Body)
	if err == nil && n != answer.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("%d of %d bytes of evidence: %w", n, answer.ContentLength, err)
	}
	return nil
}

// errLater says that a measurement is not in the register yet, and will be: whoever
// asks again has it there twice.
var errLater = errors.New("journaled, and extended later, before anything else: do not ask again")

// errUnknown says that a measurement may be in the register, or come to be.
var errUnknown = errors.New("it is not known whether it was extended: ask again only with the same --key")

func extendCommand() *cobra.Command {
	var at asked
	var register, kind, file, key, name string
	cmd := &cobra.Command{
		Use:   "extend --register REGISTER --type TYPE --file FILE",
		Short: "Extend a register by an application's measurement",
		Long: `Extend measures a file's content. The register is extended with the hash of the
journal's entry, which has the content's digests, the name and the key.

With --key, a request that is sent again extends nothing.

Exit status: 0 extended; 2 it was not; 3 it is journaled, and will be; 4 nobody knows,
as where the service was killed meanwhile.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, flag := range [][2]string{{"register", register}, {"type", kind}, {"file", file}} {
				if flag[1] == "" {
					return fmt.Errorf("--%s is missing", flag[0])
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
			if err := at.ask(cmd.Context(), http.MethodPost, "/v1/extend", guest.ExtendRequest{Register: r, Type: kind, App: *app}, &answer); err != nil {
				if errors.As(err, new(*noAnswer)) {
					return fmt.Errorf("%w: %w", errUnknown, err)
				}
				return err
			}
			if answer.Journaled {
				return fmt.Errorf("%w: %s", errLater, rtmr.Escape(answer.Error))
			}
			if !answer.Extended {
				fmt.Fprintln(cmd.OutOrStdout(), "extended before, with the same key")
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&at.socket, "socket", socket, "the service's socket")
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
