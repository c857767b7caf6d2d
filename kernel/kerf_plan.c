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

static void overlay(const struct kerf_location *mine, const struct kerf_location *loc, u8 *bytes)
{
	unsigned long start, end, at;

	if (!mine->in_text || !windows_meet(mine, loc) || !kerf_owned(mine, &start, &end))
		return;
	for (at = max(start, loc->addr); at < min(end, loc->addr + loc->len); at++)
		bytes[at - loc->addr] = mine->set[at - mine->addr];
}

static void overlay_all(const struct list_head *entries, const struct kerf_location *loc, u8 *bytes)
{
	const struct kerf_entry *entry;
	unsigned int i;

	list_for_each_entry(entry, entries, node) {
		for (i = 0; i < entry->n_locations; i++)
			overlay(&entry->locations[i], loc, bytes);
		for (i = 0; i < entry->n_gates; i++)
			overlay(&entry->gates[i], loc, bytes);
	}
}

/*
 * What memory should hold in the window of @loc: its stock bytes with all that our entries own in it. @loc need not be in
 * force itself.
 */
void kerf_expected_now(const struct kerf_location *loc, u8 *bytes)
{
	memcpy(bytes, loc->stock, loc->len);
	overlay_all(&kerf_entries, loc, bytes);
	if (kerf_pending)
		overlay_all(kerf_pending, loc, bytes);
}

/* What stands in the text of an entry while old and new value are both in use. A policy's own detours can do that. */
struct kerf_location *kerf_gates(struct kerf_entry *entry, unsigned int *n)
{
	*n = entry->n_gates ?: entry->n_locations;
	return entry->n_gates ? entry->gates : entry->locations;
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

/* Locations and gates of one entry are never in the text together. */
static int check_location(struct kerf_txn *txn, const struct kerf_location *loc, bool gate)
{
	const struct kerf_entry *other;
	int err = 0;

	list_for_each_entry(other, &kerf_entries, node)
		err = err ?: check_against(txn, loc, other, other->leaving);
	list_for_each_entry(other, &txn->sets, node)
		err = err ?: check_against(txn, loc, other, gate && other == loc->entry);
	return err;
}

static int check_conflicts(struct kerf_txn *txn)
{
	struct kerf_entry *entry;
	unsigned int i;
	int err = 0;

	list_for_each_entry(entry, &txn->sets, node) {
		for (i = 0; i < entry->n_locations && !err; i++)
			err = check_location(txn, &entry->locations[i], false);
		for (i = 0; i < entry->n_gates && !err; i++)
			err = check_location(txn, &entry->gates[i], true);
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

static int not_loaded(struct kerf_txn *txn)
{
	const char *why = kerf_watchdog_reason(txn->drop);

	if (why)
		return kerf_refuse(txn->report, -ENOENT, "the policy %s is not loaded: it was taken out, %s", txn->drop, why);
	return kerf_refuse(txn->report, -ENOENT, "the policy %s is not loaded", txn->drop);
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
		return not_loaded(txn);
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
		entry->old = old;
	}
	return 0;
}

/* Can the constant be decided at all its places while threads are inside? */
static bool has_gates(struct kerf_entry *entry)
{
	unsigned int n, i;
	const struct kerf_location *gates = kerf_gates(entry, &n);

	for (i = 0; i < n; i++)
		if (gates[i].kind != KERF_DECIDED)
			return false;
	return n;
}

/* With a transition every constant that changes needs code to be outside of. */
static int check_transition(struct kerf_txn *txn)
{
	struct kerf_entry *entry, *old;
	unsigned int successors = 0, leaving = 0;

	if (txn->mode == KERF_AT_ONCE)
		return 0;
	txn->gated = true;
	list_for_each_entry(old, &kerf_entries, node)
		leaving += old->leaving;
	list_for_each_entry(entry, &txn->sets, node) {
		successors += !!entry->old;
		txn->gated &= has_gates(entry);
		if (!entry->n_spans)
			return kerf_refuse(txn->report, -EINVAL, "%s: a transition by task or globally needs safe spans", entry->id);
	}
	if (successors != leaving)
		return kerf_refuse(txn->report, -EINVAL, "a constant that leaves in a transition needs an operation that sets its stock value");
	return 0;
}

static void forbid(struct kerf_txn *txn, unsigned long start, unsigned long end)
{
	if (start >= end)
		return;
	txn->ranges[txn->n_ranges].start = start;
	txn->ranges[txn->n_ranges++].end = end;
}

static void add(struct kerf_txn *txn, struct kerf_location *locations, unsigned int n, bool restore)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		struct kerf_location *loc = &locations[i];

		if (loc->gone)
			continue;
		txn->writes[txn->n_writes].loc = loc;
		txn->writes[txn->n_writes++].restore = restore;
		forbid(txn, loc->addr + 1, loc->addr + loc->len);
		if (restore && loc->slot >= 0)
			forbid(txn, kerf_pool_address(loc->slot), kerf_pool_address(loc->slot + 1));
	}
}

static bool add_between(struct kerf_txn *txn, const struct kerf_entry *entry)
{
	unsigned int i;

	for (i = 0; i < entry->n_between; i++)
		if (!entry->between[i].gone)
			forbid(txn, entry->between[i].start, entry->between[i].end);
	return entry->n_between;
}

static void add_spans(struct kerf_txn *txn, const struct kerf_entry *entry)
{
	unsigned int i, n;

	for (i = 0; i < entry->n_spans; i++)
		for (n = 0; n < entry->spans[i].n_ranges; n++)
			forbid(txn, entry->spans[i].ranges[n].start, entry->spans[i].ranges[n].end);
}

static void add_gates(struct kerf_txn *txn, struct kerf_entry *entry, bool restore)
{
	unsigned int n;
	struct kerf_location *gates = kerf_gates(entry, &n);

	add(txn, gates, n, restore);
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

static void room(const struct kerf_entry *entry, size_t *writes, size_t *ranges)
{
	unsigned int i;

	*writes += entry->n_locations + entry->n_gates;
	*ranges += (entry->n_locations + entry->n_gates) * 2 + entry->n_between;
	for (i = 0; i < entry->n_spans; i++)
		*ranges += entry->spans[i].n_ranges;
}

static int allocate(struct kerf_txn *txn)
{
	size_t writes = 1, ranges = 1;
	struct kerf_entry *entry;

	list_for_each_entry(entry, &kerf_entries, node)
		room(entry, &writes, &ranges);
	list_for_each_entry(entry, &txn->sets, node)
		room(entry, &writes, &ranges);
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
void kerf_merge_ranges(struct kerf_range *ranges, unsigned int *n)
{
	struct kerf_range *to = ranges, *from;

	if (!*n)
		return;
	sort(ranges, *n, sizeof(*ranges), by_start, NULL);
	for (from = to + 1; from < ranges + *n; from++) {
		if (from->start <= to->end)
			to->end = max(to->end, from->end);
		else
			*++to = *from;
	}
	*n = to - ranges + 1;
}

/* Who leaves for what comes, and whether they may. Once for a transaction. */
int kerf_plan_check(struct kerf_txn *txn)
{
	return allocate(txn) ?: mark_leaving(txn) ?: kerf_guard_check(txn) ?: check_conflicts(txn) ?: check_transition(txn);
}

/*
 * What one stop writes. Restores come before sets, so that a replaced location ends with its new bytes. @outside_spans:
 * nobody may be in a safe span either. Between gates and values nothing but the windows matters: the gates give each thread
 * one value throughout.
 */
void kerf_plan(struct kerf_txn *txn, enum kerf_step step, bool outside_spans)
{
	bool from_old = step == KERF_DIRECTLY || step == KERF_TO_GATES, between = false;
	struct kerf_entry *entry;

	txn->n_writes = txn->n_ranges = 0;
	list_for_each_entry(entry, &kerf_entries, node)
		if (entry->leaving && from_old)
			add(txn, entry->locations, entry->n_locations, true);
	list_for_each_entry(entry, &txn->sets, node)
		if (step == KERF_BACK || (step == KERF_FROM_GATES && entry->n_gates))
			add_gates(txn, entry, true);
	txn->n_restores = txn->n_writes;
	list_for_each_entry(entry, &kerf_entries, node)
		if (entry->leaving && step == KERF_BACK)
			add(txn, entry->locations, entry->n_locations, false);
	list_for_each_entry(entry, &txn->sets, node) {
		if (step == KERF_DIRECTLY || (step == KERF_FROM_GATES && entry->n_gates))
			add(txn, entry->locations, entry->n_locations, false);
		else if (step == KERF_TO_GATES)
			add_gates(txn, entry, false);
	}
	if (step == KERF_DIRECTLY) {
		list_for_each_entry(entry, &kerf_entries, node)
			between |= entry->leaving && add_between(txn, entry);
		list_for_each_entry(entry, &txn->sets, node)
			between |= add_between(txn, entry);
	}
	list_for_each_entry(entry, &kerf_entries, node)
		if (outside_spans && entry->leaving)
			add_spans(txn, entry);
	list_for_each_entry(entry, &txn->sets, node)
		if (outside_spans)
			add_spans(txn, entry);
	kerf_merge_ranges(txn->ranges, &txn->n_ranges);
	txn->check_stacks = outside_spans || !single_field(txn, between);
}

void kerf_plan_clear(struct kerf_txn *txn)
{
	struct kerf_entry *entry;

	list_for_each_entry(entry, &kerf_entries, node)
		entry->leaving = false;
	kvfree(txn->writes);
	kvfree(txn->ranges);
	txn->writes = NULL;
	txn->ranges = NULL;
}
