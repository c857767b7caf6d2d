// SPDX-License-Identifier: GPL-2.0-only
/* Where locations lie: the core kernel's text or a module's, of exactly the build that the sender has analysed. */
#include <linux/elf.h>

#include "kerf.h"
#include "kerf_lookup.h"

#ifndef NT_GNU_BUILD_ID
#define NT_GNU_BUILD_ID 3
#endif

/* The build id in a run of ELF notes, or NULL. */
static const u8 *note_build_id(const u8 *at, const u8 *end, size_t *len)
{
	while (end - at >= sizeof(Elf64_Nhdr)) {
		const Elf64_Nhdr *note = (const void *)at;
		const u8 *name = at + sizeof(*note);
		size_t name_len = ALIGN((size_t)note->n_namesz, 4), desc_len = ALIGN((size_t)note->n_descsz, 4);

		if (name_len > end - name || desc_len > end - name - name_len)
			return NULL;
		if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && !memcmp(name, "GNU", 4)) {
			*len = note->n_descsz;
			return name + name_len;
		}
		at = name + name_len + desc_len;
	}
	return NULL;
}

const u8 *kerf_running_build_id(size_t *len)
{
	return note_build_id((u8 *)kerf___start_notes, (u8 *)kerf___stop_notes, len);
}

/*
 * A module's build id. The kernel keeps it in struct module only with CONFIG_STACKTRACE_BUILD_ID, so
 * look for the note where it was loaded: in read-only data, by its header.
 */
static const u8 *module_build_id(struct module *mod, size_t *len)
{
	static const u8 head[] = { 4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, 'G', 'N', 'U', 0 };
	const u8 *at = mod->mem[MOD_RODATA].base, *end = at + mod->mem[MOD_RODATA].size;

	for (; at && end - at >= sizeof(head) + 20; at += 4) {
		if (!memcmp(at, head, sizeof(head))) {
			*len = 20;
			return at + sizeof(head);
		}
	}
	return NULL;
}

static int find_module_target(struct kerf_target *target, struct kerf_report *report)
{
	struct module *mod;

	preempt_disable();
	mod = kcall(find_module, target->name);
	if (mod && (mod->state != MODULE_STATE_LIVE || !try_module_get(mod)))
		mod = NULL;
	preempt_enable();
	if (!mod)
		return kerf_refuse(report, -ENOENT, "module %s is not loaded", target->name);
	target->mod = mod;
	if (mod == THIS_MODULE)
		return kerf_refuse(report, -EACCES, "kerf does not change itself");
	target->base = (unsigned long)mod->mem[MOD_TEXT].base;
	target->end = target->base + mod->mem[MOD_TEXT].size;
	return 0;
}

static int find_target(struct kerf_target *target, struct kerf_report *report)
{
	const u8 *id;
	size_t len = 0;
	int err;

	if (target->name[0]) {
		err = find_module_target(target, report);
		if (err)
			return err;
		id = module_build_id(target->mod, &len);
	} else {
		target->base = (unsigned long)kerf__text;
		target->end = (unsigned long)kerf__etext;
		id = kerf_running_build_id(&len);
	}
	if (!id)
		return kerf_refuse(report, -ENOENT, "%s has no build id", target->name[0] ? target->name : "the kernel");
	if (len != target->build_id_len || memcmp(id, target->build_id, len))
		return kerf_refuse(report, -ESTALE, "%s has build id %*phN, the record is for %*phN",
				   target->name[0] ? target->name : "the running kernel", (int)len, id,
				   (int)target->build_id_len, target->build_id);
	return 0;
}

static const char *target_name(const struct kerf_target *target)
{
	return target->name[0] ? target->name : "the kernel";
}

static int place_locations(struct kerf_txn *txn, struct kerf_location *locations, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		struct kerf_location *loc = &locations[i];
		struct kerf_target *target = &txn->targets[loc->addr];

		if (loc->offset > target->end - target->base ||
		    loc->len > target->end - target->base - loc->offset)
			return kerf_refuse(txn->report, -ERANGE, "%s: offset 0x%llx is outside the text of %s (0x%lx bytes; __init code is not accepted)",
					   loc->entry->id, loc->offset, target_name(target), target->end - target->base);
		loc->mod = target->mod;
		loc->addr = target->base + loc->offset;
	}
	return 0;
}

static int place_span(struct kerf_txn *txn, const struct kerf_entry *entry, struct kerf_safe_span *span)
{
	struct kerf_target *target = &txn->targets[span->target];
	unsigned int i;
	bool fits = span->entry < target->end - target->base;

	span->entry += target->base;
	for (i = 0; i < span->n_ranges; i++) {
		fits &= span->ranges[i].end <= target->end - target->base;
		span->ranges[i].start += target->base;
		span->ranges[i].end += target->base;
	}
	for (i = 0; i < span->n_exits; i++) {
		fits &= span->exits[i] < target->end - target->base;
		span->exits[i] += target->base;
	}
	span->mod = target->mod;
	if (!fits)
		return kerf_refuse(txn->report, -ERANGE, "%s: a safe span is outside the text of %s", entry->id,
				   target_name(target));
	return 0;
}

static int place(struct kerf_txn *txn, struct kerf_entry *entry)
{
	int err = place_locations(txn, entry->locations, entry->n_locations) ?:
		  place_locations(txn, entry->gates, entry->n_gates);
	unsigned int i;

	for (i = 0; i < entry->n_spans && !err; i++)
		err = place_span(txn, entry, &entry->spans[i]);
	if (err)
		return err;
	for (i = 0; i < entry->n_between; i++) {
		struct kerf_between *range = &entry->between[i];
		struct kerf_target *target = &txn->targets[range->target];

		if (range->end > target->end - target->base)
			return kerf_refuse(txn->report, -ERANGE, "%s: range 0x%lx..0x%lx is outside the text of %s",
					   entry->id, range->start, range->end, target_name(target));
		range->mod = target->mod;
		range->start += target->base;
		range->end += target->base;
	}
	return 0;
}

/* Finds the targets, holds modules, and turns the offsets of the new entries into addresses. */
int kerf_targets_find(struct kerf_txn *txn)
{
	struct kerf_entry *entry;
	unsigned int i;
	int err = 0;

	for (i = 0; i < txn->n_targets && !err; i++)
		err = find_target(&txn->targets[i], txn->report);
	list_for_each_entry(entry, &txn->sets, node)
		err = err ?: place(txn, entry);
	return err;
}

void kerf_targets_put(struct kerf_txn *txn)
{
	unsigned int i;

	for (i = 0; i < txn->n_targets; i++) {
		if (txn->targets[i].mod)
			module_put(txn->targets[i].mod);
		txn->targets[i].mod = NULL;
	}
}
