//go:build linux

package tap

// It needs clang, llvm, libbpf-dev and linux-libc-dev; see package bpf.
//
//go:generate ./generate .
