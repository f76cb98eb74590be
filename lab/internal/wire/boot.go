package wire

// What the initramfs holds beside init.
const (
	BootFile   = "/lab/boot.json" // a Boot
	PolicyFile = "/lab/policy"    // an IMA policy, if there is one
	Port       = "tallystick.lab" // the virtio-serial port's name

	// Banner is the first line that init writes to the console.
	Banner = "tallystick lab: init"
)

// Boot tells init what to do.
type Boot struct {
	Modules []Module `json:"modules"` // to load, in order
	Root    string   `json:"root"`    // block device, ext4; empty to stay in the initramfs
	Init    string   `json:"init"`    // the root's own first process, which is to start "init serve"; empty for none
}

// Module is a kernel module to load.
type Module struct {
	File   string `json:"file"`
	Params string `json:"params,omitempty"` // "name=value name=value"
}
