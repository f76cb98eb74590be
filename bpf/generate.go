//go:build linux

package bpf

// It compiles the programs of the packages below, too, and needs clang, llvm,
// libbpf-dev and linux-libc-dev. What is committed comes from the clang of
// clang-version, and TestGenerated compares.
//
//go:generate ./generate .
