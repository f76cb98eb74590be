package launch

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Signature returns a processor's signature, EAX of CPUID function 1, of its family,
// model and stepping as people name them: 25, 1, 1 for EPYC Milan. (AMD64
// Architecture Programmer's Manual, volume 3, appendix E.3.2: families above 15 are
// 15 and an extension.)
func Signature(family, model, stepping uint) (uint32, error) {
	const maxFamily, maxModel, maxStepping = 0xF + 0xFF, 0xFF, 0xF
	if family > maxFamily || model > maxModel || stepping > maxStepping {
		return 0, fmt.Errorf("family %d, model %d, stepping %d: expected up to %d, %d and %d", family, model, stepping, maxFamily, maxModel, maxStepping)
	}
	base, extended := min(family, 0xF), max(family, 0xF)-0xF
	return uint32(extended<<20 | model>>4<<16 | base<<8 | model&0xF<<4 | stepping), nil
}

// cpuModel is one of QEMU's processor models.
type cpuModel struct {
	signature uint32
	versions  int // QEMU has -v1 to this; the signature is the same in all of them
}

// cpuModels are QEMU's models of AMD's EPYC, up to QEMU 10.2 (target/i386/cpu.c,
// builtin_x86_defs).
var cpuModels = map[string]cpuModel{
	"EPYC":       {0x00800F12, 5}, // family 23, model 1, stepping 2
	"EPYC-IBPB":  {0x00800F12, 0},
	"EPYC-Rome":  {0x00830F10, 5}, // 23, 49, 0
	"EPYC-Milan": {0x00A00F11, 3}, // 25, 1, 1
	"EPYC-Genoa": {0x00A10F10, 2}, // 25, 17, 0
	"EPYC-Turin": {0x00B00F00, 1}, // 26, 0, 0
}

// CPUModels returns the names of the processor models that ModelSignature knows,
// without versions.
func CPUModels() []string { return slices.Sorted(maps.Keys(cpuModels)) }

// ModelSignature returns the signature of one of QEMU's processor models, with or
// without a version: "EPYC-v4", "EPYC-Milan". Of "host", "max" and "qemu64" nothing
// is known here, for they are what the host is: Signature, or EAX of CPUID
// function 1 in the guest, tell it.
func ModelSignature(name string) (uint32, error) {
	base, version := name, 0
	if i := strings.LastIndex(name, "-v"); i >= 0 {
		if n, err := strconv.Atoi(name[i+2:]); err == nil && strconv.Itoa(n) == name[i+2:] && n > 0 {
			base, version = name[:i], n
		}
	}
	model, ok := cpuModels[base]
	if !ok {
		return 0, fmt.Errorf("unknown processor model %q, expected one of %s", name, strings.Join(CPUModels(), ", "))
	}
	if version > model.versions {
		return 0, fmt.Errorf("unknown processor model %q: %s has %d versions", name, base, model.versions)
	}
	return model.signature, nil
}
