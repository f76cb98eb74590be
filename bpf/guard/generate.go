//go:build linux

package guard

// It needs clang, llvm, libbpf-dev and linux-libc-dev. What is committed comes
// from the clang of clang-version, and TestGenerated compares.
//
//go:generate ./generate .
