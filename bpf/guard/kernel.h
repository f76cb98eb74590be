/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs read of the kernel's structures, as Linux 6.1 to 7.3 have
 * them; the loader puts in the offsets of the kernel that runs (CO-RE).
 */
#ifndef TALLYSTICK_GUARD_KERNEL_H
#define TALLYSTICK_GUARD_KERNEL_H

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head {
	struct list_head *next;
};

struct ns_common {
	unsigned int inum;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
};

struct mm_struct {
};

struct seccomp {
	int mode;
};

struct task_struct {
	unsigned int ptrace;
	int pid;
	int tgid;
	struct mm_struct *mm;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	__u64 self_exec_id;
	struct nsproxy *nsproxy;
	struct seccomp seccomp;
};

struct super_block {
	__u32 s_dev;
	unsigned long s_magic;
};

struct inode {
	__u16 i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
	__u32 i_rdev;
	long long i_size;
};

struct qstr {
	union {
		struct {
			__u32 hash;
			__u32 len;
		};
		__u64 hash_len;
	};
};

/* A short name lies in the dentry itself. */
struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	unsigned char d_iname[16];
};

/* From Linux 6.14. */
union shortname_store___new {
	unsigned char string[16];
};

struct dentry___new {
	union shortname_store___new d_shortname;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
};

struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
	int mnt_flags;
};

struct mount {
	struct vfsmount mnt;
	int mnt_t_flags; /* from Linux 6.17 */
};

struct linux_binprm {
	struct file *file;
	int unsafe;
};

struct bpf_map {
	__u32 id;
};

struct bpf_prog_aux {
	__u32 used_map_cnt;
	__u32 attach_btf_id;
	struct bpf_map **used_maps;
	_Bool kprobe_write_ctx; /* from Linux 6.18 */
};

struct bpf_prog {
	enum bpf_prog_type type;
	enum bpf_attach_type expected_attach_type;
	struct bpf_prog_aux *aux;
};

#pragma clang attribute pop

#define S_IFMT 0170000
#define S_IFCHR 0020000
#define S_IFDIR 0040000
#define BPF_FS_MAGIC 0xcafe4a11
#define TMPFS_MAGIC 0x01021994
#define CONFIGFS_MAGIC 0x62656570
#define FMODE_READ 1
#define PTRACE_MODE_ATTACH 2
#define MNT_DETACH 2
#define MNT_SHARED 0x1000 /* in mnt_flags, before Linux 6.17 */
#define T_SHARED 1        /* in mnt_t_flags */
#define LSM_UNSAFE_SHARE 1
#define LSM_UNSAFE_PTRACE 2
#define MISC_MAJOR 10
#define MAJOR(dev) ((dev) >> 20)
#define MINOR(dev) ((dev) & 0xfffff)

/* include/uapi/linux/hash_info.h */
#define HASH_ALGO_SHA256 4
#define HASH_ALGO_SHA384 5
#define HASH_ALGO_SHA512 6

#endif
