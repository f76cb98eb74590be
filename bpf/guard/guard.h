/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the guard's programs and user space share. A change is a change of
 * layoutVersion in load.go.
 */
#ifndef TALLYSTICK_GUARD_H
#define TALLYSTICK_GUARD_H

#include <linux/types.h>

#define MAX_MAPS 8
#define MAX_FOLDERS 8
#define MAX_MOUNTS 8
#define MAX_MINORS 4

/* What was tried. */
enum what {
	WHAT_NONE,
	WHAT_MAP,      /* to open a map; object: its ID */
	WHAT_PROGRAM,  /* to load or open a program that refers to one; object: the map's ID */
	WHAT_ITERATOR, /* to load a program that writes to any map's elements */
	WHAT_ALTER,    /* to load a program that alters what calls return; object: its type */
	WHAT_UNPIN,    /* to remove, rename or replace a pin; object: its inode, or 0 */
	WHAT_UMOUNT,   /* to take away the mount with the pins */
	WHAT_TRACE,    /* to get at a helper's memory; object: its process */
	WHAT_DEVICE,   /* to open a report device; object: its minor number */
	WHAT_IOCTL,    /* to ask it for a report; object: the command */
	WHAT_REPORT,   /* to open a file of configfs-tsm */
	WHAT_NEW_REPORT,
	WHAT_REMOVE_REPORT,
	WHAT_EXEC, /* to be admitted; object: why not, enum unfit; nothing is denied */
	WHAT_COUNT,
};

/* Why an execution of the helper's program was not admitted. */
enum unfit {
	UNFIT_NONE,
	UNFIT_TRACED,  /* or it shares its root and working directory */
	UNFIT_SECCOMP, /* a filter may answer system calls in the kernel's place */
	UNFIT_NO_HASH, /* IMA gave none, or one of another algorithm */
	UNFIT_HASH,
	UNFIT_STORAGE, /* no memory */
};

struct denial {
	__u64 time; /* CLOCK_BOOTTIME, in nanoseconds */
	__u32 what;
	__u32 pid; /* of the process, in the initial namespace */
	__u32 uid;
	__u32 object;
	char comm[16];
};

struct root {
	__u64 inode;
	__u32 dev;
	__u32 unused;
};

/*
 * The guard. User space fills in what it guards, and freezes the map; from
 * there on only programs write, to what stands behind "armed".
 */
struct guard {
	__u32 version;
	__u32 armer; /* the process that arms it */
	__u32 public; /* others may open the registers, which come first, for reading */
	__u32 registers; /* how many of the maps are the registers' */
	__u32 maps[MAX_MAPS];

	__u32 bpffs;   /* its device */
	__u32 leaves;  /* how many of the folders hold pins; the others lead to them */
	__u64 folders[MAX_FOLDERS];
	struct root mounts[MAX_MOUNTS]; /* under which it is mounted */
	__u32 mnt_ns;  /* the initial mount namespace */
	__u32 map_elem; /* BTF ID of bpf_iter_bpf_map_elem */
	__u32 used_maps; /* a program's maps can be told */
	__u32 unused;

	__u64 size; /* the helper's program; 0 if none is admitted */
	__u8 sha256[32];
	__u8 sha384[48];
	__u8 sha512[64];

	__u32 armed;
	__u32 sealed;
	__u32 minors[MAX_MINORS]; /* of report devices, plus one */
	__u64 admitted; /* how many executions */
	__u64 lost;     /* denials that found no place in the ring */
	__u64 counts[WHAT_COUNT];
};

/* The argument of seal. */
struct seal_call {
	__u32 minors[MAX_MINORS];
};

#endif
