// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/kernel/debug/kerf_test: a read calls every function once and shows what it gave, and what the threads saw. Writes:
 * "threads N SPINS" start N threads that call pair(), "allow A B" the two results that they may see, "park" a thread
 * that sleeps between two immediates, "stop" ends all.
 */
#include <linux/completion.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#define THREADS_MAX 32

u32 kerf_test_pair(u32 spins);
u32 kerf_test_park(void);
u32 kerf_test_detour(u32 x);
u32 kerf_test_shift(u32 x);
u64 kerf_test_packed(void);
void kerf_test_forms(u32 x, u64 *seen);
void kerf_test_operations(u64 x, u64 *seen);
u32 kerf_test_into(u32 x);
u32 kerf_test_fault(u32 *p);
u32 kerf_test_limit(u32 x);
void kerf_test_wait(void);

int kerf_test_spans_init(void);
void kerf_test_spans_exit(void);

u32 kerf_test_small = 1;
u32 kerf_test_large = 2;
u32 kerf_test_stored;

static struct task_struct *threads[THREADS_MAX], *parked;
static unsigned int n_threads, spins = 100;
static u32 allow[2] = { 48, 48 };
static atomic64_t runs, mixed;
static u32 park_result, mixed_value;
static DECLARE_COMPLETION(release);
static struct dentry *file;
static DEFINE_MUTEX(lock);

void kerf_test_wait(void)
{
	wait_for_completion(&release);
}

/* With a call to __fentry__, for tracers and livepatches. The addition is what the tests look for. */
noinline u32 kerf_test_limit(u32 x)
{
	asm volatile("addl $0x25, %0" : "+r" (x));
	return x;
}

static int pair_thread(void *first)
{
	u32 value, i;

	while (!kthread_should_stop()) {
		value = kerf_test_pair(spins);
		if (value != READ_ONCE(allow[0]) && value != READ_ONCE(allow[1])) {
			atomic64_inc(&mixed);
			mixed_value = value;
		}
		/*
		 * The first thread keeps its CPU busy, nine tenths of the time outside the two immediates, so that some
		 * are preempted by the scheduler. The others rest, so that the machine can stop its CPUs quickly.
		 */
		if (first)
			for (i = 0; i < 9 * spins; i++)
				barrier();
		else
			usleep_range(50, 150);
		if (!(atomic64_inc_return(&runs) & 63))
			cond_resched();
	}
	return 0;
}

static int park_thread(void *unused)
{
	park_result = kerf_test_park();
	while (!kthread_should_stop())
		schedule_timeout_interruptible(HZ / 50);
	return 0;
}

static void stop_all(void)
{
	while (n_threads)
		kthread_stop(threads[--n_threads]);
	if (parked) {
		complete(&release);
		kthread_stop(parked);
		parked = NULL;
	}
}

static int start(unsigned int n)
{
	struct task_struct *task;

	while (n_threads < min_t(unsigned int, n, THREADS_MAX)) {
		task = kthread_run(pair_thread, n_threads ? NULL : &n_threads, "kerf_pair/%u", n_threads);
		if (IS_ERR(task))
			return PTR_ERR(task);
		threads[n_threads++] = task;
	}
	return 0;
}

static int park(void)
{
	if (parked)
		return -EBUSY;
	reinit_completion(&release);
	park_result = 0;
	parked = kthread_run(park_thread, NULL, "kerf_park");
	if (IS_ERR(parked)) {
		parked = NULL;
		return -ENOMEM;
	}
	return 0;
}

static ssize_t control(struct file *f, const char __user *data, size_t len, loff_t *pos)
{
	unsigned int a, b;
	char text[64];
	int err = -EINVAL;

	if (len >= sizeof(text) || copy_from_user(text, data, len))
		return -EINVAL;
	text[len] = 0;
	mutex_lock(&lock);
	if (sscanf(text, "threads %u %u", &a, &b) == 2) {
		spins = b ?: 1;
		err = start(a);
	} else if (sscanf(text, "allow %u %u", &a, &b) == 2) {
		WRITE_ONCE(allow[0], a);
		WRITE_ONCE(allow[1], b);
		atomic64_set(&mixed, 0);
		err = 0;
	} else if (!strncmp(text, "park", 4)) {
		err = park();
	} else if (!strncmp(text, "stop", 4)) {
		stop_all();
		err = 0;
	}
	mutex_unlock(&lock);
	return err ?: len;
}

static int show(struct seq_file *m, void *unused)
{
	u64 forms[7] = {};
	u32 zero = 0, i;
	u64 packed = kerf_test_packed();

	seq_printf(m, "runs=%lld\nmixed=%lld\nmixed_value=%u\n", atomic64_read(&runs), atomic64_read(&mixed),
		   mixed_value);
	seq_printf(m, "parked=%d\npark_result=%u\n", parked != NULL, park_result);
	seq_printf(m, "pair=%u\nlimit=%u\nshift=%u\n", kerf_test_pair(1), kerf_test_limit(0), kerf_test_shift(1000));
	seq_printf(m, "packed_low=%u\npacked_high=%u\n", (u32)packed, (u32)(packed >> 32));
	seq_printf(m, "below=%u\nat=%u\nfar=%u\n", kerf_test_detour(31), kerf_test_detour(32), kerf_test_detour(199));
	seq_printf(m, "beyond=%u\ninto=%u\nfault=%u\n", kerf_test_detour(200), kerf_test_into(1) ? 1 : 0,
		   kerf_test_fault(&zero));
	kerf_test_forms(11, forms);
	for (i = 0; i < ARRAY_SIZE(forms); i++)
		seq_printf(m, "form%u=%lld\n", i, forms[i]);
	kerf_test_operations(1000, forms);
	for (i = 0; i < 6; i++)
		seq_printf(m, "operation%u=%lld\n", i, forms[i]);
	seq_printf(m, "stored=%u\n", kerf_test_stored);
	return 0;
}

static int open(struct inode *inode, struct file *f)
{
	return single_open(f, show, NULL);
}

static const struct file_operations fops = {
	.owner = THIS_MODULE,
	.open = open,
	.read = seq_read,
	.write = control,
	.llseek = seq_lseek,
	.release = single_release,
};

static int __init test_init(void)
{
	int err = kerf_test_spans_init();

	if (err)
		return err;
	file = debugfs_create_file("kerf_test", 0600, NULL, NULL, &fops);
	if (IS_ERR(file))
		kerf_test_spans_exit();
	return PTR_ERR_OR_ZERO(file);
}

static void __exit test_exit(void)
{
	debugfs_remove(file);
	stop_all();
	kerf_test_spans_exit();
}

module_init(test_init);
module_exit(test_exit);
MODULE_DESCRIPTION("Known constants for the tests of kerf.ko");
MODULE_LICENSE("GPL");
