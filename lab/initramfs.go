//go:build linux

package lab

import (
	"encoding/json"
	"path"

	"tallystick/lab/internal/wire"
	"tallystick/lab/setup"
)

// ownModules are what the root disk and the port take. crc32c is a softdep of
// ext4, which the kernel has by itself from 6.14 or so.
var (
	ownModules      = []string{"virtio_blk", "virtio_console", "ext4"}
	optionalModules = []string{"virtio_pci", "virtio_ccw", "crc32c_generic", "crc32c_intel", "configfs"}
)

// initramfs makes the first file system: init, the modules, the policy.
func (m *Machine) initramfs(p *parts) ([]byte, error) {
	var a archive
	a.file("/init", 0o755, p.init)
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run", "/root", "/tmp"} {
		a.dir(dir)
	}
	a.device("/dev/console", 5, 1)
	boot := wire.Boot{Root: "/dev/vda"}
	if m.Debian != "" {
		boot.Init = "/sbin/init"
	}
	modules, err := m.modules(p.kernel)
	if err != nil {
		return nil, err
	}
	for _, module := range modules {
		content, err := module.Read()
		if err != nil {
			return nil, err
		}
		addModule(&a, &boot, module.Name, content, "")
	}
	if p.labtsm != nil {
		addModule(&a, &boot, "labtsm", p.labtsm, m.TSMParams)
	}
	if m.Policy != "" {
		a.file(wire.PolicyFile, 0o644, []byte(m.Policy))
	}
	text, err := json.Marshal(boot)
	if err != nil {
		return nil, err
	}
	a.file(wire.BootFile, 0o644, text)
	return a.bytes(), nil
}

func addModule(a *archive, boot *wire.Boot, name string, content []byte, params string) {
	file := path.Join("/lab/modules", name+".ko")
	boot.Modules = append(boot.Modules, wire.Module{File: file, Params: params})
	a.file(file, 0o644, content)
}

// modules returns what init loads, in order.
func (m *Machine) modules(k *setup.Kernel) ([]setup.Module, error) {
	var names []string
	for _, name := range optionalModules {
		if _, err := k.Modules(name); err == nil {
			names = append(names, name)
		}
	}
	if m.TSM {
		names = append(names, "tsm_report") // which labtsm calls
	}
	return k.Modules(append(append(names, ownModules...), m.Modules...)...)
}
