// Package bpf keeps the registers of a kernel-mode software TPM: 24 registers
// in the banks SHA-1, SHA-256 and SHA-384, for a guest whose hardware has no
// run-time registers.
//
// The values live in a BPF map that is frozen, so that nobody in user space can
// write to it, root included. The one way to change a register is the
// program in registers.c, which computes
//
//	value = H(value ‖ digest)
//
// in the kernel, in all banks at once. [Open] makes the map and pins it, or finds
// it pinned, and loads the program: registers outlive the process, and are reset
// by nothing but a boot. They are an rtmr.Device: [Registers.Extend],
// [Registers.ExtendBatch], [Registers.Read] and [Registers.Snapshot] are the rest.
//
// Extenders and readers need no lock of each other: readers see all registers
// as they were at one moment, and an extender may be killed at any instruction.
//
// Whoever may unpin the map can lose the registers, and whoever may load BPF
// programs can load one that writes to the map, frozen or not: package guard
// denies both to root.
//
// Only Linux has what it needs: at least 5.14, CONFIG_BPF_SYSCALL and a mounted
// BPF file system. On other systems the package is empty.
package bpf
