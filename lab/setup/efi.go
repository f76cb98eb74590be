//go:build linux

package setup

import "path/filepath"

// Loaders are Debian's boot loaders for UEFI.
type Loaders struct {
	Shim string // signed by Microsoft, whose certificate OVMF's .ms variables hold
	GRUB string // signed by Debian, whose certificate is in shim
	Stub string // systemd's, the head of a unified kernel image; not signed
}

// FindLoaders returns the boot loaders, and downloads them if they are not there.
func FindLoaders() (*Loaders, error) {
	dir, err := Once("loaders", func(tmp string) error {
		return inApt(AMD64, func(a *apt) error {
			return a.fetch(tmp, "shim-signed", "grub-efi-amd64-signed", "systemd-boot-efi")
		})
	})
	if err != nil {
		return nil, err
	}
	return &Loaders{
		Shim: filepath.Join(dir, "usr/lib/shim/shimx64.efi.signed"),
		GRUB: filepath.Join(dir, "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
		Stub: filepath.Join(dir, "usr/lib/systemd/boot/efi/linuxx64.efi.stub"),
	}, nil
}

// FindOVMF returns the folder in which Debian's newest OVMF is unpacked, and
// downloads it if it is not there. The host's own is older.
func FindOVMF() (root string, err error) {
	return Once("ovmf", func(tmp string) error {
		return inApt(AMD64, func(a *apt) error { return a.fetch(tmp, "ovmf") })
	})
}
