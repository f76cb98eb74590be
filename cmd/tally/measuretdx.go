package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tallystick/ima"
	"tallystick/quote/launch"
	"tallystick/rtmr"
)

// tdxFlags say what the TD is launched with.
type tdxFlags struct {
	firmware, vmm, memory, secureBoot string
	edk2                              int
	early                             bool
	kernel, initrd, commandLine       string
	disk                              string
	loaded                            []string
	acpi                              [3]string
	log                               string
	output                            measureOutput
}

var secureBoots = map[string]launch.SecureBoot{
	"from-image": launch.SecureBootFromImage, "not-set": launch.SecureBootNotSet, "off": launch.SecureBootOff, "on": launch.SecureBootOn,
}

// acpiFlags are for what the firmware measures of QEMU's files, in its order.
var acpiFlags = [3]string{"acpi-loader", "acpi-rsdp", "acpi-tables"}

func newMeasureTDX() *cobra.Command {
	var f tdxFlags
	cmd := &cobra.Command{
		Use:   "tdx --tdvf FILE",
		Short: "Recompute a TD's MRTD, and RTMR0 to RTMR2 as far as they follow from files",
		Long: `Recompute MRTD of a TD from its firmware image, by the rule of the VMM that
launches it.

Where QEMU hands a kernel to the firmware (--kernel), RTMR1 and RTMR2 follow from
the kernel, the initrd and the command line, and RTMR0 from the image, the
machine's memory and the host's ACPI tables. Those tables are in no image: give
QEMU's files (--acpi-loader, --acpi-rsdp, --acpi-tables), or a log of such a TD
(--log), which is then believed in that and in no other point. Where the TD boots
from a disk, RTMR1 follows from the disk's partition table (--disk) and from the
images that are loaded, each a --load, in their order. If that is one unified
kernel image, RTMR2 follows from it too. A register that does not follow from what
was given is left out, and standard error says why.

The VMM's rules: qemu is QEMU from 10.2, qemu-10.1 the release before it, qemu-9
and qemu-8 are QEMU 9 and 8 as distributions patched them for TDX, gce is
Google's, and gce-all Google's as it was first, which measured its list of memory
into MRTD. They differ in MRTD (qemu-8, gce-all), in the kernel's digest in RTMR1
(qemu-10.1, qemu-9 and qemu-8 write to its header), and in the list of memory.`,
		Example: `  tally measure tdx --tdvf OVMF.fd > expected.json
  tally measure tdx --tdvf OVMF.fd --kernel vmlinuz --initrd initrd --append "console=ttyS0" --memory 4G --log ccel.bin
  tally measure tdx --tdvf OVMF.fd --disk disk.img --load uki.efi
  tally reconcile --quote quote.bin --expect expected.json ccel.bin`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkGivenBut(cmd, "append"); err != nil {
				return err
			}
			if err := f.checkUsed(cmd); err != nil {
				return err
			}
			return f.run(cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.firmware, "tdvf", "", "the firmware image, whole: OVMF's variables and code in one file")
	flags.StringVar(&f.vmm, "vmm", string(launch.TDXQEMU), "the VMM whose rules hold: "+words(launch.TDXHosts))
	flags.StringVar(&f.memory, "memory", "", "the machine's memory, such as 512M or 16G")
	flags.BoolVar(&f.early, "early-accept", false, "a GCE machine whose firmware accepts all of its memory")
	flags.IntVar(&f.edk2, "edk2", launch.DefaultEDK2, "the release of edk2 that the firmware was built from, as year and month")
	flags.StringVar(&f.secureBoot, "secure-boot", "from-image", "the variable SecureBoot: from-image (on if the image has a PK, else not-set), not-set (built without Secure Boot), off, on")
	flags.StringVar(&f.kernel, "kernel", "", "the kernel that QEMU hands over")
	flags.StringVar(&f.initrd, "initrd", "", "its initrd")
	flags.StringVar(&f.commandLine, "append", "", "its command line, as it is given to QEMU")
	flags.StringVar(&f.disk, "disk", "", "the disk that the TD boots from, raw, or its first MiB")
	flags.StringArrayVar(&f.loaded, "load", nil, "an image that is loaded from the disk; once for each, in order: shim, GRUB and the kernel, or a unified kernel image")
	for i, name := range acpiFlags {
		flags.StringVar(&f.acpi[i], name, "", "QEMU's file "+[...]string{"etc/table-loader", "etc/acpi/rsdp", "etc/acpi/tables"}[i])
	}
	flags.StringVar(&f.log, "log", "", "a log of such a TD, for the digests of what the host decides: its list of memory and its ACPI tables")
	f.output.register(cmd)
	complete(cmd, "vmm", texts(launch.TDXHosts)...)
	complete(cmd, "secure-boot", "from-image", "not-set", "off", "on")
	return cmd
}

func (f *tdxFlags) run(stdout, stderr io.Writer) error {
	td, err := f.td()
	if err != nil {
		return err
	}
	m, err := td.Measure()
	if err != nil {
		return f.named(err)
	}
	notes := f.notes(m)
	if len(m.Values) == 0 {
		return errors.New(strings.Join(notes, "; "))
	}
	if !f.output.parts {
		for _, note := range notes {
			fmt.Fprintln(stderr, "tally:", printable(note))
		}
	}
	return f.output.print(stdout, m.Values, []string{"register", "part", "what", "from", "sha384"}, tdxRows(m), notes...)
}

// checkUsed refuses flags from which nothing would follow: who gives one counts on
// its being asked for.
func (f *tdxFlags) checkUsed(cmd *cobra.Command) error {
	given := func(name string) bool { return cmd.Flags().Changed(name) }
	if given("early-accept") && !given("memory") {
		return errors.New("--early-accept goes with --memory, which is missing")
	}
	if f.kernel != "" || f.output.parts {
		return nil
	}
	unused := append([]string{"log", "secure-boot"}, acpiFlags[:]...)
	if launch.TDXHost(f.vmm) != launch.TDXGCEAll {
		unused = append(unused, "memory")
	}
	if len(f.loaded) == 0 {
		unused = append(unused, "edk2")
	}
	for _, name := range unused {
		if given(name) {
			return fmt.Errorf("--%s was given, and without --kernel no register follows from it (--parts shows what it gives)", name)
		}
	}
	return nil
}

// named names the file that an error is about.
func (f *tdxFlags) named(err error) error {
	paths := map[string]string{"firmware": f.firmware, "kernel": f.kernel, "disk": f.disk}
	for i, path := range f.loaded {
		paths[fmt.Sprintf("loaded image %d", i+1)] = path
	}
	return namePart(err, paths)
}

// td reads the files and the other flags.
func (f *tdxFlags) td() (td launch.TDX, err error) {
	if f.firmware == "" {
		return td, errors.New("--tdvf is missing: the firmware image that the TD is launched with")
	}
	td = launch.TDX{Host: launch.TDXHost(f.vmm), EDK2: f.edk2, EarlyAccept: f.early, CommandLine: f.commandLine}
	if !slices.Contains(launch.TDXHosts, td.Host) {
		return td, fmt.Errorf("--vmm %q, expected one of %s", f.vmm, words(launch.TDXHosts))
	}
	if year, month := f.edk2/100, f.edk2%100; year < 2022 || year > 2100 || month < 1 || month > 12 {
		return td, fmt.Errorf("--edk2 %d, expected year and month of a release, such as %d", f.edk2, launch.DefaultEDK2)
	}
	var ok bool
	if td.SecureBoot, ok = secureBoots[f.secureBoot]; !ok {
		return td, fmt.Errorf("--secure-boot %q, expected from-image, not-set, off or on", f.secureBoot)
	}
	if f.early && (td.Host != launch.TDXGCE && td.Host != launch.TDXGCEAll) {
		return td, fmt.Errorf("--early-accept was given, and --vmm %s has no such setting", td.Host)
	}
	if td.Memory, err = parseMemory(f.memory); err != nil {
		return td, err
	}
	if td.Firmware, err = readTDVF(f.firmware); err != nil {
		return td, err
	}
	if err := f.files(&td); err != nil {
		return td, err
	}
	if f.log != "" {
		td.Log, err = readHostShare(f.log)
	}
	return td, err
}

// files reads what the TD boots, and the host's tables.
func (f *tdxFlags) files(td *launch.TDX) (err error) {
	for i, path := range f.acpi {
		if path == "" {
			continue
		}
		if td.ACPI[i], err = readImage(path); err != nil {
			return err
		}
	}
	if f.kernel != "" {
		if td.Kernel, err = readLoaded(f.kernel); err != nil {
			return err
		}
	}
	for _, path := range f.loaded {
		image, err := readLoaded(path)
		if err != nil {
			return err
		}
		td.Loaded = append(td.Loaded, image)
	}
	if f.initrd != "" {
		if td.Initrd, err = readInitrd(f.initrd); err != nil {
			return err
		}
	}
	if f.disk != "" {
		td.Disk, err = readBeginning(f.disk, launch.GPTBytes)
	}
	return err
}

// maxLoaded bounds an image that firmware loads, whose size it holds in 32 bits. A
// unified kernel image may have a whole system in it.
const maxLoaded = 1<<32 - 1

func readLoaded(path string) ([]byte, error) {
	data, err := readBeginning(path, maxLoaded+1)
	if err == nil && int64(len(data)) > maxLoaded {
		err = fmt.Errorf("%s: longer than %d bytes, which no firmware loads", path, maxLoaded)
	}
	return data, err
}

func readInitrd(path string) (*launch.Initrd, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	initrd, err := launch.ReadInitrd(file)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return initrd, err
}

// readBeginning reads a file's first bytes, or all of a shorter one.
func readBeginning(path string, size int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, size))
	if err == nil && len(data) == 0 {
		err = fmt.Errorf("%s: the file is empty", path)
	}
	return data, err
}

func readTDVF(path string) (*launch.TDVF, error) {
	image, err := readImage(path)
	if err != nil {
		return nil, err
	}
	firmware, err := launch.ParseTDVF(image)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return firmware, nil
}

func readHostShare(path string) (launch.HostShare, error) {
	l, err := new(inputFlags).open(path, ima.Signs{})
	if err != nil {
		return launch.HostShare{}, err
	}
	defer l.Close()
	share, err := launch.ReadHostShare(l.Measurements())
	if err != nil {
		err = l.fault(err)
	}
	return share, err
}

// parseMemory reads a size with a unit; "" is 0. Without a unit it is an error,
// for QEMU's is MiB and others' are bytes.
func parseMemory(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	shift, ok := map[string]int{"M": 20, "G": 30, "T": 40}[strings.ToUpper(s[len(s)-1:])]
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 64)
	if !ok || err != nil || n == 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("--memory %q, expected a number with M, G or T, such as 512M or 16G", s)
	}
	return n << shift, nil
}

// notes say what the values are without, and what they believe.
func (f *tdxFlags) notes(m *launch.TDXMeasurement) (notes []string) {
	for _, n := range m.NotPredicted {
		notes = append(notes, fmt.Sprintf("%s is not predicted: %s", n.Register, n.Why))
	}
	for i, s := range m.Sections {
		if s.Type == launch.TDVFBFV && s.Extended == 0 {
			notes = append(notes, fmt.Sprintf("section %d of the image (BFV) is not extended: mrtd says where its code is, and not what it is", i))
		}
	}
	var believed []string
	for _, e := range m.Events {
		if e.Other != nil {
			notes = append(notes, fmt.Sprintf("%s: the log has another digest of %s, %s", f.log, e.Name, e.Other))
		}
		if _, predicted := m.Values[rtmr.SHA384][e.Register]; e.FromLog && predicted {
			believed = append(believed, e.Name)
		}
	}
	if len(believed) > 0 {
		notes = append(notes, fmt.Sprintf("rtmr0 takes the digests of %s from %s, and nothing confirms them", strings.Join(believed, ", "), f.log))
	}
	return notes
}

func tdxRows(m *launch.TDXMeasurement) (rows [][]string) {
	for _, s := range m.Sections {
		from := "-"
		if s.RawDataSize > 0 {
			from = fmt.Sprintf("the image at %#x", s.DataOffset)
		}
		rows = append(rows, []string{"mrtd", s.Type.String(), fmt.Sprintf("%#x to %#x: %d pages added, %d chunks extended", s.MemoryAddress, s.MemoryAddress+s.MemoryDataSize, s.Added, s.Extended), from, "-"})
	}
	for _, e := range m.Events {
		digest := "-"
		if e.Digest != nil {
			digest = e.Digest.String()
		}
		rows = append(rows, []string{e.Register.String(), e.Name, e.Type, e.From, digest})
	}
	return rows
}

func texts[T ~string](values []T) (out []string) {
	for _, v := range values {
		out = append(out, string(v))
	}
	return out
}

func words[T ~string](values []T) string { return strings.Join(texts(values), ", ") }
