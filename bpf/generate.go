//go:build linux

package bpf

// It needs clang, llvm, libbpf-dev and linux-libc-dev. What is committed comes
// from the clang of testdata/clang-version, and TestGenerated compares.
//
//go:generate ./generate .
