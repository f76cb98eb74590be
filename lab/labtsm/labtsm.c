// SPDX-License-Identifier: GPL-2.0
/*
 * labtsm: a test double of a TDX guest's measurement registers.
 *
 * It keeps registers in ordinary memory and publishes them through the kernel's
 * own tsm-mr library, by default under the real driver's name, tdx_guest. So
 * user space meets the real sysfs ABI (Documentation/ABI/testing/
 * sysfs-devices-virtual-misc-tdx_guest) and the tsm_mr:* tracepoints, on a
 * machine without TDX. The registers prove nothing.
 *
 * Faults are asked for by parameters, which can be written while it is loaded.
 *
 * Needs CONFIG_TSM_MEASUREMENTS, which is in Linux 6.16 and later.
 */
#include <crypto/sha2.h>
#include <linux/delay.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/tsm-mr.h>

#define LABTSM_MAX_RTMRS	8
#define LABTSM_NUM_STATIC	4

static char *devname = "tdx_guest";
module_param(devname, charp, 0444);
MODULE_PARM_DESC(devname, "name of the misc device that has measurements/");

static unsigned int rtmrs = 4;
module_param(rtmrs, uint, 0444);
MODULE_PARM_DESC(rtmrs, "number of run-time registers");

static unsigned int fail;
module_param(fail, uint, 0644);
MODULE_PARM_DESC(fail, "bit mask of the registers whose extends fail");

static unsigned int fail_errno = EIO;
module_param(fail_errno, uint, 0644);
MODULE_PARM_DESC(fail_errno, "error number that a failing extend gives");

static unsigned int fail_after;
module_param(fail_after, uint, 0644);
MODULE_PARM_DESC(fail_after, "how many extends that would fail still succeed");

static bool fail_late;
module_param(fail_late, bool, 0644);
MODULE_PARM_DESC(fail_late, "a failing extend changes the register all the same");

static unsigned int delay_ms;
module_param(delay_ms, uint, 0644);
MODULE_PARM_DESC(delay_ms, "how long an extend takes, in milliseconds");

static unsigned long extends;
module_param(extends, ulong, 0444);
MODULE_PARM_DESC(extends, "how often a register was extended");

/* What the hardware would hold, and what the library shows of it. */
static u8 hardware[LABTSM_MAX_RTMRS][SHA384_DIGEST_SIZE];
static u8 shown[LABTSM_MAX_RTMRS][SHA384_DIGEST_SIZE];
static u8 launch[LABTSM_NUM_STATIC][SHA384_DIGEST_SIZE];
static DEFINE_MUTEX(labtsm_lock);

static const char *const rtmr_names[LABTSM_MAX_RTMRS] = {
	"rtmr0", "rtmr1", "rtmr2", "rtmr3", "rtmr4", "rtmr5", "rtmr6", "rtmr7",
};

static struct tsm_measurement_register labtsm_mrs[LABTSM_MAX_RTMRS + LABTSM_NUM_STATIC];

static void labtsm_extend(unsigned int i, const u8 *digest)
{
	struct sha384_ctx ctx;

	lockdep_assert_held(&labtsm_lock);
	sha384_init(&ctx);
	sha384_update(&ctx, hardware[i], SHA384_DIGEST_SIZE);
	sha384_update(&ctx, digest, SHA384_DIGEST_SIZE);
	sha384_final(&ctx, hardware[i]);
	extends++;
}

static bool labtsm_fails(unsigned int i)
{
	lockdep_assert_held(&labtsm_lock);
	if (!(fail & BIT(i)))
		return false;
	if (!fail_after)
		return true;
	fail_after--;
	return false;
}

static int labtsm_refresh(const struct tsm_measurements *tm)
{
	guard(mutex)(&labtsm_lock);
	memcpy(shown, hardware, sizeof(shown));
	return 0;
}

/* The library calls this for a write of exactly mr_size bytes at offset 0. */
static int labtsm_write(const struct tsm_measurements *tm,
			const struct tsm_measurement_register *mr, const u8 *digest)
{
	unsigned int i = mr - labtsm_mrs;
	bool fails;

	if (i >= rtmrs)
		return -EINVAL;
	if (delay_ms)
		msleep(delay_ms);

	guard(mutex)(&labtsm_lock);
	fails = labtsm_fails(i);
	if (!fails || fail_late)
		labtsm_extend(i, digest);
	return fails ? -(int)fail_errno : 0;
}

/*
 * bypass: a register's number, which is extended with zeros behind the
 * library's back, as by another TDCALL: readers of sysfs do not see it before
 * the next write.
 */
static int labtsm_bypass(const char *val, const struct kernel_param *kp)
{
	static const u8 zeros[SHA384_DIGEST_SIZE];
	unsigned int i;
	int err;

	err = kstrtouint(val, 0, &i);
	if (err)
		return err;
	if (i >= rtmrs)
		return -EINVAL;
	guard(mutex)(&labtsm_lock);
	labtsm_extend(i, zeros);
	return 0;
}

static const struct kernel_param_ops labtsm_bypass_ops = { .set = labtsm_bypass };
module_param_cb(bypass, &labtsm_bypass_ops, NULL, 0200);
MODULE_PARM_DESC(bypass, "extends the register of that number, and not through sysfs");

static struct tsm_measurements labtsm_measurements = {
	.mrs = labtsm_mrs,
	.refresh = labtsm_refresh,
	.write = labtsm_write,
};

static const struct attribute_group *labtsm_groups[2];

static struct miscdevice labtsm_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.groups = labtsm_groups,
};

static void __init labtsm_describe(void)
{
	static const struct tsm_measurement_register at_launch[LABTSM_NUM_STATIC] = {
		{ TSM_MR_(mrtd, SHA384), .mr_value = launch[0] },
		{ .mr_name = "mrconfigid", .mr_value = launch[1], .mr_size = SHA384_DIGEST_SIZE,
		  .mr_flags = TSM_MR_F_READABLE | TSM_MR_F_NOHASH },
		{ .mr_name = "mrowner", .mr_value = launch[2], .mr_size = SHA384_DIGEST_SIZE,
		  .mr_flags = TSM_MR_F_READABLE | TSM_MR_F_NOHASH },
		{ .mr_name = "mrownerconfig", .mr_value = launch[3], .mr_size = SHA384_DIGEST_SIZE,
		  .mr_flags = TSM_MR_F_READABLE | TSM_MR_F_NOHASH },
	};
	unsigned int i;

	for (i = 0; i < rtmrs; i++)
		labtsm_mrs[i] = (struct tsm_measurement_register){
			.mr_name = rtmr_names[i],
			.mr_value = shown[i],
			.mr_size = SHA384_DIGEST_SIZE,
			.mr_flags = TSM_MR_F_READABLE | TSM_MR_F_RTMR,
			.mr_hash = HASH_ALGO_SHA384,
		};
	memcpy(&labtsm_mrs[rtmrs], at_launch, sizeof(at_launch));
	labtsm_measurements.nr_mrs = rtmrs + LABTSM_NUM_STATIC;
	sha384((const u8 *)"labtsm", 6, launch[0]);
}

static int __init labtsm_init(void)
{
	int err;

	if (!rtmrs || rtmrs > LABTSM_MAX_RTMRS)
		return -EINVAL;
	labtsm_describe();
	labtsm_groups[0] = tsm_mr_create_attribute_group(&labtsm_measurements);
	if (IS_ERR(labtsm_groups[0]))
		return PTR_ERR(labtsm_groups[0]);
	labtsm_misc.name = devname;
	err = misc_register(&labtsm_misc);
	if (err)
		tsm_mr_free_attribute_group(labtsm_groups[0]);
	return err;
}

static void __exit labtsm_exit(void)
{
	misc_deregister(&labtsm_misc);
	tsm_mr_free_attribute_group(labtsm_groups[0]);
}

module_init(labtsm_init);
module_exit(labtsm_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("test double of a TDX guest's measurement registers");
