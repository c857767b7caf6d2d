// SPDX-License-Identifier: GPL-2.0-only
/* The text engine: carries out one transaction, all of it or nothing. docs/text-safety.md argues why it may. */
#define pr_fmt(fmt) "kerf: " fmt

#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include "kerf.h"
#include "kerf_lookup.h"

/* Guarded by kerf_mutex, which the callers of this file hold. */
LIST_HEAD(kerf_entries);
LIST_HEAD(kerf_holds);
struct list_head *kerf_pending;

static bool has_entries;

/* While something is set the module is in use: rmmod says so instead of leaving jumps into freed memory. */
static void hold_module(void)
{
	if (has_entries == !list_empty(&kerf_entries))
		return;
	has_entries = !has_entries;
	if (has_entries)
		__module_get(THIS_MODULE);
	else
		module_put(THIS_MODULE);
}

static void release(struct kerf_location *locations, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		if (locations[i].slot >= 0)
			kerf_pool_release(locations[i].slot);
		locations[i].slot = -1;
	}
}

static void release_slots(struct kerf_entry *entry)
{
	release(entry->locations, entry->n_locations);
	release(entry->gates, entry->n_gates);
}

static int prepare_location(struct kerf_txn *txn, struct kerf_location *loc)
{
	const char *livepatch = kerf_livepatch_owner(loc->addr);

	if (livepatch)
		return kerf_refuse(txn->report, -EADDRINUSE, "%s: the function of %pS is owned by livepatch %s", loc->entry->id,
				   (void *)loc->addr, livepatch);
	if (loc->kind != KERF_IMMEDIATE) {
		loc->slot = kerf_pool_take(loc);
		if (loc->slot < 0)
			return kerf_refuse(txn->report, loc->slot, "%s: all %u trampolines are in use", loc->entry->id,
					   KERF_SLOTS);
	}
	return kerf_verify_location(loc, txn->report);
}

static int prepare(struct kerf_txn *txn)
{
	struct kerf_entry *entry;
	unsigned int i;
	int err = kerf_targets_find(txn);

	list_for_each_entry(entry, &txn->sets, node) {
		for (i = 0; i < entry->n_locations && !err; i++)
			err = prepare_location(txn, &entry->locations[i]);
		for (i = 0; i < entry->n_gates && !err; i++)
			err = prepare_location(txn, &entry->gates[i]);
	}
	return err ?: kerf_plan_check(txn);
}

/* All the checks that need the locks of the kernel's other writers of text. Where instructions begin is asked once. */
static int check_locked(struct kerf_txn *txn, bool first)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < txn->n_writes && !err; i++) {
		struct kerf_write *write = &txn->writes[i];
		struct kerf_location *loc = write->loc;

		err = kerf_owner_check(loc, write->restore, txn->report);
		if (err)
			return err;
		kerf_expected_now(loc, write->before);
		if (memcmp((void *)loc->addr, write->before, loc->len))
			return kerf_refuse(txn->report, -EILSEQ, "%s: memory at %pS holds %*ph, not the expected %*ph",
					   loc->entry->id, (void *)loc->addr, loc->len, (void *)loc->addr, loc->len,
					   write->before);
		if (first && !write->restore)
			err = kerf_verify_surroundings(loc, txn->report);
	}
	return err;
}

static void fill_slots(struct kerf_txn *txn)
{
	unsigned int i;

	for (i = txn->n_restores; i < txn->n_writes && !txn->dry_run; i++)
		if (txn->writes[i].loc->slot >= 0)
			kerf_pool_write(txn->writes[i].loc);
}

/* Tells perf, so that traces decode. */
static void announce(struct kerf_txn *txn)
{
	unsigned int i;

	for (i = 0; i < txn->n_writes && !txn->dry_run; i++) {
		struct kerf_location *loc = txn->writes[i].loc;

		kcall(perf_event_text_poke, (void *)loc->addr, txn->writes[i].before, loc->len, (void *)loc->addr,
		      loc->len);
	}
}

/* The locks in the order in which kernel/kprobes.c takes them; nobody but us writes text, and no CPU comes or goes. */
int kerf_attempt(struct kerf_txn *txn, bool first)
{
	int err;

	mutex_lock(kerf_kprobe_mutex);
	cpus_read_lock();
	kcall(jump_label_lock);
	mutex_lock(kerf_text_mutex);
	err = check_locked(txn, first);
	if (!err && first)
		fill_slots(txn);
	if (!err)
		err = kerf_stop_and_write(txn);
	if (!err)
		announce(txn);
	mutex_unlock(kerf_text_mutex);
	kcall(jump_label_unlock);
	cpus_read_unlock();
	mutex_unlock(kerf_kprobe_mutex);
	return err;
}

/* Tries until nobody is inside, the time is up, or the writer was killed. Only before the point of no return. */
int kerf_attempts(struct kerf_txn *txn, unsigned long until)
{
	unsigned long pause = 100;
	bool first = true;
	int err;

	for (;;) {
		err = kerf_attempt(txn, first);
		first = false;
		if (err != -EAGAIN)
			return err;
		if (fatal_signal_pending(current))
			return kerf_refuse(txn->report, -EINTR, "the caller was killed; nothing was changed");
		if (time_after_eq(jiffies, until))
			return -EBUSY;	/* the report names the blocker */
		usleep_range(pause, pause * 2);
		pause = min(pause * 2, 20000UL);
	}
}

static void commit(struct kerf_txn *txn)
{
	struct kerf_hold *hold, *next_hold;
	struct kerf_entry *entry, *next;

	/* Before what is replaced goes, whose guard it may keep. */
	list_for_each_entry(entry, &txn->sets, node)
		kerf_guard_begin(entry, txn);
	list_for_each_entry_safe(entry, next, &kerf_entries, node) {
		if (!entry->leaving)
			continue;
		list_del(&entry->node);
		release_slots(entry);
		kerf_entry_free(entry);
	}
	list_for_each_entry_safe(entry, next, &txn->sets, node) {
		release(entry->gates, entry->n_gates);
		entry->n_gates = 0;
		entry->old = NULL;
		list_del(&entry->node);
		if (entry->n_locations)
			list_add_tail(&entry->node, &kerf_entries);
		else
			kerf_entry_free(entry);
	}
	list_for_each_entry_safe(hold, next_hold, &kerf_holds, node)
		if (txn->unset_all || !strcmp(hold->owner, txn->drop))
			kerf_hold_free(hold);
	if (txn->hold)
		list_add_tail(&txn->hold->node, &kerf_holds);
	txn->hold = NULL;
	hold_module();
	kerf_watchdog_changed(txn);
}

/* All or nothing; the report says what and why. Caller holds kerf_mutex. */
int kerf_transact(struct kerf_txn *txn)
{
	u64 begin = ktime_get_mono_fast_ns();
	struct kerf_entry *entry;
	int err = kerf_transition_settle(txn->report) ?: prepare(txn);

	if (!err && txn->mode != KERF_AT_ONCE && !txn->dry_run) {
		err = kerf_transition(txn);
	} else if (!err) {
		kerf_plan(txn, KERF_DIRECTLY, txn->outside);
		if (txn->n_writes)
			err = kerf_attempts(txn, jiffies + msecs_to_jiffies(txn->timeout_ms));
	}
	txn->report->total_ns = ktime_get_mono_fast_ns() - begin;
	if (!err && !txn->dry_run)
		commit(txn);
	else if (!kerf_transition_stuck(txn))
		list_for_each_entry(entry, &txn->sets, node)
			release_slots(entry);
	if (!err)
		txn->report->text[0] = 0;
	if (!kerf_transition_stuck(txn)) {
		kerf_plan_clear(txn);
		kerf_targets_put(txn);
	}
	return err;
}

/* A transition that failed has been taken back at last. */
void kerf_txn_settled(struct kerf_txn *txn)
{
	struct kerf_entry *entry;

	list_for_each_entry(entry, &txn->sets, node)
		release_slots(entry);
	kerf_plan_clear(txn);
	kerf_targets_put(txn);
	kerf_txn_free(txn);
}

/* The module's text is going away, and nobody runs it: its locations are void, and written no more. */
void kerf_drop_module(struct module *mod)
{
	struct kerf_entry *entry, *next;
	unsigned int i, left;

	list_for_each_entry_safe(entry, next, &kerf_entries, node) {
		left = 0;
		for (i = 0; i < entry->n_locations; i++) {
			struct kerf_location *loc = &entry->locations[i];

			if (!loc->gone && loc->mod == mod) {
				loc->gone = true;
				if (loc->slot >= 0)
					kerf_pool_release(loc->slot);
				loc->slot = -1;
			}
			left += !loc->gone;
		}
		for (i = 0; i < entry->n_between; i++)
			if (entry->between[i].mod == mod)
				entry->between[i].gone = true;
		if (!left) {
			list_del(&entry->node);
			kerf_entry_free(entry);
		}
	}
	hold_module();
}

/* Only a forced removal gets here with entries. It cannot be refused, so it waits. */
void kerf_restore_all(void)
{
	struct kerf_report report = {};
	struct kerf_txn *txn;

	has_entries = false;		/* no reference to give back */
	while (!list_empty(&kerf_entries)) {
		txn = kvzalloc(sizeof(*txn), GFP_KERNEL | __GFP_NOFAIL);
		INIT_LIST_HEAD(&txn->sets);
		txn->unset_all = true;
		txn->timeout_ms = 2000;
		txn->report = &report;
		if (kerf_transact(txn)) {
			pr_warn("waiting to restore the stock text before removal: %s\n", report.text);
			msleep(100);
		}
		kerf_txn_free(txn);
	}
}
