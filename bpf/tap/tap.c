// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/*
 * Tells user space that the kernel measured something, and who had it do so.
 *
 * Records are made after the measurement took place, in the context of the
 * process. Kernel structures are read by CO-RE, from
 * declarations of the few fields that are needed.
 */
#include <linux/bpf.h>
#include <linux/hash_info.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "tap.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define CORE __attribute__((preserve_access_index))

struct task_struct {
	struct task_struct *real_parent;
	int tgid;
} CORE;

/* include/linux/tpm.h */
struct tpm_digest {
	__u16 alg_id;
	__u8 digest[MAX_DIGEST];
} CORE;

/* security/integrity/ima/ima.h */
struct ima_template_entry {
	int pcr;
	struct tpm_digest *digests;
} CORE;

/* include/linux/tsm-mr.h */
struct tsm_measurement_register {
	const char *mr_name;
	__u32 mr_size;
	__u32 mr_flags;
	enum hash_algo mr_hash;
} CORE;

#define TSM_MR_F_NOHASH 1

/*
 * Which of an entry's digests is the template hash in ima_hash_algo
 * (security/integrity/ima/ima_crypto.c), by which the kernel tells entries
 * apart. Not in BTF; 0 where /proc/kallsyms does not tell the address.
 */
extern void ima_hash_algo_idx __ksym __weak;
extern void ima_hash_algo __ksym __weak;

/* An entry has one digest for each of a TPM's banks, and two at most beside. */
#define MAX_DIGESTS 32

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} records SEC(".maps");

/*
 * Frozen by user space, so that nobody there writes to it. Mapped, because no
 * kprobe runs on a processor while bpf(2) reads a map there, and whoever reads
 * may be preempted (bpf_disable_instrumentation()).
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, NR_SOURCES);
	__type(key, __u32);
	__type(value, struct counts);
} counters SEC(".maps");

/* The arguments of a call that has not returned. */
struct pending {
	__u64 entry; /* 0 for no call */
	__u64 violation;
};

/* Goes away with its thread, so that a call whose end is never seen leaves nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct pending);
} pending SEC(".maps");

/* identify - who measured, and when; not inlined, so that BTF has struct record */
static __noinline void identify(struct record *r, __u32 source, __u64 sequence)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 id = bpf_get_current_pid_tgid();

	r->source = source;
	r->sequence = sequence;
	r->time = bpf_ktime_get_boot_ns();
	r->cgroup = bpf_get_current_cgroup_id();
	r->pid = id >> 32;
	r->tid = id;
	r->ppid = BPF_CORE_READ(task, real_parent, tgid);
	bpf_get_current_comm(r->comm, sizeof(r->comm));
}

/* begin - a record that says who measured, or NULL if it is lost */
static __always_inline struct record *begin(__u32 source)
{
	struct counts *c = bpf_map_lookup_elem(&counters, &source);
	struct record *r;
	__u64 sequence;

	if (!c)
		return NULL;
	sequence = __sync_fetch_and_add(&c->measured, 1) + 1;
	r = bpf_ringbuf_reserve(&records, sizeof(*r), 0);
	if (!r) {
		__sync_fetch_and_add(&c->lost, 1);
		return NULL;
	}
	__builtin_memset(r, 0, sizeof(*r));
	identify(r, source, sequence);
	return r;
}

static __always_inline void add_digest(struct record *r, struct ima_template_entry *entry)
{
	const __u8 *d = (void *)BPF_CORE_READ(entry, digests);
	__u32 size = bpf_core_field_size(struct tpm_digest, digest);
	int index = 0, algo = NO_HASH;

	/*
	 * The first digest has its algorithm beside it on every machine: it is of
	 * the TPM's first bank, or SHA-1 where there is no TPM.
	 */
	if (&ima_hash_algo_idx) {
		bpf_probe_read_kernel(&index, sizeof(index), &ima_hash_algo_idx);
		if (&ima_hash_algo)
			bpf_probe_read_kernel(&algo, sizeof(algo), &ima_hash_algo);
	}
	if (index < 0 || index >= MAX_DIGESTS)
		return;
	d += index * bpf_core_type_size(struct tpm_digest);
	bpf_probe_read_kernel(&r->alg_id, sizeof(r->alg_id),
			      d + bpf_core_field_offset(struct tpm_digest, alg_id));
	r->hash_algo = algo;
	if (size > MAX_DIGEST)
		size = MAX_DIGEST;
	bpf_probe_read_kernel(r->digest, size, d + bpf_core_field_offset(struct tpm_digest, digest));
}

/*
 * added - ima_add_template_entry() is done
 *
 * Only 0 says that the list has grown: -EEXIST is an entry that is there
 * already, -ENOMEM and -ENODEV (no more measurements before a reboot) are none
 * at all. A TPM that fails is 0 as well, for the entry stays
 * (security/integrity/ima/ima_queue.c).
 */
static __always_inline int added(struct ima_template_entry *entry, bool violation, int result)
{
	struct record *r;

	if (result)
		return 0;
	r = begin(SOURCE_IMA);
	if (!r)
		return 0;
	r->pcr = BPF_CORE_READ(entry, pcr);
	r->violation = violation;
	if (!violation) /* whose digests are zeros, without an algorithm */
		add_digest(r, entry);
	bpf_ringbuf_submit(r, 0);
	return 0;
}

/*
 * The registers of the architectures that have confidential machines. Which is
 * which is decided when the program is loaded, so that one object serves all.
 */
struct pt_regs___x86 {
	unsigned long di, si, r9;
} CORE;

struct pt_regs___arm64 {
	__u64 regs[31];
} CORE;

struct pt_regs___s390 {
	unsigned long gprs[16];
} CORE;

#define X86(ctx, reg) BPF_CORE_READ((struct pt_regs___x86 *)(ctx), reg)
#define ARM64(ctx, n) BPF_CORE_READ((struct pt_regs___arm64 *)(ctx), regs[n])
#define S390(ctx, n) BPF_CORE_READ((struct pt_regs___s390 *)(ctx), gprs[n])

static __always_inline __u64 arg1(void *ctx)
{
	if (bpf_core_field_exists(struct pt_regs___x86, di))
		return X86(ctx, di);
	if (bpf_core_field_exists(struct pt_regs___arm64, regs))
		return ARM64(ctx, 0);
	if (bpf_core_field_exists(struct pt_regs___s390, gprs))
		return S390(ctx, 2);
	return 0;
}

static __always_inline __u64 arg2(void *ctx)
{
	if (bpf_core_field_exists(struct pt_regs___x86, si))
		return X86(ctx, si);
	if (bpf_core_field_exists(struct pt_regs___arm64, regs))
		return ARM64(ctx, 1);
	if (bpf_core_field_exists(struct pt_regs___s390, gprs))
		return S390(ctx, 3);
	return 0;
}

static __always_inline __u64 arg6(void *ctx)
{
	__u64 arg = -1;

	if (bpf_core_field_exists(struct pt_regs___x86, r9))
		return X86(ctx, r9);
	if (bpf_core_field_exists(struct pt_regs___arm64, regs))
		return ARM64(ctx, 5);
	/* Five are in registers, and the rest is behind the caller's save area. */
	if (bpf_core_field_exists(struct pt_regs___s390, gprs))
		bpf_probe_read_kernel(&arg, sizeof(arg), (void *)(S390(ctx, 15) + 160));
	return arg;
}

/*
 * ima_begin - hook: ima_add_template_entry(entry, violation, ..)
 * ima_end - hook: integrity_audit_msg(.., result, audit_info), which is how
 * ima_add_template_entry() ends, the list unlocked (CONFIG_INTEGRITY_AUDIT)
 *
 * Both are kprobes, in which nothing is preempted. A kretprobe would miss calls
 * where more than ten wait for the list, and the TPM, at once.
 */
SEC("kprobe/ima_add_template_entry")
int ima_begin(void *ctx)
{
	struct pending *p = bpf_task_storage_get(&pending, (struct task_struct *)bpf_get_current_task_btf(),
						 NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	__u32 source = SOURCE_IMA;
	struct counts *c = bpf_map_lookup_elem(&counters, &source);

	if (c && (!p || p->entry))
		__sync_fetch_and_add(&c->missed, 1);
	if (!p)
		return 0;
	p->entry = arg1(ctx);
	p->violation = (int)arg2(ctx) != 0;
	return 0;
}

SEC("kprobe/integrity_audit_msg")
int ima_end(void *ctx)
{
	struct pending *p = bpf_task_storage_get(&pending, (struct task_struct *)bpf_get_current_task_btf(),
						 NULL, 0);
	__u64 entry;

	if (!p || !p->entry) /* another caller */
		return 0;
	entry = p->entry;
	p->entry = 0;
	return added((void *)entry, p->violation, (int)arg6(ctx));
}

/*
 * ima_fexit - hook: return of ima_add_template_entry(), with its arguments
 *
 * Where there are no kprobes. The kernel runs it once at a time on a processor:
 * where a task is preempted within it, calls of others are missed until that
 * task goes on (kernel/bpf/trampoline.c, __bpf_prog_enter_recur()).
 * bpf_get_func_ret(), Linux 5.17, knows how many arguments there are.
 */
SEC("fexit/ima_add_template_entry")
int ima_fexit(__u64 *ctx)
{
	__u64 ret = 0;

	if (bpf_get_func_ret(ctx, &ret))
		return 0;
	return added((void *)ctx[0], (int)ctx[1] != 0, (int)ret);
}

/*
 * tsm_write - hook: tracepoint tsm_mr_write, Linux 6.16
 *
 * It fires when a register was extended through sysfs, and not for a write that
 * failed (drivers/virt/coco/guest/tsm-mr.c). A raw tracepoint takes neither
 * tracefs nor perf events nor the program type TRACING.
 */
SEC("raw_tracepoint/tsm_mr_write")
int tsm_write(struct bpf_raw_tracepoint_args *ctx)
{
	struct tsm_measurement_register *mr = (void *)ctx->args[0];
	struct record *r = begin(SOURCE_TSM);
	__u32 size;

	if (!r)
		return 0;
	bpf_probe_read_kernel_str(r->name, sizeof(r->name), BPF_CORE_READ(mr, mr_name));
	r->hash_algo = BPF_CORE_READ(mr, mr_flags) & TSM_MR_F_NOHASH ? NO_HASH : BPF_CORE_READ(mr, mr_hash);
	size = BPF_CORE_READ(mr, mr_size);
	if (size <= MAX_DIGEST) {
		r->digest_size = size;
		bpf_probe_read_kernel(r->digest, size, (void *)ctx->args[1]);
	}
	bpf_ringbuf_submit(r, 0);
	return 0;
}
