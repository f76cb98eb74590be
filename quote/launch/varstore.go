package launch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"
)

// Variable is a UEFI variable of a firmware image's store.
type Variable struct {
	Vendor GUID
	Name   string
	Data   []byte // points into the volume
}

// ErrNoStore is wrapped by the error for a volume that holds no variables.
var ErrNoStore = errors.New("no variable store")

var (
	nvDataVolume = MustGUID("fff12b8d-7696-4c8b-a985-2747075b4f50")
	authStore    = MustGUID("aaf32c78-947b-439a-a180-2e144ec37792")
)

// The volume's header (UEFI PI 1.8 volume 3, EFI_FIRMWARE_VOLUME_HEADER) and the
// store behind it (edk2 MdeModulePkg/Include/Guid/VariableFormat.h,
// AUTHENTICATED_VARIABLE_HEADER).
const (
	volumeGUIDAt      = 16
	volumeSignatureAt = 40
	volumeLengthAt    = 48
	volumeHeaderLeast = 56
	storeHeader       = 28
	storeFormatted    = 0x5a
	storeHealthy      = 0xfe
	variableHeader    = 60
	variableStart     = 0x55aa
	variableAdded     = 0x3f // VAR_ADDED
	variableReplaced  = 0x3e // and being deleted: it counts as long as no other does
)

// ParseVariables reads the variables that a configuration firmware volume begins
// with: those that count when the firmware starts, in their order, each once.
//
// The volume's header names the store's place: GUID aaf32c78-.., size (le32),
// format and state, and then variables of 60 bytes of header, the name in UTF-16
// with its NUL, and the data, each on a multiple of 4. Where a header does not
// begin with 0x55aa, the free space begins.
//
// The error wraps ErrNoStore where the volume is another one; others give the
// offset in the volume.
func ParseVariables(volume []byte) ([]Variable, error) {
	store, base, err := variableStore(volume)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	var found variables
	for at := storeHeader; at+variableHeader <= len(store) && le.Uint16(store[at:]) == variableStart; {
		header := store[at:]
		names, datas := uint64(le.Uint32(header[36:])), uint64(le.Uint32(header[40:]))
		end := uint64(at) + variableHeader + names + datas
		if end > uint64(len(store)) || names%2 != 0 {
			return nil, fmt.Errorf("offset %#x: a variable's name of %d bytes and data of %d, and the store has %d more", base+at+36, names, datas, len(store)-at-variableHeader)
		}
		name := header[variableHeader:][:names]
		v := Variable{Vendor: guidAt(header, 44), Name: utf16Name(name), Data: header[variableHeader+int(names):][:datas:datas]}
		if state := header[2]; state == variableAdded || state == variableReplaced {
			found.add(v, state == variableReplaced)
		}
		at = (int(end) + 3) &^ 3
	}
	return found.all, nil
}

// variables are those that were found, and which of them are being replaced.
type variables struct {
	all   []Variable
	being []bool
	at    map[variableName]int
}

type variableName struct {
	vendor GUID
	name   string
}

// add adds a variable, or puts it in the place of the one that it replaces.
func (f *variables) add(v Variable, being bool) {
	key := variableName{v.Vendor, v.Name}
	i, again := f.at[key]
	switch {
	case again && being && !f.being[i]:
	case again:
		f.all[i], f.being[i] = v, being
	default:
		if f.at == nil {
			f.at = map[variableName]int{}
		}
		f.at[key] = len(f.all)
		f.all, f.being = append(f.all, v), append(f.being, being)
	}
}

// variableStore returns the store, and where in the volume it begins.
func variableStore(volume []byte) (store []byte, base int, err error) {
	le := binary.LittleEndian
	if len(volume) < volumeHeaderLeast || string(volume[volumeSignatureAt:][:4]) != "_FVH" {
		return nil, 0, fmt.Errorf("%w: offset %#x: expected _FVH", ErrNoStore, volumeSignatureAt)
	}
	if got := guidAt(volume, volumeGUIDAt); got != nvDataVolume {
		return nil, 0, fmt.Errorf("%w: offset %#x: volume %s, expected %s", ErrNoStore, volumeGUIDAt, got, nvDataVolume)
	}
	base = int(le.Uint16(volume[volumeLengthAt:]))
	if base < volumeHeaderLeast || base+storeHeader > len(volume) {
		return nil, 0, fmt.Errorf("offset %#x: the volume's header has %d bytes, expected %d to %d", volumeLengthAt, base, volumeHeaderLeast, len(volume)-storeHeader)
	}
	if got := guidAt(volume, base); got != authStore {
		return nil, 0, fmt.Errorf("%w: offset %#x: store %s, expected %s", ErrNoStore, base, got, authStore)
	}
	size := le.Uint32(volume[base+16:])
	if size < storeHeader || int64(size) > int64(len(volume)-base) {
		return nil, 0, fmt.Errorf("offset %#x: the store's size is %d, expected %d to %d", base+16, size, storeHeader, len(volume)-base)
	}
	if volume[base+20] != storeFormatted || volume[base+21] != storeHealthy {
		return nil, 0, fmt.Errorf("offset %#x: the store's format and state are %#x and %#x, expected %#x and %#x", base+20, volume[base+20], volume[base+21], storeFormatted, storeHealthy)
	}
	return volume[base:][:size], base, nil
}

// utf16Name is a variable's name without its NUL.
func utf16Name(b []byte) string {
	units := make([]uint16, 0, len(b)/2)
	for ; len(b) >= 2; b = b[2:] {
		units = append(units, binary.LittleEndian.Uint16(b))
	}
	if n := len(units); n > 0 && units[n-1] == 0 {
		units = units[:n-1]
	}
	return string(utf16.Decode(units))
}

// variableData is the structure UEFI_VARIABLE_DATA that firmware measures (TCG PFP
// 1.06, 10.2.6): GUID, length of the name in characters and of the data in bytes,
// le64 each, the name without its NUL, the data.
func variableData(v Variable) []byte {
	le := binary.LittleEndian
	name := utf16.Encode([]rune(v.Name))
	b := bytes.Clone(v.Vendor[:])
	b = le.AppendUint64(b, uint64(len(name)))
	b = le.AppendUint64(b, uint64(len(v.Data)))
	for _, unit := range name {
		b = le.AppendUint16(b, unit)
	}
	return append(b, v.Data...)
}
