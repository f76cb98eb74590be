package launch_test

import (
	"encoding/hex"
	"testing"

	"tallystick/quote/launch"
)

// Table: GUIDs and sizes laid out by hand from QEMU's target/i386/sev.c, digests by
// sha256sum: of "console=ttyS0" and a zero byte, "initrd", "kernel".
func TestKernelHashes(t *testing.T) {
	const want = "06d63894224fc94cb479a793d411fd21" + "a800" +
		"d82dd09720bd944caa78e7714d36ab2a" + "3200" + "f18aae9b3c09e55bc3047ad361e2442d7c53372470b2958fb83293209a784f71" +
		"31f7ba442f3ad74b9af141e29169781d" + "3200" + "09e6c018d2c8c4903308613dd1b72484d57eadf12ec50ddc8f52e5accce470f2" +
		"3794e74dd2ab7f42b835d5b172d2045b" + "3200" + "6923dd1bc0460082c5d55a831908c24a282860b7f1cd6c2b79cf1bc8857c639c" +
		"0000000000000000"
	table := hashes(t).Table()
	if got := hex.EncodeToString(table); got != want || len(table) != launch.KernelHashesSize {
		t.Errorf("%s\nexpected\n%s", got, want)
	}
}
