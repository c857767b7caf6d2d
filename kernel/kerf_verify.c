// SPDX-License-Identifier: GPL-2.0-only
/* Checks locations by decoding them: fields in immediates, trampolines pair by pair, no way into a window's middle. */
#include <linux/slab.h>

#include "kerf.h"
#include "kerf_lookup.h"

int kerf_decode(struct insn *insn, const u8 *bytes, size_t len)
{
	return kcall(insn_decode, insn, bytes, len, INSN_MODE_64) < 0 || insn->length > len ? -EINVAL : 0;
}

static int not_whole(const struct kerf_location *loc, struct kerf_report *report)
{
	return kerf_refuse(report, -EINVAL, "%s: the window at %pS (%*ph) is not whole instructions", loc->entry->id,
			   (void *)loc->addr, loc->len, loc->stock);
}

/* The field lies in one instruction's constant, and that instruction is still the same one with the new bytes. */
static int verify_immediate(struct kerf_location *loc, struct kerf_report *report)
{
	struct insn insn, changed;
	bool found = false;
	unsigned int at;

	for (at = 0; at < loc->len; at += insn.length) {
		if (kerf_decode(&insn, loc->stock + at, loc->len - at))
			return not_whole(loc, report);
		if (loc->field < at || loc->field >= at + insn.length)
			continue;
		found = kerf_form_field(&insn, loc->field - at, loc->field_len) &&
			!kerf_decode(&changed, loc->set + at, loc->len - at) && changed.length == insn.length;
	}
	if (!found)
		return kerf_refuse(report, -EINVAL, "%s: bytes %u..%u of the window at %pS (%*ph) are not within an immediate",
				   loc->entry->id, loc->field, loc->field + loc->field_len, (void *)loc->addr,
				   loc->len, loc->stock);
	return 0;
}

static s64 branch_distance(const struct insn *insn)
{
	return insn->immediate.nbytes == 1 ? (s8)insn->immediate.value : (s32)insn->immediate.value;
}

/*
 * The window with the jump. Behind it int3: whoever gets there in spite of all checks is stopped rather than run on with
 * instructions skipped, and other decoders find boundaries.
 */
static void write_window(struct kerf_location *loc)
{
	s32 distance = kerf_pool_address(loc->slot) - (loc->addr + KERF_JMP_SIZE);

	memset(loc->set, INT3_INSN_OPCODE, loc->len);
	loc->set[0] = JMP32_INSN_OPCODE;
	memcpy(loc->set + 1, &distance, sizeof(distance));
}

static int verify_moved(struct kerf_location *loc, unsigned long addr, const char **why)
{
	if (kcall(find_bug, addr)) {
		*why = "has a bug table entry, which is found by its address";
		return -EINVAL;
	}
	if (kcall(search_exception_tables, addr)) {
		*why = "has an exception table entry, which is found by its address";
		return -EINVAL;
	}
	return 0;
}

/* Instruction @k of the trampoline against the stock one at @from. Returns 1 when a constant differs. */
static int verify_pair(struct kerf_location *loc, unsigned int from, unsigned int to, unsigned int k,
		       struct insn *stock, const char **why)
{
	struct insn new;
	int changed;

	*why = "does not decode";
	if (kerf_decode(stock, loc->stock + from, loc->len - from) || kerf_decode(&new, loc->code + to, loc->code_len[k]))
		return -EINVAL;
	if (new.length != loc->code_len[k]) {
		changed = kerf_sequence(stock, loc->code + to, loc->code_len[k], why);
		return changed >= 0 && verify_moved(loc, loc->addr + from, why) ? -EINVAL : changed;
	}
	changed = kerf_form_pair(stock, &new, why);
	if (changed >= 0 && verify_moved(loc, loc->addr + from, why))
		return -EINVAL;
	return changed;
}

static int verify_detour(struct kerf_location *loc, struct kerf_report *report)
{
	unsigned int from = 0, to = 0, changed = 0, k;
	const char *why = "";
	struct insn stock;
	int ret;

	for (k = 0; k < loc->insns && from < loc->len; k++) {
		ret = verify_pair(loc, from, to, k, &stock, &why);
		if (ret < 0)
			return kerf_refuse(report, -EINVAL, "%s: detour at %pS: instruction %u (%*ph) %s", loc->entry->id,
					   (void *)loc->addr, k, loc->code_len[k], loc->code + to, why);
		changed += ret;
		from += stock.length;
		to += loc->code_len[k];
	}
	if (k != loc->insns || from != loc->len)
		return kerf_refuse(report, -EINVAL, "%s: detour at %pS: %u instructions do not cover the window of %u bytes",
				   loc->entry->id, (void *)loc->addr, loc->insns, loc->len);
	if (changed > KERF_CHANGED_MAX)
		return kerf_refuse(report, -EINVAL, "%s: detour at %pS: %u instructions differ, %u may", loc->entry->id,
				   (void *)loc->addr, changed, KERF_CHANGED_MAX);
	write_window(loc);
	return kerf_emit(loc, report) ?: kerf_decider_check_marks(loc, report);
}

/* Decides whether the location has an accepted form, and completes it. A detour must have its slot. */
int kerf_verify_location(struct kerf_location *loc, struct kerf_report *report)
{
	return loc->kind == KERF_IMMEDIATE ? verify_immediate(loc, report) : verify_detour(loc, report);
}

static bool strictly_inside(const struct kerf_location *loc, unsigned long addr)
{
	return addr > loc->addr && addr < loc->addr + loc->len;
}

/* loop, loope, loopne, jrcxz */
static bool is_loop(const struct insn *insn)
{
	return insn->opcode.nbytes == 1 && (insn->opcode.bytes[0] & 0xfc) == 0xe0;
}

/* The stock bytes at @at if a detour of ours covers it. */
static const u8 *stock_at(unsigned long at, size_t *len)
{
	const struct kerf_entry *entry;
	unsigned int i;

	list_for_each_entry(entry, &kerf_entries, node) {
		for (i = 0; i < entry->n_locations; i++) {
			const struct kerf_location *loc = &entry->locations[i];

			if (loc->kind == KERF_IMMEDIATE || loc->gone || at < loc->addr || at >= loc->addr + loc->len)
				continue;
			*len = loc->addr + loc->len - at;
			return loc->stock + (at - loc->addr);
		}
	}
	return NULL;
}

/* Decodes what stands at @at when neither probes nor detours of ours are on it. */
static int decode_stock(struct insn *insn, unsigned long at)
{
	size_t len = MAX_INSN_SIZE;
	const u8 *bytes = stock_at(at, &len);
	u8 buf[16];

	if (!bytes)
		bytes = (u8 *)kcall(recover_probed_instruction, buf, at);
	return bytes ? kerf_decode(insn, bytes, len) : -EINVAL;
}

/*
 * Decodes a function from its start: the window must begin where an instruction does, and for a detour no direct jump may
 * go strictly inside.
 */
static int scan(const struct kerf_location *loc, unsigned long start, unsigned long end, unsigned long *from)
{
	bool jumps = loc->kind != KERF_IMMEDIATE;
	unsigned long at;
	struct insn insn;

	for (at = start; at < end; at += insn.length) {
		*from = at;
		if (at == loc->addr) {
			insn.length = loc->len;
			continue;
		}
		if (decode_stock(&insn, at) || (at < loc->addr && at + insn.length > loc->addr))
			return -EINVAL;
		if (jumps && (kerf_form_branch(&insn) || is_loop(&insn)) &&
		    strictly_inside(loc, at + insn.length + branch_distance(&insn)))
			return -EINVAL;
	}
	return 0;
}

static bool fixup_inside(const struct kerf_location *loc)
{
	const struct exception_table_entry *entry = kerf___start___ex_table, *end = kerf___stop___ex_table;

	if (loc->mod) {
		entry = loc->mod->extable;
		end = entry + loc->mod->num_exentries;
	}
	for (; entry < end; entry++)
		if (strictly_inside(loc, (unsigned long)&entry->fixup + entry->fixup))
			return true;
	return false;
}

/* The function's cold part lies elsewhere and may jump back into it. 0 if there is none. */
static unsigned long cold_part(unsigned long addr)
{
	char name[KSYM_SYMBOL_LEN + 8], *end;

	sprint_symbol_no_offset(name, addr);
	end = strchr(name, ' ') ?: name + strlen(name);
	strcpy(end, ".cold");
	return kcall(kallsyms_lookup_name, name);
}

/*
 * The window begins at an instruction, and nothing enters a detour's window but at its start, as far as the enclosing function
 * and its cold part show. The sender has looked at the whole image. Caller holds kprobe_mutex and text_mutex.
 */
int kerf_verify_surroundings(const struct kerf_location *loc, struct kerf_report *report)
{
	unsigned long size, offset, start, from = 0;
	int err;

	if (!kcall(kallsyms_lookup_size_offset, loc->addr, &size, &offset) || offset + loc->len > size)
		return kerf_refuse(report, -EINVAL, "%s: the window at %pS is not within a function", loc->entry->id,
				   (void *)loc->addr);
	start = loc->addr - offset;
	err = scan(loc, start, start + size, &from);
	start = err ? 0 : cold_part(loc->addr);
	if (start && loc->kind != KERF_IMMEDIATE && kcall(kallsyms_lookup_size_offset, start, &size, &offset))
		err = scan(loc, start, start + size - offset, &from);
	if (err)
		return kerf_refuse(report, err, "%s: the code at %pS jumps into the middle of the window at %pS, overlaps it, or does not decode",
				   loc->entry->id, (void *)from, (void *)loc->addr);
	if (loc->kind != KERF_IMMEDIATE && fixup_inside(loc))
		return kerf_refuse(report, -EINVAL, "%s: an exception fixup enters the window at %pS", loc->entry->id,
				   (void *)loc->addr);
	return 0;
}
