package rtmr

import (
	"encoding/hex"
	"fmt"
)

// Hex is a register's value. In text and JSON it is lower-case hexadecimal.
type Hex []byte

// String returns lower-case hexadecimal.
func (h Hex) String() string { return hex.EncodeToString(h) }

// MarshalText writes lower-case hexadecimal.
func (h Hex) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads hexadecimal.
func (h *Hex) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}

// Values are registers' values by bank. Their JSON form is the one of tally's
// --values flag: {"sha256":{"pcr0":"hex", ..}, ..}.
type Values map[Alg]map[Register]Hex

// Set stores a register's value, and makes its bank if there is none.
func (v Values) Set(a Alg, r Register, value Hex) {
	if v[a] == nil {
		v[a] = make(map[Register]Hex)
	}
	v[a][r] = value
}

// Validate reports the first value whose length is not its bank's digest size.
func (v Values) Validate() error {
	for alg, bank := range v {
		for r, value := range bank {
			if alg.Size() != 0 && len(value) != alg.Size() {
				return fmt.Errorf("%s %s has %d bytes, expected %d", alg, r, len(value), alg.Size())
			}
		}
	}
	return nil
}
