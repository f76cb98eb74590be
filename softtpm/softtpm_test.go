package softtpm_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"os/exec"
	"strings"
	"testing"

	"tallystick/softtpm"
)

// The vector of docs/evidence.md, of which the document says how it was made:
// by sha512sum, of bytes that printf put together.
const vector = "c1286d6742f05e706341f870c90c1b1172f342ad802f3bb48fd6e7b4932fea4ff6547b9283a7567caf19117b0c44b08a17da5e2a435e5790f3ccc722aa2b8e4b"

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBinding(t *testing.T) {
	nonce := unhex(t, "00112233445566778899aabbccddeeff")
	name := unhex(t, "000b8fa3aab2faa9b79e0a0398da5b5abd0780142442a5be80b9a64608d718cb1fcd")
	attest := unhex(t, "ff5443478018")
	if got := softtpm.Binding(nonce, name, attest); hex.EncodeToString(got[:]) != vector {
		t.Errorf("%x, expected %s", got, vector)
	}
}

// The document's own commands print the vector that it shows, which is the one above.
func TestDocument(t *testing.T) {
	doc, err := os.ReadFile("../docs/evidence.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := bytes.Cut(doc, []byte("\n```sh\n"))
	commands, _, ok := bytes.Cut(block, []byte("\n```\n"))
	if !ok || !bytes.Contains(doc, []byte(vector)) {
		t.Fatal("no commands, or another vector")
	}
	if _, err := exec.LookPath("sha512sum"); err != nil {
		t.Skip("sha512sum is not installed (Debian package coreutils)")
	}
	out, err := exec.Command("bash", "-c", string(commands)).CombinedOutput()
	if err != nil || strings.Fields(string(out))[0] != vector {
		t.Errorf("%v: %s", err, out)
	}
}

// No byte can go from one part to the next, and none is left out.
func TestBindingParts(t *testing.T) {
	seen := map[[64]byte]string{}
	for _, parts := range []string{"||", "a||", "|a|", "||a", "a|a|", "aa||", "a|aa|a", "aa|a|a", "a|a|aa"} {
		p := strings.Split(parts, "|")
		sum := softtpm.Binding([]byte(p[0]), []byte(p[1]), []byte(p[2]))
		if other, ok := seen[sum]; ok {
			t.Errorf("%s and %s have one binding", parts, other)
		}
		seen[sum] = parts
	}
}

// The marker reads as docs/evidence.md says.
func TestFirmwareVersion(t *testing.T) {
	var b [8]byte
	for i := range b {
		b[i] = byte(softtpm.FirmwareVersion >> (56 - 8*i))
	}
	if string(b[:]) != "tallyst\x01" {
		t.Errorf("%q", b)
	}
	for firmware, want := range map[uint64]int{softtpm.FirmwareVersion: 1, softtpm.FirmwareVersion + 1: 2, softtpm.FirmwareVersion - 1<<8: -1, 1: -1} {
		version, ok := softtpm.Marked(firmware)
		if ok != (want >= 0) || ok && version != want {
			t.Errorf("%#x: version %d, %v", firmware, version, ok)
		}
	}
}
