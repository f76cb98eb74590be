//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"tallystick/lab/setup"
)

// espFile is a file of an EFI system partition.
type espFile struct {
	path string // "/EFI/BOOT/BOOTX64.EFI"
	host string // the file that is copied
}

// espOffset is where the partition begins: 1 MiB, as everywhere.
const espOffset = 1 << 20

// makeESP makes a disk with a GPT and an EFI system partition, which has the files.
func makeESP(image string, files []espFile) error {
	size := int64(2 * espOffset) // for both partition tables
	for _, f := range files {
		info, err := os.Stat(f.host)
		if err != nil {
			return err
		}
		size += info.Size()
	}
	size = max(size*11/10, 64<<20) &^ (1<<20 - 1) // FAT32 has a least size
	disk, err := os.Create(image)
	if err != nil {
		return err
	}
	err = disk.Truncate(size)
	if closed := disk.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	sectors := (size - 2*espOffset) / 512
	table := fmt.Sprintf("label: gpt\nstart=%d, size=%d, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=ESP\n", espOffset/512, sectors)
	if err := hostRun(table, "sfdisk", "-q", image); err != nil {
		return err
	}
	part := fmt.Sprintf("%s@@%d", image, espOffset)
	if err := hostRun("", "mformat", "-i", part, "-F", "-T", fmt.Sprint(sectors), "-h", "64", "-s", "32", "::"); err != nil {
		return err
	}
	made := map[string]bool{}
	for _, f := range files {
		dir := ""
		for _, name := range strings.Split(strings.Trim(filepath.Dir(f.path), "/"), "/") {
			if dir += "/" + name; name != "" && !made[dir] {
				made[dir] = true
				if err := hostRun("", "mmd", "-i", part, "::"+dir); err != nil {
					return err
				}
			}
		}
		if err := hostRun("", "mcopy", "-i", part, f.host, "::"+f.path); err != nil {
			return err
		}
	}
	return nil
}

// hostRun runs one of the host's programs.
func hostRun(stdin, name string, args ...string) error {
	path, err := setup.Program(name)
	if err != nil {
		return err
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// makeGRUBDisk makes the disk that SecureBoot starts from: shim, GRUB, its
// configuration, the kernel and the initramfs.
func (g *Guest) makeGRUBDisk() (image string, err error) {
	config := filepath.Join(g.dir, "grub.cfg")
	text := fmt.Sprintf(`set timeout=0
menuentry lab {
	linux /vmlinuz %s
	initrd /initramfs
}
`, g.machine.cmdline(g.parts))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return "", err
	}
	image = filepath.Join(g.dir, "esp.img")
	return image, makeESP(image, []espFile{
		{"/EFI/BOOT/BOOTX64.EFI", g.parts.loaders.Shim},
		{"/EFI/BOOT/grubx64.efi", g.parts.loaders.GRUB},
		{"/EFI/debian/grub.cfg", config},
		{"/vmlinuz", g.parts.kernel.Image},
		{"/initramfs", filepath.Join(g.dir, "initramfs")},
	})
}

// makeUKIDisk makes the disk that UKI starts from: the image alone.
func (g *Guest) makeUKIDisk() (image string, err error) {
	initramfs, err := os.ReadFile(filepath.Join(g.dir, "initramfs"))
	if err != nil {
		return "", err
	}
	kernel, err := os.ReadFile(g.parts.kernel.Image)
	if err != nil {
		return "", err
	}
	stub, err := os.ReadFile(g.parts.loaders.Stub)
	if err != nil {
		return "", err
	}
	uki, err := addSections(stub, []section{
		{".osrel", []byte("ID=lab\nVERSION_ID=1\n")},
		{".cmdline", []byte(g.machine.cmdline(g.parts))},
		{".uname", []byte(g.parts.kernel.Release)},
		{".initrd", initramfs},
		{".linux", kernel},
	})
	if err != nil {
		return "", err
	}
	file := filepath.Join(g.dir, "uki.efi")
	if err := os.WriteFile(file, uki, 0o644); err != nil {
		return "", err
	}
	image = filepath.Join(g.dir, "esp.img")
	return image, makeESP(image, []espFile{{"/EFI/BOOT/BOOTX64.EFI", file}})
}
