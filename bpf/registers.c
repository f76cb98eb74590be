// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/*
 * The kernel-mode software TPM's registers, and the one way to change them.
 */
#include <linux/bpf.h>
#include <asm/errno.h>
#include <bpf/bpf_helpers.h>

#include "registers.h"
#include "sha.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/*
 * The registers. User space sets them to their reset values, then freezes the
 * map: from there on only programs can write to it (BPF_MAP_FREEZE, Linux 5.2).
 * A bpf_spin_lock in it would be simpler, but such a map cannot be frozen.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
} registers SEC(".maps");

/* The version of struct state, struct entry and struct call; frozen too. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} layout SEC(".maps");

/* The most entries of a call, which nothing interrupts. */
#define MAX_ENTRIES 1024

/*
 * How often a call's extends may find that another extender was faster, before
 * the caller hears of it and goes on with the rest.
 */
#define RETRIES 1024

struct batch {
	__u64 entries; /* address of count struct entry in user space */
	__u32 count;
	__u32 done;
	__s32 error;
	__u32 unused;
	struct entry e; /* the one at hand; its digests become the new values */
};

/*
 * extend_next - extend one register in all banks
 *
 * Returns 1 when there is nothing more to do, else 0. A global function, which
 * the verifier looks at once and not in every turn of the loop that calls it.
 *
 * The new values are made from old ones that may change meanwhile, and are
 * published only if the sequence is still what it was before: so no lock is
 * held while hashing or while the caller's memory is paged in, and an extender
 * that the scheduler takes off the CPU holds up others only within the few
 * stores between the two changes of the sequence. The atomic operations return
 * a value, which makes them full barriers on every architecture.
 */
__noinline int extend_next(struct batch *b)
{
	__u32 zero = 0;
	struct state *s;
	struct entry *e;
	struct reg *r;
	__u64 sequence, now;
	__u32 n;

	if (!b)
		return 1;
	if (b->done >= b->count)
		return 1;
	e = &b->e;
	if (bpf_copy_from_user(e, sizeof(*e), (void *)(b->entries + b->done * sizeof(*e)))) {
		b->error = -EFAULT;
		return 1;
	}
	n = e->reg;
	if (n >= NR_REGISTERS) {
		b->error = -EINVAL;
		return 1;
	}
	s = bpf_map_lookup_elem(&registers, &zero);
	if (!s)
		return 1;
	r = &s->reg[n];

	sequence = __sync_fetch_and_add(&s->sequence, 0);
	if (sequence & 1)
		return 0;
	sha1_extend(r->sha1, e->sha1);
	sha256_extend(r->sha256, e->sha256);
	sha384_extend(r->sha384, e->sha384);
	now = bpf_ktime_get_boot_ns();

	if (__sync_val_compare_and_swap(&s->sequence, sequence, sequence + 1) != sequence)
		return 0;
	__builtin_memcpy(r->sha1, e->sha1, sizeof(e->sha1));
	__builtin_memcpy(r->sha256, e->sha256, sizeof(e->sha256));
	__builtin_memcpy(r->sha384, e->sha384, sizeof(e->sha384));
	r->extends++;
	r->updated = now;
	s->extends++;
	s->updated = now;
	__sync_lock_test_and_set(&s->sequence, sequence + 2);

	b->done++;
	return 0;
}

/*
 * extend - extend registers by a batch of digests, in order
 *
 * Run by BPF_PROG_TEST_RUN (type SYSCALL, Linux 5.14). There is no bpf_loop in
 * it: a callback takes a JIT, which Debian's kernel for s390x does not have.
 * Returns 0, or the error that stopped it: -E2BIG for too many entries, -EFAULT,
 * -EINVAL for a register that does not exist, -EAGAIN if others were faster too
 * often. Entries before ctx->done were extended, the others were not.
 */
SEC("syscall")
int extend(struct call *ctx)
{
	struct batch b = {
		.entries = ctx->entries,
		.count = ctx->count,
	};

	ctx->done = 0;
	if (b.count > MAX_ENTRIES)
		return -E2BIG;
	for (int i = 0; i < MAX_ENTRIES + RETRIES; i++)
		if (extend_next(&b))
			break;
	ctx->done = b.done;
	if (b.error)
		return b.error;
	return b.done < b.count ? -EAGAIN : 0;
}
