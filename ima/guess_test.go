package ima_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"tallystick/ima"
	"tallystick/rtmr"
)

// namedEntry is an ima-ng record of a file's digest in an algorithm.
func namedEntry(pcr uint32, alg string, size int, name string) []byte {
	le := binary.LittleEndian
	data := field(le, alg+":\x00"+strings.Repeat("\xAB", size)) + field(le, name+"\x00")
	return record(le, pcr, "ima-ng", []byte(data))
}

func TestGuessProfile(t *testing.T) {
	sha1Aggregate := namedEntry(10, "sha1", 20, "boot_aggregate")
	sha256Aggregate := namedEntry(10, "sha256", 32, "boot_aggregate")
	file := namedEntry(10, "sha256", 32, "/bin/sh")
	le := binary.LittleEndian
	version := record(le, 10, "ima-buf", []byte(field(le, "sha256:\x00"+strings.Repeat("\xAB", 32))+field(le, "kernel_version\x00")+field(le, "5.4.0-200-generic")))
	tpm := []rtmr.Alg{rtmr.SHA1, rtmr.SHA256}
	for _, tc := range []struct {
		name  string
		list  [][]byte
		signs ima.Signs
		want  string // the reason's profile
	}{
		{"mainline", [][]byte{sha256Aggregate, file}, ima.Signs{Banks: tpm, Kernel: "6.12.1"}, ""},
		{"nothing_known", [][]byte{sha1Aggregate, file}, ima.Signs{}, ""},
		{"sha1_aggregate_beside_a_sha256_bank", [][]byte{sha1Aggregate, file}, ima.Signs{Banks: tpm}, "padded-sha1:"},
		{"sha1_aggregate_by_choice", [][]byte{sha1Aggregate, namedEntry(10, "sha1", 20, "/bin/sh")}, ima.Signs{Banks: tpm}, ""},
		{"sha1_aggregate_of_a_sha1_tpm", [][]byte{sha1Aggregate, file}, ima.Signs{Banks: tpm[:1]}, ""},
		{"kernel_before_5_8", [][]byte{sha256Aggregate, file}, ima.Signs{Kernel: "5.7.19"}, "padded-sha1:"},
		{"kernel_5_8", [][]byte{sha256Aggregate, file}, ima.Signs{Kernel: "5.8.0"}, ""},
		{"kernel_4", [][]byte{sha256Aggregate, file}, ima.Signs{Kernel: "4.19.0-27-amd64"}, "padded-sha1:"},
		{"red_hat_8", [][]byte{sha256Aggregate, file}, ima.Signs{Kernel: "4.18.0-553.el8_10.x86_64"}, ""},
		{"kernel_by_the_list_itself", [][]byte{sha256Aggregate, version, file}, ima.Signs{Kernel: "6.12.1"}, "padded-sha1:"},
		{"debian_6_1", [][]byte{sha256Aggregate, file}, ima.Signs{Kernel: "6.1.0-50-cloud-amd64"}, "padded-sha1:sha384,padded-sha1:sha512:"},
		{"not_debian_6_1", [][]byte{sha256Aggregate, file}, ima.Signs{Kernel: "6.1.0"}, ""},
		{"ima_column_is_an_rtmr_index", [][]byte{namedEntry(2, "sha384", 48, "boot_aggregate")}, ima.Signs{}, "rtmr-column,violation-zero:"},
		{"ima_column_8_is_a_pcr", [][]byte{namedEntry(8, "sha384", 48, "boot_aggregate")}, ima.Signs{}, ""},
		{"policy_pcr_2_is_a_pcr", [][]byte{sha256Aggregate, namedEntry(2, "sha256", 32, "/bin/sh")}, ima.Signs{}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := ima.NewReader(bytes.NewReader(bytes.Join(tc.list, nil)), ima.Options{})
			if err != nil {
				t.Fatal(err)
			}
			p, reasons, known := ima.GuessProfile(r.Measurements(), tc.signs)
			if wantKnown := tc.signs.Kernel != "" || tc.want != ""; known != wantKnown {
				t.Errorf("known: %t, want %t", known, wantKnown)
			}
			if tc.want == "" {
				if len(reasons) != 0 || p.PaddedSHA1 || p.RTMRColumn || len(p.PaddedBanks) != 0 {
					t.Errorf("%+v because %q", p, reasons)
				}
				return
			}
			if len(reasons) != 1 || !strings.HasPrefix(reasons[0], tc.want) {
				t.Fatalf("%q, want %q", reasons, tc.want)
			}
			// The reason begins with what --profile takes for the same.
			same, err := ima.ParseProfile(strings.TrimSuffix(tc.want, ":"))
			if err != nil || same.PaddedSHA1 != p.PaddedSHA1 || same.RTMRColumn != p.RTMRColumn ||
				same.ViolationZero != p.ViolationZero || len(same.PaddedBanks) != len(p.PaddedBanks) {
				t.Errorf("%+v, but %q is %+v, %v", p, tc.want, same, err)
			}
		})
	}
}

// What profiles make of a violation and of a bank: by hand, from the kernel's
// rules (FACTS: 20 × 0xFF padded before 5.8, zeros by IMA for RTMRs).
func TestProfiles(t *testing.T) {
	le := binary.LittleEndian
	violation := append(append(le.AppendUint32(nil, 2), make([]byte, 20)...), record(le, 2, "ima-ng", ng(le, "/x"))[24:]...)
	file := record(le, 2, "ima-ng", ng(le, "/bin/sh"))
	ff20 := strings.Repeat("ff", 20)
	sha1File := rtmr.Hex(sum1(ng(le, "/bin/sh"))).String()
	for _, tc := range []struct {
		profile, register   string
		violation, fileHash string // in the SHA-256 bank
	}{
		{"mainline", "pcr2", strings.Repeat("ff", 32), ""},
		{"padded-sha1", "pcr2", ff20 + strings.Repeat("00", 12), sha1File + strings.Repeat("00", 12)},
		{"padded-sha1:sha256", "pcr2", strings.Repeat("ff", 32), sha1File + strings.Repeat("00", 12)},
		{"padded-sha1:sha384", "pcr2", strings.Repeat("ff", 32), ""},
		{"violation-zero", "pcr2", strings.Repeat("00", 32), ""},
		{"rtmr-column", "rtmr2", strings.Repeat("ff", 32), ""},
	} {
		t.Run(tc.profile, func(t *testing.T) {
			p, err := ima.ParseProfile(tc.profile)
			if err != nil {
				t.Fatal(err)
			}
			r, err := ima.NewReader(bytes.NewReader(append(bytes.Clone(violation), file...)), ima.Options{Banks: []rtmr.Alg{rtmr.SHA256}, Profile: p})
			if err != nil {
				t.Fatal(err)
			}
			want := []string{tc.violation, tc.fileHash}
			if tc.fileHash == "" {
				want[1] = rtmr.Hex(rtmr.SHA256.AppendHash(nil, ng(le, "/bin/sh"))).String()
			}
			for m, err := range r.Measurements() {
				if err != nil {
					t.Fatal(err)
				}
				if got := rtmr.Hex(m.Digests[1].Sum).String(); m.Register.String() != tc.register || got != want[m.Index] {
					t.Errorf("entry %d: %s %s, want %s %s", m.Index, m.Register, got, tc.register, want[m.Index])
				}
			}
		})
	}
	for _, s := range []string{"", "mainline,padded-sha1", "padded-sha1:md5", "padded"} {
		if p, err := ima.ParseProfile(s); err == nil {
			t.Errorf("%q is read as %+v", s, p)
		}
	}
}
