// Package tap tells when the kernel measured something, and who had it do so:
// IMA, when its list grew, and the measurement registers of a TD, when somebody
// extended one through sysfs.
//
//	t, err := tap.Open(tap.Options{})
//	..
//	for t.Wait(ctx, tap.IMA) == nil {
//		// read what is new in the list
//	}
//
// and, side by side, [Tap.Next] or [Tap.Records] for who it was. [Tap.Status]
// says for each [Source] how it is tapped, or why not. Where it is not, Wait
// returns at an interval, so that its caller polls: no BPF, no privilege and
// lockdown=confidentiality are no errors. Open the tap before the first read of
// the list, and nothing falls between.
//
// # What it is for, and what not
//
// The tap wakes and attributes. It is never the source of digests: what was
// measured stands in the list and in the register, and a record is believed as
// far as its digest is found there. Who may load BPF programs or unload this
// process's can keep records from coming, make the kernel call something else,
// or measure in another's name; a kernel that is not to be trusted can do
// anything. So a record is no evidence, and its absence is none.
//
// A lost record (the reader was too slow, see [Status]) is an attribution that
// is missing, and no measurement: the list has the entry all the same, and Wait
// returns for it.
//
// # Matching records and entries
//
// IMA's records have the template hash in IMA's default hash (ima_hash=), for
// which the kernel accepts an entry once for each PCR; in the list it is
// ima.Entry's TemplateHash, whatever hash the list shows. Violations have no
// digest. Where /proc/kallsyms does not tell addresses (kptr_restrict=2, or a service
// whose /proc has no such file), the record's digest is in the TPM's first bank, or
// SHA-1 without a TPM. A record is made when the kernel has let go of the list, so
// those of entries made at once by several processes may come in another order than
// the entries.
//
// Names of processes are as they were at the measurement: a program that is
// being executed still has its predecessor's. Process ids are those of the
// initial namespace; the cgroup is the one in the unified hierarchy, by the inode
// number of its folder.
//
// # How, and what it takes
//
// It takes Linux 5.17 with BTF, CAP_BPF and CAP_PERFMON. IMA is tapped by two
// kprobes (x86-64, arm64 and s390x, CONFIG_INTEGRITY_AUDIT), for which Debian's
// kernels take CAP_SYS_ADMIN; else by two of ftrace's (CONFIG_FPROBE, which Debian's
// have from 6.12), and where that fails too by fexit. A kernel that preempts itself misses calls with the latter: [Status]
// counts them, and in case one woke nobody, Wait returns at a long interval too.
// Registers take Linux 6.16, and are tapped by a raw tracepoint. tracefs is not
// needed.
package tap
