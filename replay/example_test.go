package replay_test

import (
	"fmt"
	"os"

	"tallystick/eventlog"
	"tallystick/ima"
	"tallystick/replay"
	"tallystick/rtmr"
)

// A machine's boot log and its IMA list are folded in order of layers. The
// machine's TPM held the same: fixtures/shim-grub-sb-6.12/values.json.
func Example() {
	boot, err := os.Open("../fixtures/shim-grub-sb-6.12/boot.bin")
	if err != nil {
		panic(err)
	}
	defer boot.Close()
	list, err := os.Open("../fixtures/shim-grub-sb-6.12/ima.bin")
	if err != nil {
		panic(err)
	}
	defer list.Close()

	bank := []rtmr.Alg{rtmr.SHA256}
	fold := replay.New(replay.Options{Banks: bank})
	events, err := eventlog.NewReader(boot, eventlog.Options{})
	if err != nil {
		panic(err)
	}
	if _, err := fold.Log(events.Measurements()); err != nil {
		panic(err)
	}
	entries, err := ima.NewReader(list, ima.Options{Banks: bank})
	if err != nil {
		panic(err)
	}
	if _, err := fold.Log(entries.Measurements()); err != nil {
		panic(err)
	}

	values := fold.Values()[rtmr.SHA256]
	for _, name := range []string{"pcr4", "pcr7", "pcr10"} {
		fmt.Println(name, values[rtmr.MustParse(name)])
	}
	fmt.Println(len(fold.Findings()), "entries contradict themselves")
	// Output:
	// pcr4 833a17486f16b3134084d0d342d38eadba0be00a25b5bc60c600ca6ca05b9d57
	// pcr7 75677db6f14082d3bfec4d14bdd75c8d72612ef6914ca99cd5a5997b7a21309d
	// pcr10 46903739693e300d98b8d9fb2047c4bef793ce2270faf6704d712c78d3851d74
	// 0 entries contradict themselves
}
