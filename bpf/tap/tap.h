/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the kernel and user space share: the records in the ring buffer, and the
 * counters that go with them.
 */
#ifndef TALLYSTICK_TAP_H
#define TALLYSTICK_TAP_H

#include <linux/types.h>

#define SOURCE_IMA 0
#define SOURCE_TSM 1
#define NR_SOURCES 2

#define MAX_DIGEST 64
#define COMM_LEN 16
#define NAME_LEN 32

/* hash_algo of a register that has no hash algorithm. */
#define NO_HASH 0xffff

/* One measurement, in the context of the process that made it. */
struct record {
	__u64 sequence; /* of its source, from 1 */
	__u64 time;	/* CLOCK_BOOTTIME, in nanoseconds */
	__u64 cgroup;
	__u32 pid; /* of the process (the kernel's tgid) */
	__u32 tid;
	__u32 ppid;
	__u32 pcr; /* source IMA */
	__u32 digest_size; /* source TSM; 0 for none */
	__u16 alg_id;	   /* TPM_ALG_ID, or 0: hash_algo counts */
	__u16 hash_algo;   /* enum hash_algo of linux/hash_info.h, or NO_HASH */
	__u8 source;
	__u8 violation;
	__u8 unused[6];
	__u8 comm[COMM_LEN];
	__u8 name[NAME_LEN]; /* source TSM: the register's */
	__u8 digest[MAX_DIGEST];
};

/* Of one source. */
struct counts {
	__u64 measured; /* rises before a record is made */
	__u64 lost;	/* those of which none could be made */
	__u64 missed;	/* calls of which the beginning or the end was not seen */
};

#endif
