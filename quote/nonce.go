package quote

import (
	"bytes"
	"fmt"

	"tallystick/rtmr"
)

// fieldNonce holds a field of a fixed size that the guest chooses, such as
// REPORTDATA, against the nonce. One that is shorter stands there followed by
// zeros; a longer one is an error.
func fieldNonce(field string, data rtmr.Hex, nonce []byte) (Link, error) {
	switch {
	case len(nonce) == 0:
		return Link{Nonce, NotChecked, fmt.Sprintf("no nonce given; %s is %s", field, data)}, nil
	case len(nonce) > len(data):
		return Link{}, fmt.Errorf("the nonce has %d bytes, and %s has room for %d", len(nonce), field, len(data))
	}
	want := make(rtmr.Hex, len(data))
	copy(want, nonce)
	if !bytes.Equal(want, data) {
		return Link{Nonce, Failed, fmt.Sprintf("%s is %s, expected %s", field, data, want)}, nil
	}
	text := fmt.Sprintf("%s is the given nonce of %d bytes", field, len(nonce))
	if zeros := len(data) - len(nonce); zeros > 0 {
		text += fmt.Sprintf(" and %d zeros", zeros)
	}
	return Link{Nonce, Verified, text}, nil
}
