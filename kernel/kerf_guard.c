// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an operator permits for a constant while it is set: the least and the greatest value, how far one change may go, and
 * how soon the next one may come. The way back to the stock value is always open.
 */
#include <linux/audit.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/timekeeping.h>
#include <linux/uidgid.h>
#include <linux/user_namespace.h>

#include "kerf_policy.h"

static bool decided(const struct kerf_entry *entry)
{
	return entry->decider && entry->decider->prog;
}

/* Setting what is set is no change: files are applied again and again. */
static bool unchanged(const struct kerf_entry *entry, const struct kerf_entry *old)
{
	return old && !decided(old) && !decided(entry) && old->value == entry->value;
}

static bool within(const struct kerf_guard *guard, const struct kerf_entry *entry)
{
	const struct kerf_decider *decider = entry->decider;
	unsigned int n;

	if (!decided(entry))
		return entry->value >= guard->min && entry->value <= guard->max;
	for (n = 0; n < decider->n_ranges; n++)
		if (decider->ranges[n].min < guard->min || decider->ranges[n].max > guard->max)
			return false;
	return true;
}

static int check_step(const struct kerf_guard *guard, const struct kerf_entry *entry, const struct kerf_entry *old,
		      struct kerf_report *report)
{
	s64 from = old && !decided(old) ? old->value : guard->stock;
	u64 by = from > entry->value ? (u64)from - entry->value : (u64)entry->value - from;

	if (!guard->step || decided(entry) || by <= guard->step)
		return 0;
	return kerf_refuse(report, -EDOM, "%s: from %lld to %lld is further than one change may go, %llu", entry->id, from,
			   entry->value, guard->step);
}

static int check_pause(const struct kerf_guard *guard, const struct kerf_entry *old, struct kerf_report *report)
{
	u64 pause = (u64)guard->pause_ms * NSEC_PER_MSEC, passed = ktime_get_boottime_ns() - old->since_boot;

	if (passed >= pause)
		return 0;
	return kerf_refuse(report, -EDOM, "%s was changed %llu ms ago, and the next change may come after %u ms", old->id,
			   passed / NSEC_PER_MSEC, guard->pause_ms);
}

static int check(const struct kerf_guard *guard, const struct kerf_entry *entry, const struct kerf_entry *old,
		 struct kerf_report *report)
{
	if (!guard->given)
		return 0;
	if (!within(guard, entry))
		return kerf_refuse(report, -EDOM, "%s: permitted are the values %lld to %lld", entry->id, guard->min,
				   guard->max);
	return check_step(guard, entry, old, report);
}

/*
 * What is set under a guard keeps it unless the record brings another one. A change has to pass the one that will be there, and
 * to wait as long as the one that is there says.
 */
int kerf_guard_check(struct kerf_txn *txn)
{
	struct kerf_entry *entry;
	int err = 0;

	list_for_each_entry(entry, &txn->sets, node) {
		const struct kerf_entry *old = entry->old;

		if (!entry->n_locations)
			continue;
		err = check(entry->guard.given || !old ? &entry->guard : &old->guard, entry, old, txn->report);
		if (!err && old && old->guard.given && !unchanged(entry, old))
			err = check_pause(&old->guard, old, txn->report);
		if (err)
			return err;
	}
	return 0;
}

/* It is in force from now on. */
void kerf_guard_begin(struct kerf_entry *entry, const struct kerf_txn *txn)
{
	const struct kerf_entry *old = entry->old;

	if (old && old->guard.given && !entry->guard.given)
		entry->guard = old->guard;
	entry->since = ktime_get_real_ns();
	entry->since_boot = ktime_get_boottime_ns();
	entry->pid = task_tgid_nr(current);
	entry->login = from_kuid(&init_user_ns, audit_get_loginuid(current));
	if (unchanged(entry, old)) {
		entry->since = old->since;
		entry->since_boot = old->since_boot;
		entry->pid = old->pid;
		entry->login = old->login;
	}
	strscpy(entry->note, txn->note, sizeof(entry->note));
}

void kerf_guard_show(struct seq_file *m, const struct kerf_entry *entry)
{
	seq_printf(m, "since id=%s ns=%llu pid=%d login=%d note=%s\n", entry->id, entry->since, entry->pid,
		   (int)entry->login, entry->note);
	if (entry->guard.given)
		seq_printf(m, "guard id=%s min=%lld max=%lld step=%llu pause_ms=%u\n", entry->id, entry->guard.min,
			   entry->guard.max, entry->guard.step, entry->guard.pause_ms);
}
