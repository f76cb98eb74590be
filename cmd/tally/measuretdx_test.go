package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"tallystick/eventlog"
	"tallystick/internal/tdvftest"
	"tallystick/rtmr"
)

func init() {
	scriptSetups["measuretdx"] = func(_ *testing.T, env *testscript.Env) error { return layOutTD(env.WorkDir) }
}

// layOutTD writes what a TD is launched with.
func layOutTD(dir string) error {
	image := tdvftest.EDK2().Bytes()
	disk, err := labDisk()
	if err != nil {
		return err
	}
	unmeasured := tdvftest.Small()
	unmeasured.Sections[0].Attributes = 0
	for name, data := range map[string][]byte{
		"unmeasured.fd": unmeasured.Bytes(), "OVMF.fd": image, "small.fd": tdvftest.Small().Bytes(),
		"OVMF_VARS.fd": image[:tdvftest.CFV4M], "OVMF_CODE.fd": image[tdvftest.CFV4M:],
		"vmlinuz": tdvftest.Kernel(), "initrd": make([]byte, 12345),
		"loader": []byte("loader"), "rsdp": []byte("rsdp"), "tables": []byte("tables"), "empty": nil, "disk.img": disk,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// labDisk is the beginning of a disk of the lab's, put together from what firmware
// logged of it.
func labDisk() ([]byte, error) {
	data, err := os.ReadFile("../../fixtures/uki-7.3/boot.bin")
	if err != nil {
		return nil, err
	}
	r, err := eventlog.NewReader(bytes.NewReader(data), eventlog.Options{})
	if err != nil {
		return nil, err
	}
	disk := make([]byte, 2<<20)
	for m, err := range r.Measurements() {
		if err != nil {
			return nil, err
		}
		if event := m.Entry.Data(); m.Entry.Type() == "EV_EFI_GPT_EVENT" {
			copy(disk[512:], event[:92])
			copy(disk[1024:], event[100:])
		}
	}
	return disk, nil
}

// TestMeasureRealTD: what measure predicts of RTMR0 with a TD's own log is what its
// quote says, and of the other registers of course not: they are another kernel's
// and another firmware's.
func TestMeasureRealTD(t *testing.T) {
	const corpus = "../../../shared/corpus/tdx-live/"
	if _, err := os.Stat(corpus); errors.Is(err, os.ErrNotExist) {
		t.Skip("../shared/corpus is not here")
	}
	dir := t.TempDir()
	if err := layOutTD(dir); err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	measured := tally(t, "measure", "tdx", "--tdvf", file("OVMF.fd"), "--memory", "2G", "--kernel", file("vmlinuz"), "--append", "quiet", "--log", corpus+"tdx_ccel_live2.dat")
	var all rtmr.Values
	if err := json.Unmarshal(measured, &all); err != nil {
		t.Fatal(err)
	}
	reconcile := []string{"reconcile", "--quote", corpus + "tdx_quote_live.dat", corpus + "tdx_ccel_live2.dat", "--expect"}
	for register, want := range map[string]string{"rtmr0": "RECONCILED", "rtmr1": "DIVERGED: sha384:rtmr1 is not what was expected of it", "rtmr2": "DIVERGED: sha384:rtmr2 is not what was expected of it", "mrtd": "DIVERGED: sha384:mrtd is not what was expected of it"} {
		r := rtmr.MustParse(register)
		expected, err := json.Marshal(rtmr.Values{rtmr.SHA384: {r: all[rtmr.SHA384][r]}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file(register), expected, 0o644); err != nil {
			t.Fatal(err)
		}
		if out := tally(t, append(reconcile, file(register))...); !bytes.HasPrefix(out, []byte(want)) {
			t.Errorf("%s: %.200s, want %q", register, out, want)
		}
	}
}
