// SPDX-License-Identifier: GPL-2.0
/*
 * labtsm: a test double of a TDX guest's driver.
 *
 * It keeps registers in ordinary memory and publishes them as the real driver,
 * drivers/virt/coco/tdx-guest, does and by default under its name:
 *
 *  - through the kernel's tsm-mr library, so that user space meets the real sysfs
 *    ABI (Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest) and
 *    the tsm_mr:* tracepoints;
 *  - as TDREPORTs, by the ioctl TDX_CMD_GET_REPORT0 of /dev/tdx_guest;
 *  - as quotes, through configfs (Documentation/ABI/testing/configfs-tsm-report).
 *
 * The registers prove nothing: reports have no MAC and quotes no signature.
 *
 * Faults are asked for by parameters, which can be written while it is loaded.
 *
 * Needs CONFIG_TSM_MEASUREMENTS, which is in Linux 6.16 and later, and
 * CONFIG_TSM_REPORTS.
 */
#include <crypto/sha2.h>
#include <linux/delay.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/tsm-mr.h>
#include <linux/tsm.h>
#include <linux/uaccess.h>
#include <uapi/linux/tdx-guest.h>

#define LABTSM_MAX_RTMRS	8
#define LABTSM_NUM_STATIC	4
#define TDX_NUM_RTMRS		4
#define TDX_TEE_TYPE		0x81

static char *devname = "tdx_guest";
module_param(devname, charp, 0444);
MODULE_PARM_DESC(devname, "name of the misc device that has measurements/, and of the provider of quotes");

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

static unsigned int fail_times;
module_param(fail_times, uint, 0644);
MODULE_PARM_DESC(fail_times, "how many extends fail before none does; 0: all");

static bool fail_late;
module_param(fail_late, bool, 0644);
MODULE_PARM_DESC(fail_late, "a failing extend changes the register all the same");

static unsigned int delay_ms;
module_param(delay_ms, uint, 0644);
MODULE_PARM_DESC(delay_ms, "how long an extend waits before it begins, in milliseconds; a signal ends it with EINTR");

static unsigned int quote_fail;
module_param(quote_fail, uint, 0644);
MODULE_PARM_DESC(quote_fail, "how many quotes fail before one succeeds");

static unsigned int quote_errno = EBUSY;
module_param(quote_errno, uint, 0644);
MODULE_PARM_DESC(quote_errno, "error number that a failing quote gives");

static unsigned int quote_size = UINT_MAX;
module_param(quote_size, uint, 0644);
MODULE_PARM_DESC(quote_size, "how many bytes a quote has at most");

static unsigned int quote_stale;
module_param(quote_stale, uint, 0644);
MODULE_PARM_DESC(quote_stale, "how many quotes have zeros for REPORTDATA");

static unsigned int quote_delay_ms;
module_param(quote_delay_ms, uint, 0644);
MODULE_PARM_DESC(quote_delay_ms, "how long a quote takes, in milliseconds; a signal ends it with EINTR");

static unsigned long extends;
module_param(extends, ulong, 0444);
MODULE_PARM_DESC(extends, "how often a register was extended");

static unsigned long quotes;
module_param(quotes, ulong, 0444);
MODULE_PARM_DESC(quotes, "how often a quote was asked for");

/*
 * What the hardware would hold, and what the library shows of it. The driver has
 * the library show the TDREPORT that it asked for last, whoever it was for.
 */
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
	if (fail_after) {
		fail_after--;
		return false;
	}
	if (fail_times && !--fail_times)
		fail = 0;
	return true;
}

/* TDREPORT_STRUCT of Intel's TDX Module ABI specification. */
struct tdx_report {
	u8 tee_type;
	u8 reserved1[15];
	u8 cpusvn[16];
	u8 tee_tcb_info_hash[SHA384_DIGEST_SIZE];
	u8 tee_info_hash[SHA384_DIGEST_SIZE];
	u8 reportdata[TDX_REPORTDATA_LEN];
	u8 reserved2[32];
	u8 mac[32];
	u8 tee_tcb_info[239];
	u8 reserved3[17];
	struct tdx_info {
		u8 attributes[8];
		u8 xfam[8];
		u8 launch[LABTSM_NUM_STATIC][SHA384_DIGEST_SIZE];
		u8 rtmr[TDX_NUM_RTMRS][SHA384_DIGEST_SIZE];
		u8 reserved[112];
	} info;
} __packed;
static_assert(sizeof(struct tdx_report) == TDX_REPORT_LEN);

/* A TD quote of version 4, with a signature section that is all zeros. */
struct tdx_quote {
	__le16 version;
	__le16 key_type;
	__le32 tee_type;
	__le32 reserved;
	u8 vendor[16];
	u8 user_data[20];

	u8 tee_tcb_svn[16];
	u8 mrseam[SHA384_DIGEST_SIZE];
	u8 mrsignerseam[SHA384_DIGEST_SIZE];
	u8 seam_attributes[8];
	u8 attributes[8];
	u8 xfam[8];
	u8 launch[LABTSM_NUM_STATIC][SHA384_DIGEST_SIZE];
	u8 rtmr[TDX_NUM_RTMRS][SHA384_DIGEST_SIZE];
	u8 reportdata[TDX_REPORTDATA_LEN];

	__le32 auth_size;
	struct tdx_quote_auth {
		u8 signature[64];
		u8 key[64];
		__le16 cert_type;
		__le32 cert_size;
		struct tdx_quote_cert {
			u8 qe_report[384];
			u8 qe_report_signature[64];
			__le16 qe_auth_size;
			__le16 cert_type;
			__le32 cert_size;
		} __packed cert;
	} __packed auth;
} __packed;

/* Waits as for the driver's lock, or for the host: a signal ends it. */
static int labtsm_wait(unsigned int ms)
{
	return ms && msleep_interruptible(ms) ? -EINTR : 0;
}

/* Puts the registers into a report or a quote, which both have MRTD and RTMRs. */
static void labtsm_registers(u8 (*to_launch)[SHA384_DIGEST_SIZE], u8 (*to_rtmr)[SHA384_DIGEST_SIZE])
{
	lockdep_assert_held(&labtsm_lock);
	memcpy(to_launch, launch, sizeof(launch));
	memcpy(to_rtmr, hardware, min(rtmrs, TDX_NUM_RTMRS) * SHA384_DIGEST_SIZE);
	memcpy(shown, hardware, sizeof(shown));
}

static int labtsm_refresh(const struct tsm_measurements *tm)
{
	scoped_cond_guard(mutex_intr, return -EINTR, &labtsm_lock)
		memcpy(shown, hardware, sizeof(shown));
	return 0;
}

/* The library calls this for a write of exactly mr_size bytes at offset 0. */
static int labtsm_write(const struct tsm_measurements *tm,
			const struct tsm_measurement_register *mr, const u8 *digest)
{
	unsigned int i = mr - labtsm_mrs;
	int err;

	if (i >= rtmrs)
		return -EINVAL;
	err = labtsm_wait(delay_ms);
	if (err)
		return err;

	scoped_cond_guard(mutex_intr, return -EINTR, &labtsm_lock) {
		bool fails = labtsm_fails(i);

		if (!fails || fail_late)
			labtsm_extend(i, digest);
		if (fails)
			return -(int)fail_errno;
	}
	return 0;
}

static long labtsm_get_report(struct tdx_report_req __user *req)
{
	struct tdx_report *report __free(kfree) = kzalloc(sizeof(*report), GFP_KERNEL);

	if (!report)
		return -ENOMEM;
	if (copy_from_user(report->reportdata, req->reportdata, TDX_REPORTDATA_LEN))
		return -EFAULT;
	report->tee_type = TDX_TEE_TYPE;
	scoped_cond_guard(mutex_intr, return -EINTR, &labtsm_lock)
		labtsm_registers(report->info.launch, report->info.rtmr);
	sha384(report->tee_tcb_info, sizeof(report->tee_tcb_info), report->tee_tcb_info_hash);
	sha384((const u8 *)&report->info, sizeof(report->info), report->tee_info_hash);
	if (copy_to_user(req->tdreport, report, sizeof(*report)))
		return -EFAULT;
	return 0;
}

static long labtsm_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	if (cmd != TDX_CMD_GET_REPORT0)
		return -ENOTTY;
	return labtsm_get_report((struct tdx_report_req __user *)arg);
}

static const struct file_operations labtsm_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = labtsm_ioctl,
};

/* The library calls this under its lock, once for each generation that is read. */
static int labtsm_quote(struct tsm_report *report, void *data)
{
	struct tdx_quote *quote __free(kvfree) = NULL;
	int err;

	quotes++;
	if (report->desc.inblob_len != TDX_REPORTDATA_LEN)
		return -EINVAL;
	err = labtsm_wait(quote_delay_ms);
	if (err)
		return err;
	if (quote_fail) {
		quote_fail--;
		return -(int)quote_errno;
	}
	quote = kvzalloc(sizeof(*quote), GFP_KERNEL);
	if (!quote)
		return -ENOMEM;

	quote->version = cpu_to_le16(4);
	quote->key_type = cpu_to_le16(2);
	quote->tee_type = cpu_to_le32(TDX_TEE_TYPE);
	memcpy(quote->vendor, "labtsm", 6);
	if (quote_stale)
		quote_stale--;
	else
		memcpy(quote->reportdata, report->desc.inblob, TDX_REPORTDATA_LEN);
	quote->auth_size = cpu_to_le32(sizeof(quote->auth));
	quote->auth.cert_type = cpu_to_le16(6);
	quote->auth.cert_size = cpu_to_le32(sizeof(quote->auth.cert));
	quote->auth.cert.cert_type = cpu_to_le16(5);
	scoped_cond_guard(mutex_intr, return -EINTR, &labtsm_lock)
		labtsm_registers(quote->launch, quote->rtmr);

	report->outblob_len = min(sizeof(*quote), quote_size);
	report->outblob = (u8 *)no_free_ptr(quote);
	return 0;
}

static bool labtsm_attr_visible(int n)
{
	return n == TSM_REPORT_GENERATION || n == TSM_REPORT_PROVIDER;
}

static bool labtsm_bin_attr_visible(int n)
{
	return n == TSM_REPORT_INBLOB || n == TSM_REPORT_OUTBLOB;
}

static char labtsm_provider[64];

static const struct tsm_report_ops labtsm_report_ops = {
	.name = labtsm_provider,
	.report_new = labtsm_quote,
	.report_attr_visible = labtsm_attr_visible,
	.report_bin_attr_visible = labtsm_bin_attr_visible,
};

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
	.fops = &labtsm_fops,
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
		goto free_groups;

	/* A driver's provider is named for its module, which has no dash. */
	strscpy(labtsm_provider, devname);
	strreplace(labtsm_provider, '-', '_');
	err = tsm_report_register(&labtsm_report_ops, NULL);
	if (err)
		goto deregister;
	return 0;

deregister:
	misc_deregister(&labtsm_misc);
free_groups:
	tsm_mr_free_attribute_group(labtsm_groups[0]);
	return err;
}

static void __exit labtsm_exit(void)
{
	tsm_report_unregister(&labtsm_report_ops);
	misc_deregister(&labtsm_misc);
	tsm_mr_free_attribute_group(labtsm_groups[0]);
}

module_init(labtsm_init);
module_exit(labtsm_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("test double of a TDX guest's driver");
