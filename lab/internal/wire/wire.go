// Package wire is what a lab's guest and its host say to each other, over a
// virtio-serial port: frames of
//
//	be32 length of the header | be32 length of the body | header, JSON | body
//
// The guest begins with a Hello. Then each request of the host has a new ID, and
// every frame that belongs to it, in both directions, bears that ID; requests
// overlap. The guest ends each with a Done.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// Kind says what a frame is.
type Kind string

// The kinds that the host sends.
const (
	Exec   Kind = "exec"   // run Args; Data frames are its standard input, up to an End
	Put    Kind = "put"    // write Path; the Data frames are its content, one write(2) each, up to an End
	Get    Kind = "get"    // read Path, whatever size it claims to have
	Signal Kind = "signal" // send the program of that ID the signal Number
	Power  Kind = "power"  // Path is "off", "reboot" or "kexec"; nothing answers
	Kexec  Kind = "kexec"  // load the kernel Path with the initramfs Args[0] and the command line Args[1]
)

// The kinds that the guest sends.
const (
	Hello  Kind = "hello"  // the guest is up: Text is its kernel's release, Args are what went wrong
	Stdout Kind = "stdout" // of an Exec
	Stderr Kind = "stderr"
	Done   Kind = "done" // Number is an Exec's exit status, -1 for a signal; Text an error
)

// The kinds that both send.
const (
	Data Kind = "data"
	End  Kind = "end"
)

// Header is a frame's head.
type Header struct {
	ID     uint32   `json:"id"`
	Kind   Kind     `json:"kind"`
	Path   string   `json:"path,omitempty"`
	Args   []string `json:"args,omitempty"`
	Env    []string `json:"env,omitempty"`
	Dir    string   `json:"dir,omitempty"`
	Mode   uint32   `json:"mode,omitempty"`
	Number int      `json:"number,omitempty"`
	Errno  int      `json:"errno,omitempty"` // Linux's number of the error, 0 if it has none
	Text   string   `json:"text,omitempty"`
}

// Chunk is the largest body that either side sends.
const Chunk = 64 << 10

const maxHeader = 1 << 20

// Write writes a frame in one call, so that whoever holds a lock around it
// needs no other.
func Write(w io.Writer, h Header, body []byte) error {
	head, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if len(head) > maxHeader || len(body) > Chunk {
		return fmt.Errorf("frame %s: %d and %d bytes, expected at most %d and %d", h.Kind, len(head), len(body), maxHeader, Chunk)
	}
	frame := make([]byte, 8, 8+len(head)+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(head)))
	binary.BigEndian.PutUint32(frame[4:], uint32(len(body)))
	frame = append(append(frame, head...), body...)
	_, err = w.Write(frame)
	return err
}

// Read reads a frame. The error is io.EOF if there is none.
func Read(r io.Reader) (h Header, body []byte, err error) {
	var lengths [8]byte
	if _, err := io.ReadFull(r, lengths[:]); err != nil {
		return h, nil, err
	}
	head, size := binary.BigEndian.Uint32(lengths[:]), binary.BigEndian.Uint32(lengths[4:])
	if head > maxHeader || size > Chunk {
		return h, nil, fmt.Errorf("frame of %d and %d bytes, expected at most %d and %d", head, size, maxHeader, Chunk)
	}
	buf := make([]byte, head+size)
	if _, err := io.ReadFull(r, buf); err != nil {
		return h, nil, fmt.Errorf("frame cut off: %w", err)
	}
	if err := json.Unmarshal(buf[:head], &h); err != nil {
		return h, nil, fmt.Errorf("frame's header: %w", err)
	}
	return h, buf[head:], nil
}
