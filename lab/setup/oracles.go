//go:build linux

package setup

// oracles are the programs that make fixtures asks what it captured: independent
// readers of boot logs, IMA lists and quotes. evmctl signs for IMA and EVM, and
// openssl appends signatures as a kernel module's.
var oracles = []hostTool{
	{"tpm2-tools", "tpm2_eventlog"},
	{"tpm2-tools", "tpm2_checkquote"},
	{"ima-evm-utils", "evmctl"},
	{"openssl", "openssl"},
}

// Oracles finds the programs that make fixtures takes beside the lab's, and
// installs those that are not there.
func Oracles() error { return install(oracles) }
