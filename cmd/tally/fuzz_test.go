package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// run runs the command in this process and returns what it printed.
func run(args ...string) (stdout string, err error) {
	var out, warnings bytes.Buffer
	root := newRoot()
	root.SetOut(&out)
	root.SetErr(&warnings)
	root.SetArgs(args)
	err = root.Execute()
	if err != nil {
		warnings.WriteString(err.Error() + "\n")
	}
	return out.String() + warnings.String(), err
}

// FuzzCommands shows and replays a log of any format, converts it to all those
// that are written, and compares them. Whatever it is:
//
//   - what is printed is lines of printable characters, or JSON;
//   - a log that is read to its end and converted replays to the same values,
//     and does not differ.
func FuzzCommands(f *testing.F) {
	for _, path := range []string{"shim-grub-sb-6.12/boot.bin", "uki-ovmf2025-7.3/boot.bin", "sig-6.12/boot.bin",
		"violations-7.3/ima.bin", "sig-6.12/ima_sha384.bin", "ngv2-verity-6.12/ima_sha256.bin",
		"violations-7.3/ima.ascii"} {
		b, err := os.ReadFile("../../fixtures/" + path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:min(len(b), 3000)])
	}
	for _, to := range []string{"cel-tlv", "cel-json", "cel-cbor", "jsonl"} {
		log, err := run("convert", "--to", to, "../../fixtures/sig-6.12/boot.bin")
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(log))
	}
	f.Add([]byte("INIT sha256/" + strings.Repeat("0", 64) + "\ncoco.com open \x1b[2J\n"))
	f.Add([]byte(`[{"imr":3,"event_type":134217729,"digest":"` + strings.Repeat("ab", 48) + `","event":"\u001b[2J","event_payload":"00"}]`))
	f.Add([]byte("\x1e" + `{"pcr":11,"digests":[{"hashAlg":"sha256","digest":"` + strings.Repeat("ab", 32) + `"}],"content_type":"systemd","content":{"string":"a\nb","eventType":"phase"}}` + "\n"))
	f.Add([]byte(`{"pcr":10,"digests":[],"content_type":"ima_template","content":{"template_name":"\u001b[2J","template_data":"0100000000"}}`))
	f.Fuzz(func(t *testing.T, log []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "log")
		if err := os.WriteFile(path, log, 0o600); err != nil {
			t.Fatal(err)
		}
		text, readErr := run("show", path)
		checkPrinted(t, text)
		text, _ = run("replay", path)
		checkPrinted(t, text)
		registers := foldedTo(t, path)
		for _, to := range []string{"cel-tlv", "cel-json", "cel-cbor", "jsonl"} {
			converted, err := run("convert", "--to", to, path)
			if readErr != nil || err != nil {
				continue
			}
			other := filepath.Join(dir, to)
			if err := os.WriteFile(other, []byte(converted), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := foldedTo(t, other, "--format", strings.Replace(to, "jsonl", "cel-json", 1)); !reflect.DeepEqual(got, registers) {
				t.Errorf("converted to %s it replays to\n%v\nexpected\n%v", to, got, registers)
			}
			text, err = run("diff", path, other)
			checkPrinted(t, text)
			if errors.Is(err, errDiffer) {
				t.Errorf("converted to %s it differs:\n%s", to, text)
			}
		}
	})
}

// checkPrinted makes sure that a terminal is safe.
func checkPrinted(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if i := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 || !utf8.ValidString(line) {
			t.Errorf("not printable at byte %d: %q", i, line)
		}
	}
}

// foldedTo returns the register values by the JSON contract.
func foldedTo(t *testing.T, path string, flags ...string) (registers []any) {
	t.Helper()
	text, _ := run(append([]string{"replay", "--json", path}, flags...)...)
	var report struct{ Registers []any }
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&report); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return report.Registers
}
