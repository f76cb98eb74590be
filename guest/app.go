//go:build linux

package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"tallystick/rtmr"
)

// AppType begins the type of an application's entry in the journal: "app:" and the
// application's own type.
const AppType = "app:"

// App is a measurement by an application. The entry is what is measured: each
// register is extended with the hash of Entry in its own algorithm, so that what the
// log says of the measurement cannot be altered either.
type App struct {
	// Key makes a request one: a second with the same key is answered as the
	// first, and extends nothing.
	Key string `json:"key,omitempty"`
	// Name is what was measured, in the application's words.
	Name string `json:"name,omitempty"`
	Size int64  `json:"size"`
	// Digests are of the content, by algorithm.
	Digests map[rtmr.Alg]rtmr.Hex `json:"digests"`
}

// maxWord bounds what an application may call things.
const maxWord = 255

// Measure hashes content for an application's measurement.
func Measure(name, key string, content io.Reader) (*App, error) {
	sha256, sha384 := rtmr.SHA256.New(), rtmr.SHA384.New()
	n, err := io.Copy(io.MultiWriter(sha256, sha384), content)
	if err != nil {
		return nil, err
	}
	return &App{key, name, n, map[rtmr.Alg]rtmr.Hex{rtmr.SHA256: sha256.Sum(nil), rtmr.SHA384: sha384.Sum(nil)}}, nil
}

// errRequest says that what an application asks for is malformed.
var errRequest = errors.New("request")

// check reports what of a request is malformed.
func (a *App) check() error {
	if len(a.Name) > maxWord || len(a.Key) > maxWord {
		return fmt.Errorf("name of %d and key of %d bytes, expected at most %d", len(a.Name), len(a.Key), maxWord)
	}
	if a.Size < 0 || len(a.Digests) == 0 {
		return fmt.Errorf("size %d and %d digests, expected a size and a digest of the content", a.Size, len(a.Digests))
	}
	for alg, sum := range a.Digests {
		if alg.Size() == 0 || len(sum) != alg.Size() {
			return fmt.Errorf("a %s digest of %d bytes, expected %d", alg, len(sum), alg.Size())
		}
	}
	return nil
}

// measurement returns the entry for a register, which has the banks.
func (a *App) measurement(r rtmr.Register, kind string, banks []rtmr.Alg) (rtmr.Measurement, error) {
	if kind == "" || len(kind) > maxWord || strings.ContainsFunc(kind, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return rtmr.Measurement{}, fmt.Errorf("%w: type %q, expected 1 to %d printable characters of ASCII without spaces", errRequest, kind, maxWord)
	}
	if err := a.check(); err != nil {
		return rtmr.Measurement{}, fmt.Errorf("%w: %w", errRequest, err)
	}
	data, err := json.Marshal(a)
	if err != nil {
		return rtmr.Measurement{}, err
	}
	m := rtmr.Measurement{Register: r, Entry: appEntry{AppType + kind, data}}
	for _, alg := range banks {
		m.Digests = append(m.Digests, rtmr.Digest{Alg: alg, Sum: alg.AppendHash(nil, data)})
	}
	return m, nil
}

// appEntry is an application's entry, or one of the helper's own events, before it is
// in the journal.
type appEntry struct {
	kind string
	data []byte
}

func (e appEntry) Type() string   { return e.kind }
func (e appEntry) Detail() string { return rtmr.Escape(string(e.data)) }
func (e appEntry) Data() []byte   { return e.data }

func (e appEntry) Verify(d rtmr.Digest) (rtmr.Check, []byte) {
	sum := d.Alg.AppendHash(nil, e.data)
	if string(sum) == string(d.Sum) {
		return rtmr.Verified, nil
	}
	return rtmr.Contradicts, sum
}
