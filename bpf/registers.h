/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the kernel and user space share: the layout of the map with the
 * registers, and of an extend's arguments. A change to either is a change of
 * layoutVersion in layout.go.
 */
#ifndef TALLYSTICK_REGISTERS_H
#define TALLYSTICK_REGISTERS_H

#include <linux/types.h>

#define NR_REGISTERS 24

/* A register: its value in each bank, in the order of a digest's bytes. */
struct reg {
	__u64 extends; /* how many since the reset */
	__u64 updated; /* CLOCK_BOOTTIME of the last, in nanoseconds; 0 for none */
	__u8 sha1[20];
	__u32 unused;
	__u8 sha256[32];
	__u8 sha384[48];
};

/*
 * All registers. The sequence is odd while a register is being changed, and
 * rises by two with each change: who reads the same even number before and
 * after has read values that belong together.
 */
struct state {
	__u64 sequence;
	__u64 extends;
	__u64 updated;
	struct reg reg[NR_REGISTERS];
};

/* One extend: a register, and a digest for each bank. */
struct entry {
	__u32 reg;
	__u8 sha1[20];
	__u8 sha256[32];
	__u8 sha384[48];
} __attribute__((aligned(8)));

/* The argument of a call: where the entries are, and how many were extended. */
struct call {
	__u64 entries; /* address of count entries in the caller's memory */
	__u32 count;
	__u32 done; /* out */
};

#endif
