// Package labtsm holds the source of the kernel module labtsm, a test double of
// a TDX guest's measurement registers: see labtsm.c.
package labtsm

import "embed"

// Source is labtsm.c and its Makefile.
//
//go:embed labtsm.c Makefile
var Source embed.FS
