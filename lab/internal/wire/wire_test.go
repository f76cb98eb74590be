package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"

	"tallystick/lab/internal/wire"
)

func TestRead(t *testing.T) {
	var b bytes.Buffer
	sent := wire.Header{ID: 7, Kind: wire.Exec, Args: []string{"sh", "-c", "\xc3\xa4"}, Env: []string{"A=1"}, Number: -1}
	if err := wire.Write(&b, sent, []byte("body")); err != nil {
		t.Fatal(err)
	}
	if err := wire.Write(&b, wire.Header{Kind: wire.End}, make([]byte, wire.Chunk+1)); err == nil {
		t.Error("a body longer than a chunk was written")
	}
	whole := bytes.Clone(b.Bytes())
	got, body, err := wire.Read(&b)
	if err != nil || string(body) != "body" || !reflect.DeepEqual(got, sent) {
		t.Errorf("read %+v, %q, %v", got, body, err)
	}
	if _, _, err := wire.Read(&b); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for n := 1; n < len(whole); n++ {
		if _, _, err := wire.Read(bytes.NewReader(whole[:n])); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

// FuzzRead reads what a guest might say: what is read, written again, reads the
// same.
func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	wire.Write(&b, wire.Header{ID: 1, Kind: wire.Done, Text: "x", Errno: 22}, []byte("body"))
	f.Add(b.Bytes())
	f.Add([]byte("\x00\x00\x00\x02\x00\x00\x00\x00{}"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, body, err := wire.Read(bytes.NewReader(frame))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := wire.Write(&b, h, body); err != nil {
			t.Fatal(err)
		}
		again, sameBody, err := wire.Read(&b)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(h) || !bytes.Equal(sameBody, body) {
			t.Fatalf("%+v %q became %+v %q, %v", h, body, again, sameBody, err)
		}
	})
}
