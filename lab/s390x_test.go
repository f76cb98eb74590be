//go:build linux

package lab_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"tallystick/ima"
	"tallystick/lab"
	"tallystick/rtmr"
)

// A big-endian kernel writes IMA lists in its own byte order. What is read from
// one is what the kernel itself says of it in ASCII.
func TestS390X(t *testing.T) {
	g := lab.Machine{Kernel: "6.1-s390x", Append: lab.TCB}.Start(t)
	g.Shell("for i in 1 2 3 4 5 6 7 8 9; do mkdir /tmp/$i; cp /bin/busybox /tmp/$i; /tmp/$i/busybox true; done")
	list, text := g.Get(lab.IMAList), g.Get(strings.Replace(lab.IMAList, "binary", "ascii", 1))
	g.Stop()

	r, err := ima.NewReader(bytes.NewReader(list), ima.Options{})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	n := 0
	for m, err := range r.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%2d %x %s ", m.Register.Index(), m.Digests[0].Sum, m.Entry.Type())
		if !strings.HasPrefix(lines[n], got) {
			t.Errorf("entry %d is %q, the kernel says %q", n, got, lines[n])
		}
		if check, computed := m.Entry.Verify(m.Digests[0]); m.Digests[0].Alg != rtmr.SHA1 || check != rtmr.Verified {
			t.Errorf("entry %d: %s %s, computed %x", n, m.Digests[0], check, computed)
		}
		n++
	}
	t.Logf("%s: %d entries", g.Release(), n)
	if n < 10 {
		t.Error("too few entries to show anything")
	}
}
