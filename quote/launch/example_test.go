package launch_test

import (
	"fmt"
	"strings"

	"tallystick/internal/launchtest"
	"tallystick/quote/launch"
)

// What a guest's report has to have as MEASUREMENT, and what of the launch it
// comes from.
func ExampleSNP() {
	firmware := launchtest.AmdSev().Build() // os.ReadFile("OVMF.amdsev.fd")
	signature, err := launch.ModelSignature("EPYC-v4")
	if err != nil {
		fmt.Println(err)
		return
	}
	kernel, err := launch.HashKernel(strings.NewReader("kernel"), strings.NewReader("initrd"), "console=ttyS0")
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := launch.SNP{Firmware: firmware, Kernel: &kernel, VCPUs: launch.VCPUs{Count: 1, Signature: signature}}.Measure()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Alg, m.Digest)
	for _, p := range m.Parts[6:] {
		fmt.Printf("%s (%s, %d bytes at %#x)\n", p.Name, p.Type, p.Size, p.GPA)
	}
	// Output:
	// sha384 79576786004ea2c957a112a83fdbadc334aac00bb70da9d48409b23efdb0319b449bf8f212b49086315510da20dac8b7
	// SNP_SEC_MEM (zero, 61440 bytes at 0x811000)
	// SNP_KERNEL_HASHES (normal, 4096 bytes at 0x810000)
	// VMSA of vCPU 0 (vmsa, 4096 bytes at 0xfffffffff000)
}
