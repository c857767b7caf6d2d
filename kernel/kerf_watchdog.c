// SPDX-License-Identifier: GPL-2.0-only
/*
 * Policies that cost more than their limits permit are taken out: first they are not asked any more, which means the stock
 * value at once and needs no transition, then their places become stock text as soon as no thread is inside.
 */
#define pr_fmt(fmt) "kerf: " fmt

#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/workqueue.h>

#include "kerf_policy.h"

#define REMOVED_MAX	16
#define REASON_MAX	160

/* A policy that was taken out, until one of its name is loaded or everything is unset. */
struct removed {
	char owner[KERF_OWNER_MAX + 1];
	char reason[REASON_MAX];
	u64 when;			/* wall clock, in ns */
	bool waits;			/* it is not asked, but its places are in the text still */
};

static struct removed all[REMOVED_MAX];
static void watch(struct work_struct *work);
static DECLARE_DELAYED_WORK(work, watch);

static struct removed *find(const char *owner)
{
	unsigned int n;

	for (n = 0; n < REMOVED_MAX; n++)
		if (all[n].owner[0] && !strcmp(all[n].owner, owner))
			return &all[n];
	return NULL;
}

static bool watched(const struct kerf_entry *entry)
{
	return entry->owner[0] && entry->decider && (entry->limits.triggers || entry->limits.share);
}

/* What a policy came to, as if in one second. */
struct cost {
	u64 triggers, ns;
};

/*
 * A policy's constants count together, from the last look on or since they came into force. False: that was just now, as for all
 * of them once the first was added up.
 */
static bool add_up(struct kerf_entry *first, struct cost *cost)
{
	u64 now = ktime_get_boottime_ns(), passed = now - (first->seen.when ?: first->since_boot);
	struct kerf_entry *entry;
	struct kerf_sums sums;

	if (passed < NSEC_PER_SEC / 2)
		return false;
	memset(cost, 0, sizeof(*cost));
	list_for_each_entry(entry, &kerf_entries, node) {
		if (!watched(entry) || strcmp(entry->owner, first->owner))
			continue;
		kerf_counts_sum(entry->decider, &sums);
		cost->triggers += sums.hits - entry->seen.hits;
		cost->ns += sums.ns - entry->seen.ns;
		entry->seen.hits = sums.hits;
		entry->seen.ns = sums.ns;
		entry->seen.when = now;
	}
	cost->triggers = mul_u64_u64_div_u64(cost->triggers, NSEC_PER_SEC, passed);
	cost->ns = mul_u64_u64_div_u64(cost->ns, NSEC_PER_SEC, passed);
	return true;
}

static void stop(const char *owner)
{
	struct kerf_entry *entry;

	list_for_each_entry(entry, &kerf_entries, node)
		if (entry->decider && !strcmp(entry->owner, owner))
			kerf_decider_stop(entry);
}

/*
 * Where it is noted: where nothing is, or in the place of the oldest that is out. NULL: all wait still; then this one just is not
 * asked any more.
 */
static struct removed *place(const char *owner)
{
	struct removed *best = find(owner);
	unsigned int n;

	if (best)
		return best;
	for (n = 0; n < REMOVED_MAX; n++)
		if (!all[n].waits && (!best || all[n].when < best->when))
			best = &all[n];
	return best;
}

static __printf(2, 3) void take_out(const struct kerf_entry *entry, const char *reason, ...)
{
	struct removed *removed = place(entry->owner);
	char text[REASON_MAX];
	va_list args;

	va_start(args, reason);
	vsnprintf(text, sizeof(text), reason, args);
	va_end(args);
	pr_notice("policy %s is taken out: %s\n", entry->owner, text);
	stop(entry->owner);
	if (!removed)
		return;
	strscpy(removed->owner, entry->owner, sizeof(removed->owner));
	strscpy(removed->reason, text, sizeof(removed->reason));
	removed->when = ktime_get_real_ns();
	removed->waits = true;
}

static void judge(struct kerf_entry *entry)
{
	const struct kerf_limits *limits = &entry->limits;
	struct cost cost;

	if (entry->decider->stopped || !add_up(entry, &cost))
		return;
	if (limits->triggers && cost.triggers > limits->triggers)
		take_out(entry, "%llu triggers in a second, permitted are %llu", cost.triggers, limits->triggers);
	else if (limits->share && cost.ns > (u64)limits->share * (NSEC_PER_SEC / 1000))
		take_out(entry, "%llu us of a CPU in a second, permitted are %llu", cost.ns / 1000, (u64)limits->share * 1000);
}

/* Stock text for what is not asked any more. Who is inside one of its safe spans keeps it there until the next look. */
static void unload(struct removed *removed)
{
	struct kerf_txn *txn = kvzalloc(sizeof(*txn), GFP_KERNEL);
	struct kerf_report report = {};
	int err;

	if (!txn)
		return;
	INIT_LIST_HEAD(&txn->sets);
	txn->report = &report;
	txn->timeout_ms = 100;
	txn->outside = true;
	strscpy(txn->drop, removed->owner, sizeof(txn->drop));
	err = kerf_transact(txn);
	/* Whatever keeps the text, a thread or another's probe, may be gone at the next look. */
	removed->waits = err && err != -ENOENT;
	kerf_txn_free(txn);
}

static void look(void)
{
	struct kerf_entry *entry;
	unsigned int n;

	list_for_each_entry(entry, &kerf_entries, node)
		if (watched(entry))
			judge(entry);
	for (n = 0; n < REMOVED_MAX; n++)
		if (all[n].waits)
			unload(&all[n]);
}

static bool needed(void)
{
	struct kerf_entry *entry;

	list_for_each_entry(entry, &kerf_entries, node)
		if (watched(entry))
			return true;
	return false;
}

/* A transaction that runs is waited for: rates are of the time that has passed. */
static void watch(struct work_struct *unused)
{
	if (!mutex_trylock(&kerf_mutex)) {
		schedule_delayed_work(&work, HZ / 10);
		return;
	}
	look();
	if (needed())
		schedule_delayed_work(&work, HZ);
	mutex_unlock(&kerf_mutex);
}

/* A transaction is through: whoever is loaded again is no longer one that was taken out. */
void kerf_watchdog_changed(const struct kerf_txn *txn)
{
	struct removed *removed = txn->owner[0] ? find(txn->owner) : NULL;

	if (removed)
		memset(removed, 0, sizeof(*removed));
	if (txn->unset_all)
		memset(all, 0, sizeof(all));
	if (needed())
		schedule_delayed_work(&work, HZ);
}

void kerf_watchdog_exit(void)
{
	cancel_delayed_work_sync(&work);
}

/* Why a policy is not loaded any more, or NULL. */
const char *kerf_watchdog_reason(const char *owner)
{
	const struct removed *removed = find(owner);

	return removed ? removed->reason : NULL;
}

void kerf_watchdog_show(struct seq_file *m, const struct kerf_entry *entry)
{
	if (watched(entry))
		seq_printf(m, "limits id=%s triggers=%llu permille=%u\n", entry->id, entry->limits.triggers,
			   entry->limits.share);
}

void kerf_watchdog_show_removed(struct seq_file *m)
{
	unsigned int n;

	for (n = 0; n < REMOVED_MAX; n++)
		if (all[n].owner[0])
			seq_printf(m, "removed policy=%s ns=%llu waits=%d reason=%s\n", all[n].owner, all[n].when,
				   all[n].waits, all[n].reason);
}
