package replay_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tallystick/eventlog"
	"tallystick/internal/testlogs"
	"tallystick/replay"
	"tallystick/rtmr"
)

// TestReplayRealTraps folds third-party logs in which the traps were found to
// the values that their sources publish, or that a quote beside them holds.
func TestReplayRealTraps(t *testing.T) {
	for _, c := range []struct{ trap, file, alg, reg, want string }{
		// A quote holds it: the corpus' tpm-failed-pcr0/good-pcrs.json.
		{"startup_locality_3", "tpm-failed-pcr0/failed-event_log.bin", "sha256", "pcr0",
			"d9f71ad1402adec38f39eded3a6804b27b95eaac9b241265b44fc793c581ec69"},
		// tpm2-tss test/unit/fapi-eventlog.c: of a machine with H-CRTM events.
		{"hcrtm_starts_at_4", "tpm-hcrtm/binary_measurements_hcrtm.bin", "sha256", "pcr0",
			"332dd5f22946bd10839599ea0041cc7a59c7b11e6442eca521c0e82b05b1c36d"},
		// The rest are what the quote or token beside the log holds, or, for
		// AAEL, what an independent parser found (the corpus' index.json).
		{"coco_aael_in_ccel", "aael/CCEL_AAEL_alibabacloud", "sha384", "rtmr3",
			"5e4ecd49d3c7983d6f9ca36755b5cee0b423d7fa8c5a88aeb0681bd4698772bc37b4463dc5f722efe352a66417257dad"},
		{"separator_of_rtmr1_under_rtmr0", "tdx-ccel-ima/ccel_data.bin", "sha384", "rtmr0",
			"c15727cac1f57d0e91106da180b3eaba72116661e17ba0553773843a9b072ecfa38cc803dfb55e0f87ec236780adb3a6"},
		{"dstack_imr_is_0_based", "tdx-dstack/event_log.json", "sha384", "rtmr3",
			"0f787c3877f3e95095d5a4d13dd0fe0233803b30120d8469866719dc28f519ce021fe1e53459121e7a5a4443147185a8"},
		{"ccel_in_sha256_is_a_realm's", "virtcca/CCEL.bin", "sha256", "rem0",
			"e3579705477c2855a75f4127123fff3cd4f05a3b2442fda8829f95ea81ce308c"},
	} {
		t.Run(c.trap, func(t *testing.T) {
			l := testlogs.CorpusLog(t, c.file)
			alg, err := rtmr.ParseAlg(c.alg)
			if err != nil {
				t.Fatal(err)
			}
			if got := fold(t, "", l).Values()[alg][rtmr.MustParse(c.reg)].String(); got != c.want {
				t.Errorf("%s %s: got %s, want %s", c.alg, c.reg, got, c.want)
			}
		})
	}
}

// A log as dstack's API returns it, with the payloads of the firmware's events
// and the digests of dstack's own left out, folds as the whole one does, and
// contradicts itself nowhere.
func TestReplayDstackWithPartsLeftOut(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(corpus, "tdx-dstack/event_log.json"))
	if err != nil {
		t.Skip("../shared/corpus is not here")
	}
	var records []map[string]any
	if err := json.Unmarshal(b, &records); err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		left := "event_payload"
		if r["imr"] == 3.0 {
			left = "digest"
		}
		r[left] = ""
	}
	if b, err = json.Marshal(records); err != nil {
		t.Fatal(err)
	}
	f := replay.New(replay.Options{})
	if _, err := f.Log(eventlog.NewDstackReader(bytes.NewReader(b)).Measurements()); err != nil {
		t.Fatal(err)
	}
	for reg, want := range map[string]string{
		"rtmr0": "2e3843265f8ecdd4e2282694747f6f2f111605c33f2a8882f5734ee6f3a6ce63d8f34aeef06093dcda76fa5f9d33d8d6",
		"rtmr3": "0f787c3877f3e95095d5a4d13dd0fe0233803b30120d8469866719dc28f519ce021fe1e53459121e7a5a4443147185a8",
	} {
		if got := f.Values()[rtmr.SHA384][rtmr.MustParse(reg)].String(); got != want {
			t.Errorf("%s: got %s, want %s", reg, got, want)
		}
	}
	if n := len(f.Findings()); n != 0 {
		t.Errorf("%d findings, the first: %+v", n, f.Findings()[0])
	}
}

// TestReplayAAEL folds the attestation agent's text log to the values that its
// verifiers' tests have: trustee's for two events after INIT in SHA-256 and
// SHA-512, Intel ACON's for one manifest in SHA-384.
func TestReplayAAEL(t *testing.T) {
	const events = "domain event operation\ndomain event2 operation\n"
	for _, c := range []struct{ alg, zeros, lines, reg, want string }{
		{"sha256", strings.Repeat("0", 64), events, "pcr17", "e3f24e31c29b371c521ead351f6fed0865695cf512cfcb0df658090217f6f678"},
		{"sha512", strings.Repeat("0", 128), events, "pcr17", "841f9a2b8b20b144ad9d077cf2a18940a6dee908a808487fad0e43da6878ac3d87ffd75d2514405e8beb2f1b467523f81e81498dbb877782898e00af900eed6c"},
		{"sha384", strings.Repeat("0", 96), "github.com/intel/ACON AddManifest sha384/7ec795c3fe89687d4514a1e4f95b2421012fd0b877eba9d5d5f33a1314fe7e10a5b38b0890d890df59b716f55f41e2ff" +
			"/1be479a625d00cc800da463a19baf111a5f69fa1858d78d124813236bc5b198bd551648273a0f65824b13490263362ef\n",
			"rtmr3", "e7d7d201073316d7e782aa1db45f91a572321053001fb67793d88351770e4c34552533409091748f39b367c5e254a013"},
	} {
		t.Run(c.alg, func(t *testing.T) {
			alg, err := rtmr.ParseAlg(c.alg)
			if err != nil {
				t.Fatal(err)
			}
			f := replay.New(replay.Options{})
			log := "INIT " + c.alg + "/" + c.zeros + "\n" + c.lines
			if _, err := f.Log(eventlog.NewAAELReader(strings.NewReader(log)).Measurements()); err != nil {
				t.Fatal(err)
			}
			if got := f.Values()[alg][rtmr.MustParse(c.reg)].String(); got != c.want {
				t.Errorf("%s: got %s, want %s", c.reg, got, c.want)
			}
		})
	}
}
