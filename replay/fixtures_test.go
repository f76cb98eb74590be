package replay_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"tallystick/eventlog"
	"tallystick/ima"
	"tallystick/replay"
	"tallystick/rtmr"
)

var fixtureBanks = []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384}

// foldFixture folds a fixture's boot log and IMA lists, in order.
func foldFixture(t *testing.T, dir string, profile ima.Profile, lists ...string) *replay.Fold {
	t.Helper()
	f := replay.New(replay.Options{})
	boot := open(t, dir, "boot.bin")
	r, err := eventlog.NewReader(boot, eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Log(r.Measurements()); err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		l, err := ima.NewReader(open(t, dir, list), ima.Options{Banks: fixtureBanks, Profile: profile})
		if err != nil {
			t.Fatalf("%s: %v", list, err)
		}
		if _, err := f.Log(l.Measurements()); err != nil {
			t.Fatalf("%s: %v", list, err)
		}
	}
	return f
}

func open(t *testing.T, dir, name string) *os.File {
	t.Helper()
	file, err := os.Open(filepath.Join("..", "fixtures", dir, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

func held(t *testing.T, dir string) rtmr.Values {
	t.Helper()
	var v rtmr.Values
	if err := json.NewDecoder(open(t, dir, "values.json")).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestFixtures folds real logs of real machines to the PCRs that their TPMs
// held: every register in every bank, and no register without events that
// the TPM had moved.
func TestFixtures(t *testing.T) {
	for _, tc := range []struct {
		name, dir string
		profile   ima.Profile
		lists     []string
	}{
		{"padded_sha1_bank", "ng-small-6.1", ima.Profile{PaddedBanks: []rtmr.Alg{rtmr.SHA384}}, []string{"ima.bin"}},
		{"violation_extends_ff", "violations-7.3", ima.Profile{}, []string{"ima.bin"}},
		{"violation_extends_ff_from_sha256_list", "violations-7.3", ima.Profile{}, []string{"ima_sha256.bin"}},
		{"ima_sig", "sig-6.12", ima.Profile{}, []string{"ima.bin"}},
		{"ima_ngv2", "ngv2-verity-6.12", ima.Profile{}, []string{"ima.bin"}},
		{"sha384_list", "sig-6.12", ima.Profile{}, []string{"ima_sha384.bin"}},
		{"kexec_without_carry_over", "kexec-6.12", ima.Profile{}, []string{"first-ima.bin", "ima.bin"}},
		{"secure_boot_chain", "shim-grub-sb-6.12", ima.Profile{}, []string{"ima.bin"}},
		{"unified_kernel_image", "uki-ovmf2025-7.3", ima.Profile{}, []string{"ima.bin"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := foldFixture(t, tc.dir, tc.profile, tc.lists...)
			values := f.Values()
			for alg, bank := range held(t, tc.dir) {
				for reg, want := range bank {
					got := values[alg][reg]
					if got == nil {
						got = reg.ResetValue(alg)
					}
					if !slices.Equal(got, want) {
						t.Errorf("%s %s: folded to %s, the TPM held %s", alg, reg, got, want)
					}
				}
			}
			if n := f.BootAggregates(); n != len(tc.lists) {
				t.Errorf("%d boot_aggregate entries proven, want one a list", n)
			}
			if n := len(f.Findings()); n != 0 {
				t.Errorf("%d entries contradict themselves, the first: %+v", n, f.Findings()[0])
			}
		})
	}
}

// The second kernel's list alone does not fold to the PCR: the first kernel's
// entries are in it and not in the list.
func TestKexecSecondListAlone(t *testing.T) {
	pcr10 := rtmr.MustParse("pcr10")
	got := foldFixture(t, "kexec-6.12", ima.Profile{}, "ima.bin").Values()[rtmr.SHA256][pcr10]
	if slices.Equal(got, held(t, "kexec-6.12")[rtmr.SHA256][pcr10]) {
		t.Error("the second list alone folds to PCR 10")
	}
}

// Another machine's list does not go with this boot log.
func TestBootAggregateOfAnotherBoot(t *testing.T) {
	f := foldFixture(t, "shim-grub-sb-6.12", ima.Profile{}, "../uki-ovmf2025-7.3/ima.bin")
	if n := len(f.Findings()); n != 1 || f.Findings()[0].Kind != "boot_aggregate" || f.Findings()[0].Entry != 0 {
		t.Errorf("%d findings: %+v", n, f.Findings())
	}
}
