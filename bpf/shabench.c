// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/*
 * How long the hash functions take inside the kernel; for benchmarks only.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "sha.h"

char _license[] SEC("license") = "Dual BSD/GPL";

struct work {
	__u64 value[6];
	__u64 digest[6];
};

static long sha1_once(__u32 i, struct work *w)
{
	sha1_extend(w->value, w->digest);
	return 0;
}

static long sha256_once(__u32 i, struct work *w)
{
	sha256_extend(w->value, w->digest);
	return 0;
}

static long sha384_once(__u32 i, struct work *w)
{
	sha384_extend(w->value, w->digest);
	return 0;
}

struct bench {
	__u64 count; /* extends */
	__u64 ns;    /* out: what they took together */
};

/* bench_* - extend count times (type SYSCALL, Linux 5.14; bpf_loop, 5.17) */
#define BENCH(alg)                                                             \
	SEC("syscall")                                                         \
	int bench_##alg(struct bench *ctx)                                     \
	{                                                                      \
		struct work w = {};                                            \
		__u64 start = bpf_ktime_get_ns();                              \
                                                                               \
		bpf_loop(ctx->count, alg##_once, &w, 0);                       \
		ctx->ns = bpf_ktime_get_ns() - start;                          \
		return 0;                                                      \
	}

BENCH(sha1)
BENCH(sha256)
BENCH(sha384)
