package launch_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"tallystick/internal/readertest"
	"tallystick/quote/launch"
	"tallystick/rtmr"
)

// diskOf is the beginning of a fixture's disk, put together from what firmware
// logged of it: the header, and the entries in use, behind which the others are
// empty.
func diskOf(t testing.TB, fixture string, sector int) []byte {
	t.Helper()
	for m := range bootEvents(t, fixture) {
		if m.Entry.Type() == "EV_EFI_GPT_EVENT" {
			event := m.Entry.Data()
			disk := make([]byte, 2*sector+128*128)
			copy(disk[sector:], event[:92])
			copy(disk[2*sector:], event[100:])
			return disk
		}
	}
	t.Fatal("the fixture's log has no table")
	return nil
}

// TestGPTEvent: what is measured of a real disk is what firmware measured of it.
func TestGPTEvent(t *testing.T) {
	for _, fixture := range []string{"uki-7.3", "uki-ovmf2025-7.3", "shim-grub-sb-6.12"} {
		for _, sector := range []int{512, 4096} {
			event, err := launch.GPTEvent(diskOf(t, fixture, sector))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := hex.EncodeToString(rtmr.SHA384.AppendHash(nil, event)), logged(t, fixture, "EV_EFI_GPT_EVENT")[0]; got != want {
				t.Errorf("%s, sectors of %d: got %s, want %s", fixture, sector, got, want)
			}
		}
	}
}

// TestGPTGaps: entries that are not in use are left out, wherever they are.
func TestGPTGaps(t *testing.T) {
	disk := diskOf(t, "uki-7.3", 512)
	event, err := launch.GPTEvent(disk)
	if err != nil {
		t.Fatal(err)
	}
	entries := disk[1024:]
	copy(entries[5*128:], entries[:128])
	copy(entries[:128], make([]byte, 128))
	sumGPT(disk)
	moved, err := launch.GPTEvent(disk)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(moved[92:], event[92:]) {
		t.Error("the sixth entry is measured otherwise than the first")
	}
	copy(entries[127*128:], entries[5*128:6*128])
	sumGPT(disk)
	if two, err := launch.GPTEvent(disk); err != nil || len(two) != len(event)+128 || two[92] != 2 {
		t.Errorf("two partitions: %x, %v", two, err)
	}
}

// sumGPT makes a disk's checksums right.
func sumGPT(disk []byte) {
	le := binary.LittleEndian
	header := disk[512:][:92]
	le.PutUint32(header[88:], crc32.ChecksumIEEE(disk[1024:][:128*128]))
	le.PutUint32(header[16:], 0)
	le.PutUint32(header[16:], crc32.ChecksumIEEE(header))
}

func TestMalformedGPT(t *testing.T) {
	le := binary.LittleEndian
	// The header's sum is made right again, but for where it is what is wrong.
	put := func(at int, value uint32) func([]byte) []byte {
		return func(b []byte) []byte {
			le.PutUint32(b[512+at:], value)
			le.PutUint32(b[512+16:], 0)
			le.PutUint32(b[512+16:], crc32.ChecksumIEEE(b[512:][:92]))
			return b
		}
	}
	for _, c := range []struct {
		name   string
		change func([]byte) []byte
		want   string
	}{
		{"empty", func(b []byte) []byte { return nil }, "no GPT"},
		{"an MBR alone", func(b []byte) []byte { return b[:512] }, "no GPT"},
		{"half a header", func(b []byte) []byte { return b[:512+91] }, "no GPT"},
		{"a changed header", func(b []byte) []byte { b[512+60] ^= 1; return b }, "offset 0x200: the GPT's header has 92 bytes and CRC"},
		{"a longer header", put(12, 96), "offset 0x200: the GPT's header has 96 bytes"},
		{"longer entries", put(84, 256), "offset 0x254: entries of 256 bytes, expected 128"},
		{"a changed entry", func(b []byte) []byte { b[1024+60] ^= 1; return b }, "offset 0x258: the entries' CRC is"},
		{"entries elsewhere", put(72, 1<<31), "offset 0x248: 128 entries from sector 2147483648"},
		{"entries far elsewhere", put(76, 1<<31), "128 entries from sector 9223372036854775810"},
		{"many entries", put(80, 1<<32-1), "4294967295 entries from sector 2"},
		{"cut off", func(b []byte) []byte { return b[:len(b)-1] }, "128 entries from sector 2, and 17407 bytes of the disk are here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := launch.GPTEvent(c.change(diskOf(t, "uki-7.3", 512)))
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, launch.ErrNoGPT) != (c.want == "no GPT") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// FuzzGPTEvent: what is measured is no longer than the disk.
func FuzzGPTEvent(f *testing.F) {
	f.Add(diskOf(f, "uki-7.3", 512))
	f.Add(diskOf(f, "shim-grub-sb-6.12", 4096)[:0x3000])
	f.Fuzz(func(t *testing.T, disk []byte) {
		event, err := launch.GPTEvent(disk)
		if err != nil {
			readertest.CheckLine(t, err.Error(), 64)
			return
		}
		if len(event) > len(disk)+100 || (len(event)-100)%128 != 0 {
			t.Errorf("%d bytes of a disk of %d", len(event), len(disk))
		}
	})
}
