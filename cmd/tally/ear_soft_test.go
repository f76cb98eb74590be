//go:build !windows

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"slices"
	"testing"

	"tallystick/evidence"
	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// A bundle's logs are held against its journal, which has copies of their entries: none is
// better than that. The digests are of what was read.
func TestEmitEARJournal(t *testing.T) {
	for _, c := range []struct {
		name  string
		edit  func(b *evidence.Bundle)
		tiers []string
	}{
		{"whole", func(*evidence.Bundle) {}, []string{"application affirming", "firmware affirming", "hardware affirming hardware=2 runtime-opaque=2", "kernel affirming"}},
		{"another boot log", func(b *evidence.Bundle) { b.BootLog = testlogs.Read(t, testlogs.Fixture(t, "sig-6.12", "boot.bin")) },
			[]string{"application affirming", "firmware contraindicated executables=99", "hardware affirming hardware=2 runtime-opaque=2", "kernel affirming"}},
		{"another journal", func(b *evidence.Bundle) {
			b.Journal = testlogs.NewGuest(t, []rtmr.Alg{rtmr.SHA1}, rtmr.MustParse("pcr0")).Journal()
		}, []string{"application none", "firmware contraindicated executables=99", "hardware affirming hardware=2 runtime-opaque=2", "kernel contraindicated executables=99"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, roots, vcek := softGuest(t)
			c.edit(b)
			data := must(b.Marshal())
			dir := files(t, map[string][]byte{"evidence.cmw": data, "roots": roots, "vcek": vcek})
			e, report, _ := emits(t, dir, "reconcile", "--json", "--snp-roots", filepath.Join(dir, "roots"), "--hardware", filepath.Join(dir, "vcek"), "--at", "2025-06-01T00:00:00Z", "evidence.cmw")
			if got := e.tiers(); !slices.Equal(got, c.tiers) {
				t.Errorf("%s: %q, expected %q", report.Sentence, got, c.tiers)
			}
			own := e.claims[evidenceClaim].(claims)
			sum := func(data []byte) string {
				s := sha256.Sum256(data)
				return hex.EncodeToString(s[:])
			}
			if got := own["quote"].(claims)["sha256"]; got != sum(data) {
				t.Errorf("the bundle's digest %v", got)
			}
			want := map[string]string{evidence.ItemJournal: sum(b.Journal), evidence.ItemBootLog: sum(b.BootLog), evidence.ItemIMAList: sum(b.IMAList)}
			logs := own["logs"].([]any)
			for _, l := range logs {
				if l := l.(claims); l["sha256"] != want[l["name"].(string)] {
					t.Errorf("%v: expected the digest %s", l, want[l["name"].(string)])
				}
			}
			if len(logs) != 3 {
				t.Errorf("%d logs", len(logs))
			}
		})
	}
}
