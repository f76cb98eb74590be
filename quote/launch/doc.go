// Package launch recomputes what hardware measures when a guest is launched, from
// the files that the guest is launched with.
//
// [SNP] gives the launch digest that stands as MEASUREMENT in an SEV-SNP guest's
// attestation report, [SEV] the one that an SEV or SEV-ES guest's launch
// measurement is made with. [IGVM] is for SEV-SNP guests that are launched from an
// IGVM file, as those with an SVSM are. [TDX] gives MRTD, and RTMR0 to RTMR2 as far as
// they follow from files; what follows here is of AMD's.
//
// A [Measurement] says of what it is made, part by part, with the digest after each
// of them: of two measurements that differ, the first part whose digest differs is
// the one that changed.
//
// # What is measured
//
// The firmware processor measures pages and processors in the order in which the
// hypervisor hands them over, and the hypervisors differ. What is known of them is
// public: QEMU's target/i386/sev.c, KVM's arch/x86/kvm/svm/sev.c, the rules of EC2
// and GCE by what their owners published (sev-snp-measure, to which EC2's people
// contribute; gce-tcb-verifier). [VMM] says how each does.
//
//   - The firmware image, whole, so that it ends at 4 GiB.
//   - The memory that the image itself names, as the sections of its SEV metadata
//     (edk2 OvmfPkg/ResetVector/X64/OvmfSevMetadata.nasm.inc): of most of it the
//     place and the kind is measured, and not the content. SEV and SEV-ES have
//     none of it.
//   - For a kernel that QEMU hands to the firmware, a table of three SHA-256 digests,
//     of command line, initrd and kernel: [KernelHashes].
//   - The processors' registers at their start, a page each: [VCPUs]. SEV has none
//     of it.
//
// What the guest has when it runs, and is not in this, is not measured: ACPI
// tables, the devices, the UEFI variables of a second flash, all that comes from a
// disk.
//
// # TDX
//
// [TDX] gives a TD's MRTD, by the rules of its own VMMs ([TDXHost]), and its run-time
// registers as far as they follow from files: docs/measure.md says what does.
// [TDVF] is the image, [PE] a kernel or a loader.
package launch
