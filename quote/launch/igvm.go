package launch

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// IGVM is how an SEV-SNP guest is launched from an IGVM file, which says itself what
// the guest has in its memory at the start: an SVSM with its firmware, or another
// paravisor. The format is Microsoft's igvm_defs'; QEMU reads it in backends/igvm.c.
//
// Hyper-V adds it in the file's order. QEMU holds a run of page data back, and adds
// it behind the parameters that are inserted meanwhile; and KVM measures the
// processors behind all pages.
type IGVM struct {
	File []byte

	// VMM is QEMU or HyperV.
	VMM VMM
}

// Measure returns the launch digest, SHA-384, of a guest with the processors that
// the file has. (KVM without support of SVSMs also measures each further processor
// that the guest is given. What they are measured as is not known here.)
//
// The error gives the offset in the file of what is wrong. It is one, too, if the
// file is signed for another launch digest, or twice; if it has a page twice, or a
// processor elsewhere than KVM does; and where loaders differ: pages of 2 MiB,
// shared ones, and parameters behind pages without data (Coconut's QEMU has another
// order there than QEMU).
func (g IGVM) Measure() (*Measurement, error) {
	if g.VMM != QEMU && g.VMM != HyperV {
		return nil, fmt.Errorf("%s launches no guests from IGVM files, expected %s or %s", g.VMM, QEMU, HyperV)
	}
	f, err := parseIGVM(g.File)
	if err != nil {
		return nil, err
	}
	mask, err := f.snpMask()
	if err != nil {
		return nil, err
	}
	l := igvmLoader{file: f, vmm: g.VMM, mask: mask, areas: map[uint32]uint64{}}
	for _, h := range f.headers {
		if err := l.directive(h); err != nil {
			return nil, fmt.Errorf("offset %#x: %w", h.offset, err)
		}
	}
	return l.finish()
}

// igvmLoader adds what the directives say.
type igvmLoader struct {
	file *igvmFile
	vmm  VMM
	mask uint32 // of the directives for SEV-SNP

	pages    pages
	run      *pageRun
	held     heldPages
	contexts []pageOf          // the processors that KVM measures when all pages are added
	areas    map[uint32]uint64 // sizes of parameter areas; 0 once they are inserted
	inserted uint64            // bytes of those that are
	signed   []byte            // the launch digest that the file is signed for
}

// directive adds what one directive says. Others, such as those that fill parameter
// areas, add nothing.
func (l *igvmLoader) directive(h igvmHeader) error {
	switch h.typ {
	case igvmParameterArea:
		return l.area(h)
	case igvmPageData:
		return l.page(h)
	case igvmParameterInsert:
		return l.insert(h)
	case igvmVPContext:
		return l.context(h)
	case igvmIDBlock:
		return l.idBlock(h)
	}
	return nil
}

// page adds a page: address (le64), mask (le32), the data's offset in the file
// (le32), flags (le32), type (le16).
func (l *igvmLoader) page(h igvmHeader) error {
	if err := h.size("page data", 24); err != nil || h.u32(8)&l.mask == 0 {
		return err
	}
	const twoMiB, unmeasured, shared = 1 << 0, 1 << 1, 1 << 2
	gpa, flags := h.u64(0), h.u32(16)
	switch {
	case flags&twoMiB != 0:
		return errors.New("page data: a page of 2 MiB: loaders differ in what they add")
	case flags&shared != 0:
		return errors.New("page data: a shared page: loaders differ in what they add")
	}
	if err := checkPage("page data", gpa); err != nil {
		return err
	}
	p := pageOf{name: "pages", gpa: gpa}
	switch typ := h.u16(20); typ {
	case 0:
		p.typ = PageUnmeasured
		if flags&unmeasured == 0 {
			content, err := l.file.page("page data", h.u32(12))
			if err != nil {
				return err
			}
			p.typ, p.content = PageNormal, content
		}
	case 1:
		p.name, p.typ = "secrets", PageSecrets
	case 2, 3: // CPUID_DATA, CPUID_XF
		p.name, p.typ = "CPUID", PageCPUID
	default:
		return fmt.Errorf("page data: type %d, expected 0 to 3", typ)
	}
	if l.vmm != QEMU {
		l.add(p)
		return nil
	}
	if !l.held.goOnWith(h) {
		l.release()
	}
	l.held.hold(h, p)
	return nil
}

// maxParameters bounds the memory of all parameter areas, which takes no bytes in
// the file and time to measure. They hold tables of some pages.
const maxParameters = 64 << 20

// area defines memory that the loader fills: size (le64), index (le32), and the
// offset of its initial data.
func (l *igvmLoader) area(h igvmHeader) error {
	if err := h.size("parameter area", 16); err != nil {
		return err
	}
	size, index := h.u64(0), h.u32(8)
	if size == 0 || size%PageSize != 0 || size > maxParameters {
		return fmt.Errorf("parameter area %d has %#x bytes, expected whole pages of %#x, and %#x at most", index, size, PageSize, maxParameters)
	}
	if _, again := l.areas[index]; again {
		return fmt.Errorf("parameter area %d comes twice", index)
	}
	l.areas[index] = size
	return nil
}

// insert adds a parameter area, whose content is the loader's and so not measured:
// address (le64), mask (le32), index (le32).
func (l *igvmLoader) insert(h igvmHeader) error {
	if err := h.size("parameter insert", 16); err != nil || h.u32(8)&l.mask == 0 {
		return err
	}
	gpa, index := h.u64(0), h.u32(12)
	size := l.areas[index]
	if size == 0 {
		return fmt.Errorf("parameter insert: there is no parameter area %d that is not inserted yet", index)
	}
	if err := checkPage("parameter insert", gpa); err != nil {
		return err
	}
	if err := checkPage("parameter insert", gpa+size-PageSize); err != nil {
		return err
	}
	if l.held.inDoubt() {
		return errors.New("parameter insert: pages without data are right before it: QEMU's versions differ in which of them they add first")
	}
	l.areas[index] = 0
	if l.inserted += size; l.inserted > maxParameters {
		return fmt.Errorf("parameter insert: all areas have %#x bytes, expected %#x at most", l.inserted, maxParameters)
	}
	for at := uint64(0); at < size; at += PageSize {
		l.add(pageOf{name: "parameters", typ: PageUnmeasured, gpa: gpa + at})
	}
	return nil
}

// context adds a processor: address (le64), mask (le32), the VMSA's offset in the
// file (le32), index (le16).
func (l *igvmLoader) context(h igvmHeader) error {
	if err := h.size("VP context", 20); err != nil || h.u32(8)&l.mask == 0 {
		return err
	}
	gpa, index := h.u64(0), h.u16(16)
	if err := checkPage("VP context", gpa); err != nil {
		return err
	}
	if l.vmm == QEMU && (gpa != vmsaGPA || int(index) != len(l.contexts)) {
		return fmt.Errorf("VP context: processor %d at %#x, expected %d at %#x: KVM measures them in their order and at that address", index, gpa, len(l.contexts), uint64(vmsaGPA))
	}
	if h.u32(12) == 0 {
		return errors.New("VP context: no data, expected a VMSA's offset in the file")
	}
	content, err := l.file.page("VP context", h.u32(12))
	if err != nil {
		return err
	}
	p := pageOf{fmt.Sprintf("VMSA of vCPU %d", index), PageVMSA, gpa, content}
	if l.vmm == QEMU {
		l.contexts = append(l.contexts, p)
		return nil
	}
	l.processor(p)
	return nil
}

// processor adds a processor, a part of its own.
func (l *igvmLoader) processor(p pageOf) {
	l.flush()
	l.pages.content(p.name, p.typ, p.gpa, p.content)
}

// idBlock notes the launch digest that the file's ID block is for: mask (le32), 4
// bytes, digest (48 bytes), and more.
func (l *igvmLoader) idBlock(h igvmHeader) error {
	if len(h.data) < 56 {
		return fmt.Errorf("ID block: %d bytes, expected 56 at least", len(h.data))
	}
	if h.u32(0)&l.mask == 0 {
		return nil
	}
	if l.signed != nil {
		return errors.New("ID block: a second one for SEV-SNP, expected one at most")
	}
	l.signed = h.data[8:56]
	return nil
}

// finish adds what is left, and checks what only the whole file tells.
func (l *igvmLoader) finish() (*Measurement, error) {
	l.release()
	l.flush()
	if err := checkOnce(l.pages.parts); err != nil {
		return nil, err
	}
	if l.vmm == QEMU && len(l.contexts) == 0 {
		return nil, errors.New("the file has no VMSA for SEV-SNP: what KVM measures of the processors it does not say")
	}
	for _, p := range l.contexts {
		l.processor(p)
	}
	m := l.pages.measurement()
	if l.signed != nil && !bytes.Equal(l.signed, m.Digest) {
		return nil, fmt.Errorf("the file's ID block is for the launch digest %x, and the file comes to %s: such a guest does not start", l.signed, m.Digest)
	}
	return m, nil
}

// checkOnce reports a page that is there twice: the firmware processor adds a page
// once. KVM's VMSAs, which all have one address, are not among the parts yet.
func checkOnce(parts []Part) error {
	sorted := slices.SortedFunc(slices.Values(parts), func(a, b Part) int { return cmp.Compare(a.GPA, b.GPA) })
	for i := 1; i < len(sorted); i++ {
		if a, b := sorted[i-1], sorted[i]; a.GPA+a.Size > b.GPA {
			return fmt.Errorf("%s of the type %s at %#x are in memory that %s of the type %s at %#x have: such a guest is not launched", b.Name, b.Type, b.GPA, a.Name, a.Type, a.GPA)
		}
	}
	return nil
}

func checkPage(field string, gpa uint64) error {
	const bits = 52 // of physical address that there are at most
	if gpa%PageSize != 0 || gpa >= 1<<bits {
		return fmt.Errorf("%s: the address %#x, expected a page's below %#x", field, gpa, uint64(1<<bits))
	}
	return nil
}
