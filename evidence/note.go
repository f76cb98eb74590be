package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// OtherType is the type of a journal's entry, of this project's own content, for an
// extend by another process than the helper. Its digest is what was found in the
// register, and its data is JSON that tells who the tap says did it.
const OtherType = "other"

// What the helper must not be able to deny later is no note but a measurement, which is
// extended: its digest is that of its data, JSON.
const (
	GapType     = "own:gap"      // entries of the kernel's list may be missing here
	LeftOutType = "own:left-out" // an entry of the kernel's list was not extended
)

// Note is a record of the journal that tells what helpers after this one, and people, are
// to know, such as that a journal was lost. It is an EV_NO_ACTION event, which
// extends nothing.
type Note struct {
	Kind  string          // one word
	About json.RawMessage // an object
}

// Notes that tell of nothing that went otherwise than it should.
const (
	NoteOthers  = "others"  // so many entries that follow are extends by others
	NoteStopped = "stopped" // a helper stopped, and all before this was extended
)

// Routine reports whether it is one of those.
func (n *Note) Routine() bool { return n.Kind == NoteOthers || n.Kind == NoteStopped }

// noteMagic begins a note's event data, and a zero byte ends its kind.
const noteMagic = "Tallystick Note\x00"

// EventData returns the note as the data of an EV_NO_ACTION event.
func (n *Note) EventData() []byte {
	return append([]byte(noteMagic+n.Kind+"\x00"), n.About...)
}

// ParseNote reads the data of an EV_NO_ACTION event; ok is false for any other than
// a note's. The note's memory is the data's.
func ParseNote(data []byte) (n Note, ok bool, err error) {
	rest, ok := bytes.CutPrefix(data, []byte(noteMagic))
	if !ok {
		return n, false, nil
	}
	kind, about, found := bytes.Cut(rest, []byte{0})
	if !found || len(kind) == 0 || !json.Valid(about) {
		return n, true, fmt.Errorf("note of %d bytes, expected a kind, a zero byte and JSON", len(rest))
	}
	return Note{string(kind), about}, true, nil
}
