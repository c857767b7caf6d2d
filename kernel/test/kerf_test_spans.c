// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/kernel/debug/kerf_test_spans: threads that are inside a safe span, for as long and as deep as one likes. Writes:
 * "workers N HOW LEVELS" start N kernel threads that call top(HOW, LEVELS) again and again, "call COUNT HOW LEVELS" does so in the
 * writer itself, "late COUNT" calls late() there, "probe OFFSET" puts a probe
 * into span() and "unprobe" takes it out (tracefs does not probe functions that it cannot trace), "release" lets go of those that are parked, "stop" ends the threads, "clear" sets the counters to 0.
 *
 * HOW is what happens between the two uses of the value: 0 nothing, 1 to 99999 a sleep of so many microseconds, 100000 parked
 * until "release", 200000 + N the span again, N deep, 300000 + N busy for N turns, up to 99999, 400000 + N as 200000 and parked in the
 * deepest, 500000 parked and then the end of the thread, which is a kernel thread of "ending HOW". "how HOW" is what the
 * threads do from now on.
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#define WORKERS_MAX 64
#define VALUES_MAX 256

u64 kerf_test_span(u32 how, u32 depth);
u64 kerf_test_late(u32 x);
void kerf_test_between(u32 how, u32 depth, u32 value);
u64 kerf_test_deeper(u32 how, u32 levels);
u64 kerf_test_top(u32 how, u32 levels);
int kerf_test_spans_init(void);
void kerf_test_spans_exit(void);

static struct task_struct *workers[WORKERS_MAX];
static unsigned int n_workers;
static u32 worker_how, worker_levels;
static atomic64_t calls, mixed, crossed, seen[VALUES_MAX];
static atomic_t inside[VALUES_MAX], parked;
static bool released;
static DECLARE_WAIT_QUEUE_HEAD(gate);
static DEFINE_MUTEX(lock);
static struct kprobe foreign;
static struct dentry *file;

/* Does anybody act on another value right now? */
static void look_across(u32 value)
{
	u32 other;

	for (other = 0; other < VALUES_MAX; other++)
		if (other != value && atomic_read(&inside[other]))
			atomic64_inc(&crossed);
}

static void note(u64 both)
{
	u32 low = both, high = both >> 32;

	atomic64_inc(&calls);
	if (low != high)
		atomic64_inc(&mixed);
	else if (low < VALUES_MAX)
		atomic64_inc(&seen[low]);
}

static void park(void)
{
	atomic_inc(&parked);
	wait_event_killable(gate, READ_ONCE(released));
	atomic_dec(&parked);
}

/* Between the two uses. Deeper ones are looked at here: only the outermost result goes to the caller. */
void kerf_test_between(u32 how, u32 depth, u32 value)
{
	u32 n;

	value = min_t(u32, value, VALUES_MAX - 1);
	if (!depth) {
		atomic_inc(&inside[value]);
		look_across(value);
	}
	if (how >= 500000) {
		park();
		atomic_dec(&inside[value]);
		kthread_complete_and_exit(NULL, 0);
	} else if (how >= 400000) {
		if (depth < how - 400000)
			note(kerf_test_span(how, depth + 1));
		else
			park();
	} else if (how >= 300000) {
		for (n = how - 300000; n; n--)
			barrier();
	} else if (how >= 200000) {
		if (depth < how - 200000)
			note(kerf_test_span(how, depth + 1));
	} else if (how >= 100000) {
		park();
	} else if (how) {
		usleep_range(how, how + how / 4 + 1);
	}
	if (!depth) {
		look_across(value);
		atomic_dec(&inside[value]);
	}
}

/* Exported for the livepatch that replaces top(). */
noinline u64 kerf_test_deeper(u32 how, u32 levels)
{
	u64 both = levels ? kerf_test_deeper(how, levels - 1) : kerf_test_span(how, 0);

	/* No tail call: every level has a frame. */
	barrier();
	return both;
}
EXPORT_SYMBOL_GPL(kerf_test_deeper);

/* The value's way up ends here: a safe span that covers all levels is one of this function. */
noinline u64 kerf_test_top(u32 how, u32 levels)
{
	u64 both = kerf_test_deeper(how, levels);

	barrier();
	return both;
}

static int end(void *how)
{
	kerf_test_top((long)how, 0);
	return 0;
}

static int work(void *unused)
{
	while (!kthread_should_stop()) {
		note(kerf_test_top(READ_ONCE(worker_how), READ_ONCE(worker_levels)));
		usleep_range(20, 60);
	}
	return 0;
}

static void stop_all(void)
{
	WRITE_ONCE(released, true);
	wake_up_all(&gate);
	while (n_workers)
		kthread_stop(workers[--n_workers]);
	WRITE_ONCE(released, false);
}

static int start(unsigned int n)
{
	struct task_struct *task;

	while (n_workers < min_t(unsigned int, n, WORKERS_MAX)) {
		task = kthread_run(work, NULL, "kerf_worker/%u", n_workers);
		if (IS_ERR(task))
			return PTR_ERR(task);
		workers[n_workers++] = task;
	}
	return 0;
}

static int probed(struct kprobe *probe, struct pt_regs *regs)
{
	return 0;
}

static int probe(unsigned int offset)
{
	foreign = (struct kprobe){ .addr = (void *)kerf_test_span + offset, .pre_handler = probed };
	return register_kprobe(&foreign);
}

static void clear(void)
{
	u32 n;

	atomic64_set(&calls, 0);
	atomic64_set(&mixed, 0);
	atomic64_set(&crossed, 0);
	for (n = 0; n < VALUES_MAX; n++)
		atomic64_set(&seen[n], 0);
}

/* Without the lock: a call may be parked. */
static int call(u32 count, u32 how, u32 levels)
{
	while (count-- && !fatal_signal_pending(current))
		note(kerf_test_top(how, levels));
	return 0;
}

static int obey(const char *text)
{
	unsigned int a, b, c;
	int err = 0;

	if (sscanf(text, "call %u %u %u", &a, &b, &c) == 3)
		return call(a, b, c);
	if (sscanf(text, "late %u", &a) == 1) {
		while (a)
			note(kerf_test_late(--a));
		return 0;
	}
	mutex_lock(&lock);
	if (sscanf(text, "workers %u %u %u", &a, &b, &c) == 3) {
		worker_how = b;
		worker_levels = c;
		err = start(a);
	} else if (sscanf(text, "ending %u", &a) == 1) {
		err = PTR_ERR_OR_ZERO(kthread_run(end, (void *)(long)a, "kerf_ending"));
	} else if (sscanf(text, "how %u", &a) == 1) {
		WRITE_ONCE(worker_how, a);
	} else if (sscanf(text, "probe %u", &a) == 1) {
		err = probe(a);
	} else if (!strncmp(text, "unprobe", 7)) {
		unregister_kprobe(&foreign);
	} else if (!strncmp(text, "release", 7)) {
		WRITE_ONCE(released, true);
		wake_up_all(&gate);
		while (atomic_read(&parked))
			msleep(1);
		WRITE_ONCE(released, false);
	} else if (!strncmp(text, "stop", 4)) {
		stop_all();
	} else if (!strncmp(text, "clear", 5)) {
		clear();
	} else {
		err = -EINVAL;
	}
	mutex_unlock(&lock);
	return err;
}

static ssize_t control(struct file *f, const char __user *data, size_t len, loff_t *pos)
{
	char text[64];
	int err;

	if (len >= sizeof(text) || copy_from_user(text, data, len))
		return -EINVAL;
	text[len] = 0;
	err = obey(text);
	return err ?: len;
}

static int show(struct seq_file *m, void *unused)
{
	u32 n;

	seq_printf(m, "calls=%lld\nmixed=%lld\ncrossed=%lld\nparked=%d\n", atomic64_read(&calls), atomic64_read(&mixed),
		   atomic64_read(&crossed), atomic_read(&parked));
	for (n = 0; n < VALUES_MAX; n++)
		if (atomic64_read(&seen[n]))
			seq_printf(m, "seen%u=%lld\n", n, atomic64_read(&seen[n]));
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

int kerf_test_spans_init(void)
{
	file = debugfs_create_file("kerf_test_spans", 0600, NULL, NULL, &fops);
	return PTR_ERR_OR_ZERO(file);
}

void kerf_test_spans_exit(void)
{
	debugfs_remove(file);
	stop_all();
}
