package launch

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// GUID is a GUID as its 16 bytes stand in an image: the first three groups of its
// text are little-endian, the other two are in the text's order (UEFI 2.10
// appendix A). Two GUIDs are the same if they compare equal.
type GUID [16]byte

// String returns the usual text: "96b582de-1fb2-45f7-baea-a366c55a082d".
func (g GUID) String() string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(g[0:]), le.Uint16(g[4:]), le.Uint16(g[6:]), g[8:10], g[10:])
}

// MustGUID reads what String writes. It is for constants, and panics on other text.
func MustGUID(s string) (g GUID) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(g) {
		panic("no GUID: " + s)
	}
	be, le := binary.BigEndian, binary.LittleEndian
	le.PutUint32(g[0:], be.Uint32(b[0:]))
	le.PutUint16(g[4:], be.Uint16(b[4:]))
	le.PutUint16(g[6:], be.Uint16(b[6:]))
	copy(g[8:], b[8:])
	return g
}
