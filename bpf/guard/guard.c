// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/*
 * The guard: LSM programs that keep root from the registers, and from reports
 * that it could bind to others. Linux 6.1 and later, with BPF LSM.
 *
 * A program looks first at what tells most of its calls from those that concern
 * it, which is the superblock where there is one.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <asm/errno.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#include "kernel.h"
#include "guard.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/*
 * How a pointer is followed that the verifier takes for a number: by
 * bpf_rdonly_cast, which Linux 6.2 and later have, or by bpf_probe_read_kernel,
 * which lockdown=confidentiality takes away.
 */
const volatile bool has_cast = false;
const volatile bool has_probe_read = false;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct guard);
} state SEC(".maps");

/* Who is admitted: the leader of the process, until it executes something. */
struct mark {
	__u64 exec_id;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct mark);
} marks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 17);
} denials SEC(".maps");

void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

static __always_inline struct guard *get_guard(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&state, &zero);
}

/* armed - the guard, if it is */
static __always_inline struct guard *armed(void)
{
	struct guard *g = get_guard();

	return g && g->armed ? g : NULL;
}

static __always_inline struct guard *sealed(void)
{
	struct guard *g = get_guard();

	return g && g->sealed ? g : NULL;
}

/*
 * A mark counts until its process executes a program, which counts up the exec
 * ID (fs/exec.c, begin_new_exec). A child has none: storage is not inherited.
 */
static __always_inline bool is_admitted(struct task_struct *leader)
{
	struct mark *m = bpf_task_storage_get(&marks, leader, 0, 0);

	return m && m->exec_id == leader->self_exec_id;
}

static __always_inline bool admitted(void)
{
	return is_admitted(bpf_get_current_task_btf()->group_leader);
}

static __noinline void fill(struct denial *d, __u32 what, __u32 object)
{
	d->time = bpf_ktime_get_boot_ns();
	d->what = what;
	d->pid = bpf_get_current_pid_tgid() >> 32;
	d->uid = bpf_get_current_uid_gid();
	d->object = object;
	bpf_get_current_comm(d->comm, sizeof(d->comm));
}

static __noinline int record(struct guard *g, __u32 what, __u32 object)
{
	struct denial *d;

	if (!g || what >= WHAT_COUNT)
		return -EPERM;
	__sync_fetch_and_add(&g->counts[what], 1);
	d = bpf_ringbuf_reserve(&denials, sizeof(*d), 0);
	if (!d) {
		__sync_fetch_and_add(&g->lost, 1);
		return -EPERM;
	}
	fill(d, what, object);
	bpf_ringbuf_submit(d, 0);
	return -EPERM;
}

/* deny - what everyone but the helper is refused */
static __always_inline int deny(struct guard *g, __u32 what, __u32 object)
{
	return admitted() ? 0 : record(g, what, object);
}

/* guarded - the map's place among those that are guarded, or -1 */
static __always_inline int guarded(struct guard *g, __u32 id)
{
	for (int i = 0; i < MAX_MAPS; i++)
		if (g->maps[i] == id)
			return i;
	return -1;
}

/*
 * arm - the armer opens one of the maps for the first time
 *
 * In a program of this type the leader of a process can be told to be alive,
 * in one of type SYSCALL, which sleeps, not by all kernels.
 */
static __always_inline void arm(struct guard *g)
{
	struct task_struct *leader = bpf_get_current_task_btf()->group_leader;
	struct mark *m;

	if (leader->pid != g->armer || leader->ptrace)
		return;
	m = bpf_task_storage_get(&marks, leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!m)
		return;
	m->exec_id = leader->self_exec_id;
	g->armed = 1;
}

/* Every descriptor of a map is made here: by a pin, by an ID, or at its creation. */
SEC("lsm/bpf_map")
int BPF_PROG(guard_bpf_map, struct bpf_map *map, unsigned int fmode)
{
	struct guard *g = get_guard();
	int i;

	if (!g)
		return 0;
	i = guarded(g, map->id);
	if (i < 0)
		return 0;
	if (!g->armed) {
		arm(g);
		return 0;
	}
	if (g->public && i < g->registers && (fmode & 3) == FMODE_READ)
		return 0;
	return deny(g, WHAT_MAP, map->id);
}

/* used_map - the ID of a program's map, or 0 where this kernel cannot tell */
static __always_inline __u32 used_map(struct bpf_prog_aux *aux, __u32 i)
{
	/* A pointer to pointers is a number to the verifier. */
	void *at = (void *)((__u64)aux->used_maps + i * sizeof(void *));

	if (has_cast) {
		struct list_head *slot = bpf_rdonly_cast(at, bpf_core_type_id_kernel(struct list_head));
		struct bpf_map *map = bpf_rdonly_cast(slot->next, bpf_core_type_id_kernel(struct bpf_map));

		return map->id;
	}
	if (has_probe_read) {
		struct bpf_map *map;
		__u32 id;

		if (bpf_probe_read_kernel(&map, sizeof(map), at) ||
		    bpf_probe_read_kernel(&id, sizeof(id), (void *)map + bpf_core_field_offset(struct bpf_map, id)))
			return 0;
		return id;
	}
	return 0;
}

/*
 * Every descriptor of a program is made here, after it was verified. One that
 * refers to a map could do so by a descriptor from before the guard.
 */
SEC("lsm/bpf_prog")
int BPF_PROG(guard_bpf_prog, struct bpf_prog *prog)
{
	struct bpf_prog_aux *aux = prog->aux;
	struct guard *g = armed();
	__u32 n, id;

	if (!g)
		return 0;
	n = aux->used_map_cnt;
	for (__u32 i = 0; i < 64 && i < n; i++) { /* MAX_USED_MAPS */
		id = used_map(aux, i);
		if (id && guarded(g, id) >= 0)
			return deny(g, WHAT_PROGRAM, id);
	}
	/* It gets the values themselves, of frozen maps too (kernel/bpf/map_iter.c). */
	if (prog->type == BPF_PROG_TYPE_TRACING && prog->expected_attach_type == BPF_TRACE_ITER &&
	    aux->attach_btf_id == g->map_elem)
		return deny(g, WHAT_ITERATOR, 0);
	if (!g->sealed)
		return 0;
	if ((prog->type == BPF_PROG_TYPE_TRACING && prog->expected_attach_type == BPF_MODIFY_RETURN) ||
	    (bpf_core_field_exists(aux->kprobe_write_ctx) && aux->kprobe_write_ctx))
		return deny(g, WHAT_ALTER, prog->type);
	return 0;
}

/* is_pin - the folder holds pins, or the entry leads to them */
static __always_inline bool is_pin(struct guard *g, __u64 folder, __u64 entry)
{
	for (int i = 0; i < MAX_FOLDERS && g->folders[i]; i++)
		if (g->folders[i] == entry || (i < g->leaves && g->folders[i] == folder))
			return true;
	return false;
}

/* unpin - denied to the helper as well, which has no need to */
static __always_inline int unpin(struct inode *dir, struct inode *inode)
{
	struct guard *g = armed();
	__u64 entry = 0;

	if (inode)
		entry = inode->i_ino;
	if (!g || dir->i_sb->s_dev != g->bpffs || !is_pin(g, dir->i_ino, entry))
		return 0;
	return record(g, WHAT_UNPIN, entry);
}

#define SHORT 10

/*
 * Two functions, which nothing is moved out of: in each kernel one of them reads
 * what is not there. The loader puts an invalid call in its place, and with the
 * first instruction would lose the function's name (cilium/ebpf 0.22).
 */
#define KEEP_NAME asm volatile("r0 = 0" ::: "r0", "memory")

static __noinline void read_name(struct dentry *d, char *name)
{
	KEEP_NAME;
	for (int i = 0; i < SHORT; i++)
		name[i] = d->d_iname[i];
}

static __noinline void read_name_new(struct dentry___new *d, char *name)
{
	KEEP_NAME;
	for (int i = 0; i < SHORT; i++)
		name[i] = d->d_shortname.string[i];
}

static __always_inline bool named(struct dentry *d, const char *want, __u32 size)
{
	struct dentry___new *new = (void *)d;
	char name[SHORT];

	if (d->d_name.len != size - 1)
		return false;
	if (bpf_core_field_exists(new->d_shortname))
		read_name_new(new, name);
	else
		read_name(d, name);
	for (__u32 i = 0; i < size - 1; i++)
		if (name[i] != want[i])
			return false;
	return true;
}
#define NAMED(d, name) named(d, name, sizeof(name))

/* is_report - it is tsm/report, as configfs has it */
static __always_inline bool is_report(struct dentry *d)
{
	return NAMED(d, "report") && NAMED(d->d_parent, "tsm");
}

SEC("lsm/inode_unlink")
int BPF_PROG(guard_unlink, struct inode *dir, struct dentry *dentry)
{
	if (dir->i_sb->s_magic != BPF_FS_MAGIC)
		return 0;
	return unpin(dir, dentry->d_inode);
}

SEC("lsm/inode_rmdir")
int BPF_PROG(guard_rmdir, struct inode *dir, struct dentry *dentry)
{
	unsigned long magic = dir->i_sb->s_magic;
	struct guard *g;

	if (magic == BPF_FS_MAGIC)
		return unpin(dir, dentry->d_inode);
	if (magic != CONFIGFS_MAGIC)
		return 0;
	g = sealed();
	if (!g || !is_report(dentry->d_parent))
		return 0;
	return deny(g, WHAT_REMOVE_REPORT, 0);
}

SEC("lsm/inode_rename")
int BPF_PROG(guard_rename, struct inode *old_dir, struct dentry *old_dentry, struct inode *new_dir)
{
	int err;

	if (old_dir->i_sb->s_magic != BPF_FS_MAGIC)
		return 0;
	err = unpin(old_dir, old_dentry->d_inode);
	/* What a rename replaces is unpinned. A folder that is not empty stays. */
	return err ?: unpin(new_dir, NULL);
}

/* is_shared - what is unmounted here is unmounted elsewhere too */
static __always_inline bool is_shared(struct vfsmount *mnt)
{
	struct mount *m = NULL;

	if (!bpf_core_field_exists(m->mnt_t_flags))
		return mnt->mnt_flags & MNT_SHARED;
	if (!has_cast)
		return true;
	m = bpf_rdonly_cast((void *)mnt - bpf_core_field_offset(struct mount, mnt),
			    bpf_core_type_id_kernel(struct mount));
	return m->mnt_t_flags & T_SHARED;
}

/*
 * With its last mount a BPF file system goes, and the pins with it. A lazy umount
 * takes along what is mounted below, and is asked about the uppermost alone.
 * Containers so leave the root they came from, in a namespace of their own.
 */
SEC("lsm/sb_umount")
int BPF_PROG(guard_umount, struct vfsmount *mnt, int flags)
{
	struct guard *g = armed();
	__u32 dev;
	__u64 inode;

	if (!g)
		return 0;
	dev = mnt->mnt_sb->s_dev;
	if (dev == g->bpffs)
		return record(g, WHAT_UMOUNT, dev);
	if (!(flags & MNT_DETACH))
		return 0;
	inode = mnt->mnt_root->d_inode->i_ino;
	for (int i = 0; i < MAX_MOUNTS && g->mounts[i].inode; i++) {
		if (g->mounts[i].dev != dev || g->mounts[i].inode != inode)
			continue;
		if (bpf_get_current_task_btf()->nsproxy->mnt_ns->ns.inum != g->mnt_ns && !is_shared(mnt))
			return 0;
		return record(g, WHAT_UMOUNT, dev);
	}
	return 0;
}

/* has_memory_of_helper - it is a helper, or a child that shares its memory until it executes */
static __always_inline bool has_memory_of_helper(struct task_struct *task)
{
	struct task_struct *parent = task->real_parent;

	if (is_admitted(task->group_leader))
		return true;
	return task->mm && (__u64)task->mm == (__u64)parent->mm && is_admitted(parent->group_leader);
}

/*
 * ptrace, /proc/PID/mem, process_vm_writev, pidfd_getfd. The child is whichever
 * thread is meant.
 */
SEC("lsm/ptrace_access_check")
int BPF_PROG(guard_ptrace, struct task_struct *child, unsigned int mode)
{
	struct guard *g;

	if (!(mode & PTRACE_MODE_ATTACH))
		return 0;
	g = armed();
	if (!g || !has_memory_of_helper(child))
		return 0;
	return record(g, WHAT_TRACE, child->tgid);
}

static __always_inline bool is_misc(struct inode *inode)
{
	return (inode->i_mode & S_IFMT) == S_IFCHR && MAJOR(inode->i_rdev) == MISC_MAJOR;
}

static __always_inline int open_device(struct inode *inode, struct dentry *d)
{
	__u32 minor = MINOR(inode->i_rdev);
	struct guard *g = sealed();
	bool found = false;

	if (!g)
		return 0;
	for (int i = 0; i < MAX_MINORS; i++)
		found |= g->minors[i] == minor + 1;
	if (!found && !NAMED(d, "tdx_guest") && !NAMED(d, "sev-guest") && !NAMED(d, "uv"))
		return 0;
	return deny(g, WHAT_DEVICE, minor);
}

SEC("lsm/file_open")
int BPF_PROG(guard_open, struct file *file)
{
	struct inode *inode = file->f_inode;
	struct guard *g;

	if (inode->i_sb->s_magic != CONFIGFS_MAGIC)
		return is_misc(inode) ? open_device(inode, file->f_path.dentry) : 0;
	g = sealed();
	if (!g || (inode->i_mode & S_IFMT) == S_IFDIR || !is_report(file->f_path.dentry->d_parent->d_parent))
		return 0;
	return deny(g, WHAT_REPORT, 0);
}

/*
 * The commands are told from those of other misc devices by type, number and
 * size, whatever number or name the device has, and however long it is open.
 */
static __always_inline int command(struct file *file, __u32 cmd)
{
	struct guard *g;

	switch (cmd) {
	case 0xc4405401: /* TDX_CMD_GET_REPORT0, include/uapi/linux/tdx-guest.h */
	case 0xc0205300: /* SNP_GET_REPORT, include/uapi/linux/sev-guest.h */
	case 0xc0205302: /* SNP_GET_EXT_REPORT */
	case 0xc0407501: /* UVIO_IOCTL_ATT, arch/s390/include/uapi/asm/uvdevice.h */
		break;
	default:
		return 0;
	}
	if (!is_misc(file->f_inode))
		return 0;
	g = sealed();
	return g ? deny(g, WHAT_IOCTL, cmd) : 0;
}

SEC("lsm/file_ioctl")
int BPF_PROG(guard_ioctl, struct file *file, unsigned int cmd)
{
	return command(file, cmd);
}

/* 32-bit programs' ioctls; older kernels ask file_ioctl. */
SEC("lsm/file_ioctl_compat")
int BPF_PROG(guard_ioctl32, struct file *file, unsigned int cmd)
{
	return command(file, cmd);
}

SEC("lsm/inode_mkdir")
int BPF_PROG(guard_mkdir, struct inode *dir, struct dentry *dentry)
{
	struct guard *g;

	if (dir->i_sb->s_magic != CONFIGFS_MAGIC)
		return 0;
	g = sealed();
	if (!g || !is_report(dentry->d_parent))
		return 0;
	return deny(g, WHAT_NEW_REPORT, 0);
}

static __always_inline bool same(const __u8 *a, const __u8 *b, int n)
{
	for (int i = 0; i < n; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

/* unfit - why the process that executes the helper's program is not admitted */
static __always_inline int unfit(struct guard *g, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u8 hash[64] = {};

	if (task->ptrace || (bprm->unsafe & (LSM_UNSAFE_SHARE | LSM_UNSAFE_PTRACE)))
		return UNFIT_TRACED;
	if (task->seccomp.mode)
		return UNFIT_SECCOMP;
	switch (bpf_ima_file_hash(bprm->file, hash, sizeof(hash))) {
	case HASH_ALGO_SHA256:
		return same(hash, g->sha256, sizeof(g->sha256)) ? 0 : UNFIT_HASH;
	case HASH_ALGO_SHA384:
		return same(hash, g->sha384, sizeof(g->sha384)) ? 0 : UNFIT_HASH;
	case HASH_ALGO_SHA512:
		return same(hash, g->sha512, sizeof(g->sha512)) ? 0 : UNFIT_HASH;
	}
	return UNFIT_NO_HASH;
}

/*
 * A process that executes the helper's program is admitted. The program has to
 * lie in memory (tmpfs, a memfd), where nobody writes to a file that is being
 * executed: what is read from a disk after the hash was made may be another.
 * By now there is one thread, the leader, and the exec ID counts up.
 */
SEC("lsm.s/bprm_committed_creds")
int BPF_PROG(guard_exec, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct inode *inode = bprm->file->f_inode;
	struct guard *g;
	struct mark *m;
	int err;

	if (inode->i_sb->s_magic != TMPFS_MAGIC)
		return 0;
	g = armed();
	if (!g || !g->size || inode->i_size != g->size)
		return 0;
	err = unfit(g, bprm);
	if (!err) {
		m = bpf_task_storage_get(&marks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (m) {
			m->exec_id = task->self_exec_id;
			__sync_fetch_and_add(&g->admitted, 1);
			return 0;
		}
		err = UNFIT_STORAGE;
	}
	record(g, WHAT_EXEC, err);
	return 0;
}

/*
 * seal - from here on only the helper gets reports, until the next boot
 *
 * Run by BPF_PROG_TEST_RUN (type SYSCALL). Nobody else can have a descriptor.
 */
SEC("syscall")
int guard_seal(struct seal_call *call)
{
	struct guard *g = armed();

	if (!g)
		return -EPERM;
	for (int i = 0; i < MAX_MINORS; i++)
		if (call->minors[i])
			g->minors[i] = call->minors[i];
	g->sealed = 1;
	return 0;
}
