// SPDX-License-Identifier: GPL-2.0-only
/* What a transaction is going to write and who must not be there: made before any lock of the kernel's is taken. */
#include <linux/slab.h>
#include <linux/sort.h>

#include "kerf.h"

/* The bytes that a location owns: its field, or for a detour the whole window. False when its module is gone. */
bool kerf_owned(const struct kerf_location *loc, unsigned long *start, unsigned long *end)
{
	*start = loc->addr + loc->field;
	*end = loc->kind != KERF_IMMEDIATE ? loc->addr + loc->len : *start + loc->field_len;
	return !loc->gone;
}

static bool windows_meet(const struct kerf_location *a, const struct kerf_location *b)
{
	return !a->gone && !b->gone && a->addr < b->addr + b->len && b->addr < a->addr + a->len;
}

/* May both be in force? Immediates may share a window, even an instruction, but not a byte. */
static bool compatible(const struct kerf_location *a, const struct kerf_location *b)
{
	unsigned long a_start, a_end, b_start, b_end;

	if (!windows_meet(a, b))
		return true;
	if (a->kind != KERF_IMMEDIATE || b->kind != KERF_IMMEDIATE)
		return false;
	kerf_owned(a, &a_start, &a_end);
	kerf_owned(b, &b_start, &b_end);
	return a_end <= b_start || b_end <= a_start;
}

/*
 * What memory should hold in the window of @loc: its stock bytes with all that our entries own in it. @loc need not be in
 * force itself.
 */
void kerf_expected_now(const struct kerf_location *loc, u8 *bytes)
{
	const struct kerf_entry *entry;
	unsigned long start, end, at;
	unsigned int i;

	memcpy(bytes, loc->stock, loc->len);
	list_for_each_entry(entry, &kerf_entries, node) {
		for (i = 0; i < entry->n_locations; i++) {
			const struct kerf_location *mine = &entry->locations[i];

			if (!windows_meet(mine, loc) || !kerf_owned(mine, &start, &end))
				continue;
			for (at = max(start, loc->addr); at < min(end, loc->addr + loc->len); at++)
				bytes[at - loc->addr] = mine->set[at - mine->addr];
		}
	}
}

/* Both must mean the same stock bytes, where one's bytes are masked back for the other. */
static bool stock_agrees(const struct kerf_location *a, const struct kerf_location *b)
{
	unsigned long at;

	if (!windows_meet(a, b))
		return true;
	for (at = max(a->addr, b->addr); at < min(a->addr + a->len, b->addr + b->len); at++)
		if (a->stock[at - a->addr] != b->stock[at - b->addr])
			return false;
	return true;
}

static int check_against(struct kerf_txn *txn, const struct kerf_location *loc, const struct kerf_entry *other,
			 bool leaving)
{
	unsigned int i;

	for (i = 0; i < other->n_locations; i++) {
		const struct kerf_location *theirs = &other->locations[i];

		if (theirs == loc)
			continue;
		if (!leaving && !compatible(loc, theirs))
			return kerf_refuse(txn->report, -EADDRINUSE, "%s: the code at %pS is owned by entry %s", loc->entry->id,
					   (void *)loc->addr, other->id);
		if (!stock_agrees(loc, theirs))
			return kerf_refuse(txn->report, -EILSEQ, "%s: entry %s has other stock bytes at %pS", loc->entry->id,
					   other->id, (void *)theirs->addr);
	}
	return 0;
}

static int check_conflicts(struct kerf_txn *txn)
{
	const struct kerf_entry *entry, *other;
	unsigned int i;
	int err = 0;

	list_for_each_entry(entry, &txn->sets, node) {
		for (i = 0; i < entry->n_locations && !err; i++) {
			list_for_each_entry(other, &kerf_entries, node)
				err = err ?: check_against(txn, &entry->locations[i], other, other->leaving);
			list_for_each_entry(other, &txn->sets, node)
				err = err ?: check_against(txn, &entry->locations[i], other, false);
		}
	}
	return err;
}

static struct kerf_entry *find_entry(const char *id)
{
	struct kerf_entry *entry;

	list_for_each_entry(entry, &kerf_entries, node)
		if (!strcmp(entry->id, id))
			return entry;
	return NULL;
}

static int held(struct kerf_txn *txn, const struct kerf_entry *old)
{
	if (old->owner[0])
		return kerf_refuse(txn->report, -EADDRINUSE, "%s is held by the policy %s", old->id, old->owner);
	return kerf_refuse(txn->report, -EADDRINUSE, "%s is set to %lld already", old->id, old->value);
}

/* A policy's constants come and go together. A fixed value may be replaced by another, a policy only when asked for. */
static int mark_leaving(struct kerf_txn *txn)
{
	struct kerf_entry *entry, *old;
	bool dropped = !txn->drop[0];
	unsigned int i;

	list_for_each_entry(entry, &kerf_entries, node) {
		entry->leaving = txn->unset_all || (txn->drop[0] && !strcmp(entry->owner, txn->drop));
		dropped |= entry->leaving;
	}
	if (!dropped)
		return kerf_refuse(txn->report, -ENOENT, "the policy %s is not loaded", txn->drop);
	for (i = 0; i < txn->n_unsets; i++) {
		old = find_entry(txn->unsets[i]);
		if (!old)
			return kerf_refuse(txn->report, -ENOENT, "%s is not set", txn->unsets[i]);
		if (old->owner[0])
			return held(txn, old);
		old->leaving = true;
	}
	list_for_each_entry(entry, &txn->sets, node) {
		old = find_entry(entry->id);
		if (!old)
			continue;
		if (!old->leaving && (old->owner[0] || (txn->owner[0] && !txn->replace)))
			return held(txn, old);
		old->leaving = true;
	}
	return 0;
}

static void forbid(struct kerf_txn *txn, unsigned long start, unsigned long end)
{
	if (start >= end)
		return;
	txn->ranges[txn->n_ranges].start = start;
	txn->ranges[txn->n_ranges++].end = end;
}

static void add_entry(struct kerf_txn *txn, struct kerf_entry *entry, bool restore)
{
	unsigned int i;

	for (i = 0; i < entry->n_locations; i++) {
		struct kerf_location *loc = &entry->locations[i];

		if (loc->gone)
			continue;
		txn->writes[txn->n_writes].loc = loc;
		txn->writes[txn->n_writes++].restore = restore;
		forbid(txn, loc->addr + 1, loc->addr + loc->len);
		if (restore && loc->slot >= 0)
			forbid(txn, kerf_pool_address(loc->slot), kerf_pool_address(loc->slot + 1));
	}
	for (i = 0; i < entry->n_between; i++)
		if (!entry->between[i].gone)
			forbid(txn, entry->between[i].start, entry->between[i].end);
}

/* One field of one instruction, no detour, no range: an interrupted task is before or after it. docs/text-safety.md */
static bool single_field(const struct kerf_txn *txn, bool between)
{
	const struct kerf_location *first = txn->n_writes ? txn->writes[0].loc : NULL;
	unsigned int i;

	for (i = 0; i < txn->n_writes; i++) {
		const struct kerf_location *loc = txn->writes[i].loc;

		if (loc->kind != KERF_IMMEDIATE || loc->addr + loc->field != first->addr + first->field ||
		    loc->field_len != first->field_len)
			return false;
	}
	return !between;
}

static int allocate(struct kerf_txn *txn)
{
	size_t writes = 1, ranges = 1;
	struct kerf_entry *entry;

	list_for_each_entry(entry, &kerf_entries, node) {
		writes += entry->n_locations;
		ranges += entry->n_locations * 2 + entry->n_between;
	}
	list_for_each_entry(entry, &txn->sets, node) {
		writes += entry->n_locations;
		ranges += entry->n_locations * 2 + entry->n_between;
	}
	txn->writes = kvcalloc(writes, sizeof(*txn->writes), GFP_KERNEL);
	txn->ranges = kvcalloc(ranges, sizeof(*txn->ranges), GFP_KERNEL);
	return txn->writes && txn->ranges ? 0 : -ENOMEM;
}

static int by_start(const void *a, const void *b)
{
	const struct kerf_range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Sorted and apart, so that the stopped machine can look an address up quickly. */
static void merge_ranges(struct kerf_txn *txn)
{
	struct kerf_range *to = txn->ranges, *from;

	if (!txn->n_ranges)
		return;
	sort(txn->ranges, txn->n_ranges, sizeof(*txn->ranges), by_start, NULL);
	for (from = to + 1; from < txn->ranges + txn->n_ranges; from++) {
		if (from->start <= to->end)
			to->end = max(to->end, from->end);
		else
			*++to = *from;
	}
	txn->n_ranges = to - txn->ranges + 1;
}

/* Restores come before sets, so that a replaced location ends with its new bytes. */
int kerf_plan(struct kerf_txn *txn)
{
	struct kerf_entry *entry;
	bool between = false;
	int err;

	err = allocate(txn) ?: mark_leaving(txn) ?: check_conflicts(txn);
	if (err)
		return err;
	list_for_each_entry(entry, &kerf_entries, node) {
		if (entry->leaving) {
			add_entry(txn, entry, true);
			between |= entry->n_between;
		}
	}
	txn->n_restores = txn->n_writes;
	list_for_each_entry(entry, &txn->sets, node) {
		add_entry(txn, entry, false);
		between |= entry->n_between;
	}
	merge_ranges(txn);
	txn->check_stacks = !single_field(txn, between);
	return 0;
}

void kerf_plan_free(struct kerf_txn *txn)
{
	struct kerf_entry *entry;

	list_for_each_entry(entry, &kerf_entries, node)
		entry->leaving = false;
	kvfree(txn->writes);
	kvfree(txn->ranges);
	txn->writes = NULL;
	txn->ranges = NULL;
}
