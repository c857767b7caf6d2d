// SPDX-License-Identifier: GPL-2.0-only
/* kerf.ko: loading, /dev/kerf (one write is one transaction, a read gives the state as lines), modules coming and going. */
#define pr_fmt(fmt) "kerf: " fmt

#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/security.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/cpufeature.h>

#include "kerf.h"
#include "kerf_lookup.h"

DEFINE_MUTEX(kerf_mutex);

/* Who may load modules may write text; nobody else, not even with an inherited descriptor. */
static int permitted(struct file *file)
{
	if (!capable(CAP_SYS_ADMIN) || !capable(CAP_SYS_MODULE) ||
	    !file_ns_capable(file, &init_user_ns, CAP_SYS_MODULE))
		return -EPERM;
	return 0;
}

static void show_location(struct seq_file *m, const struct kerf_entry *entry, const struct kerf_location *loc)
{
	const char *state = "stock", *livepatch = NULL, *probe = NULL;
	u8 want[KERF_WINDOW_MAX], now[KERF_WINDOW_MAX] = {};
	char buf[KSYM_SYMBOL_LEN];

	kerf_expected_now(loc, want);
	if (loc->gone) {
		state = "unloaded";
	} else {
		memcpy(now, (void *)loc->addr, loc->len);
		livepatch = kerf_livepatch_owner(loc->addr);
		mutex_lock(kerf_kprobe_mutex);
		probe = kerf_probe_owner(loc, buf, sizeof(buf));
		mutex_unlock(kerf_kprobe_mutex);
		state = livepatch ? "shadowed" : !memcmp(now, want, loc->len) ? "ok" : probe ? "probed" : "changed";
	}
	seq_printf(m, "location target=%s offset=0x%llx kind=%s state=%s slot=%d stock=%*phN want=%*phN now=%*phN",
		   loc->target[0] ? loc->target : "vmlinux", loc->offset,
		   loc->kind == KERF_IMMEDIATE ? "immediate" : loc->kind == KERF_DETOUR ? "detour" : "decided", state, loc->slot, loc->len, loc->stock, loc->len,
		   want, loc->len, now);
	/* Numbers and names, never addresses: a status may be pasted into a report. */
	if (!loc->gone)
		seq_printf(m, " at=%pS owner=%s", (void *)loc->addr, livepatch ?: probe ?: "");
	seq_putc(m, '\n');
}

static int show(struct seq_file *m, void *unused)
{
	const struct kerf_report *report = m->private;
	const struct kerf_entry *entry;
	unsigned int i;
	size_t len = 0;
	const u8 *id;

	mutex_lock(&kerf_mutex);
	id = kerf_running_build_id(&len);
	seq_printf(m, "kerf protocol=%u build_id=%*phN\n", KERF_PROTOCOL, (int)len, id);
	seq_printf(m, "text base=0x%lx size=0x%lx\n", (unsigned long)kerf__text,
		   (unsigned long)(kerf__etext - kerf__text));
	seq_printf(m, "pool slots=%u used=%u\n", KERF_SLOTS, kerf_pool_used());
	seq_printf(m, "result code=%d attempts=%u tasks=%u stop_ns=%llu inside=%u looks=%u total_ns=%llu text=%s\n",
		   report->code, report->attempts, report->tasks, report->stop_ns, report->inside, report->looks,
		   report->total_ns, report->text);
	list_for_each_entry(entry, &kerf_entries, node) {
		seq_printf(m, "entry id=%s value=%lld locations=%u between=%u\n", entry->id, entry->value,
			   entry->n_locations, entry->n_between);
		kerf_guard_show(m, entry);
		if (entry->owner[0])
			kerf_decider_show(m, entry);
		for (i = 0; i < entry->n_locations; i++)
			show_location(m, entry, &entry->locations[i]);
	}
	kerf_watchdog_show_removed(m);
	mutex_unlock(&kerf_mutex);
	return 0;
}

static int kerf_open(struct inode *inode, struct file *file)
{
	struct kerf_report *report;
	int err;

	if (!capable(CAP_SYS_ADMIN) || !capable(CAP_SYS_MODULE))
		return -EPERM;
	report = kzalloc(sizeof(*report), GFP_KERNEL);
	if (!report)
		return -ENOMEM;
	file->private_data = NULL;
	err = single_open(file, show, report);
	if (err)
		kfree(report);
	return err;
}

static int kerf_release(struct inode *inode, struct file *file)
{
	kfree(((struct seq_file *)file->private_data)->private);
	return single_release(inode, file);
}

static int transact(const u8 *record, size_t len, struct kerf_report *report)
{
	struct kerf_txn *txn = kvzalloc(sizeof(*txn), GFP_KERNEL);
	int err;

	if (!txn)
		return -ENOMEM;
	txn->report = report;
	err = kerf_record_parse(record, len, txn);
	/* A kernel locked down meanwhile may still get its stock text back. */
	if (!err && txn->n_sets && security_locked_down(LOCKDOWN_DBG_WRITE_KERNEL))
		err = kerf_refuse(report, -EPERM, "the kernel is locked down, which forbids changing its text");
	if (!err)
		err = kerf_transact(txn);
	if (!kerf_transition_stuck(txn))
		kerf_txn_free(txn);
	return err;
}

static ssize_t kerf_write(struct file *file, const char __user *data, size_t len, loff_t *pos)
{
	struct kerf_report *report = ((struct seq_file *)file->private_data)->private;
	int err = permitted(file);
	u8 *record;

	if (err)
		return err;
	if (len > KERF_RECORD_MAX)
		return -E2BIG;
	record = vmemdup_user(data, len);
	if (IS_ERR(record))
		return PTR_ERR(record);
	err = mutex_lock_killable(&kerf_mutex);
	if (!err) {
		memset(report, 0, sizeof(*report));
		err = transact(record, len, report);
		report->code = err;
		mutex_unlock(&kerf_mutex);
	}
	kvfree(record);
	return err ?: len;
}

static const struct file_operations kerf_fops = {
	.owner = THIS_MODULE,
	.open = kerf_open,
	.release = kerf_release,
	.read = seq_read,
	.write = kerf_write,
	.llseek = seq_lseek,
};

static struct miscdevice kerf_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "kerf",
	.fops = &kerf_fops,
	.mode = 0600,
};

static int module_event(struct notifier_block *nb, unsigned long event, void *data)
{
	if (event == MODULE_STATE_GOING) {
		mutex_lock(&kerf_mutex);
		kerf_drop_module(data);
		mutex_unlock(&kerf_mutex);
	}
	return NOTIFY_OK;
}

static struct notifier_block kerf_notifier = { .notifier_call = module_event };

static int __init kerf_init(void)
{
	int err = security_locked_down(LOCKDOWN_DBG_WRITE_KERNEL);

	if (err) {
		pr_err("the kernel is locked down, which forbids changing its text; not loading\n");
		return err;
	}
	if (boot_cpu_has(X86_FEATURE_XENPV)) {
		pr_err("Xen PV guests cannot change their text this way; not loading\n");
		return -EOPNOTSUPP;
	}
	if (IS_ENABLED(CONFIG_PREEMPT_RT)) {
		pr_err("PREEMPT_RT preempts interrupt handlers, which the stack check does not cover; not loading\n");
		return -EOPNOTSUPP;
	}
	err = kerf_lookup_init();
	if (err)
		return err;
	err = register_module_notifier(&kerf_notifier);
	if (err)
		return err;
	err = misc_register(&kerf_device);
	if (err)
		unregister_module_notifier(&kerf_notifier);
	return err;
}

static void __exit kerf_exit(void)
{
	misc_deregister(&kerf_device);
	kerf_watchdog_exit();
	mutex_lock(&kerf_mutex);
	kerf_restore_all();
	mutex_unlock(&kerf_mutex);
	unregister_module_notifier(&kerf_notifier);
}

module_init(kerf_init);
module_exit(kerf_exit);
MODULE_DESCRIPTION("Changes constants in running kernel text, checked");
MODULE_AUTHOR("The Kerf authors");
MODULE_LICENSE("GPL");
