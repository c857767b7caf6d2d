// SPDX-License-Identifier: GPL-2.0-only
/* The pool of trampolines: slots in the module's own text, written with text_poke. */
#include <linux/objtool.h>

#include "kerf.h"
#include "kerf_lookup.h"

/* In .kprobes.text, so that kprobes refuses to put a probe here. */
asm(".pushsection .kprobes.text, \"ax\"\n"
    ".balign 4096\n"
    ".type kerf_pool, @object\n"
    ".globl kerf_pool\n"
    "kerf_pool:\n"
    ANNOTATE_NOENDBR
    ".skip " __stringify(KERF_SLOTS) " * " __stringify(KERF_SLOT_SIZE) ", 0xcc\n"
    ".size kerf_pool, . - kerf_pool\n"
    ".popsection\n");

/* Whose each slot is. Guarded by kerf_mutex; read by the stopped machine and by whoever runs in the slot. */
const struct kerf_location *kerf_pool_owners[KERF_SLOTS];

unsigned long kerf_pool_address(int slot)
{
	return (unsigned long)kerf_pool + (unsigned long)slot * KERF_SLOT_SIZE;
}

int kerf_pool_slot_of(unsigned long addr)
{
	unsigned long offset = addr - (unsigned long)kerf_pool;

	return offset < KERF_SLOTS * KERF_SLOT_SIZE ? offset / KERF_SLOT_SIZE : -1;
}

const struct kerf_location *kerf_pool_location(int slot)
{
	return kerf_pool_owners[slot];
}

/*
 * Does the stack pointer stand lower by the cells when the next instruction is @addr? Not at the slot's start, nor at the
 * jumps out of it.
 */
bool kerf_pool_lowered(int slot, unsigned long addr)
{
	const struct kerf_location *loc = kerf_pool_owners[slot];
	unsigned long at = addr - kerf_pool_address(slot);
	unsigned int n;

	if (loc->kind != KERF_DECIDED || !at)
		return false;
	for (n = 0; n < loc->n_lifted; n++)
		if (loc->lifted[n] == at)
			return false;
	return true;
}

/* A free slot, or -ENOSPC. */
int kerf_pool_take(const struct kerf_location *loc)
{
	int slot;

	for (slot = 0; slot < KERF_SLOTS; slot++) {
		if (kerf_pool_owners[slot])
			continue;
		kerf_pool_owners[slot] = loc;
		return slot;
	}
	return -ENOSPC;
}

/*
 * The caller knows that nobody is in the slot: its jump was removed in a stop in which every stack was looked at, or never
 * written. So it may be used again at once, without a grace period of Tasks RCU, which one busy kernel thread can hold up
 * for ever.
 */
void kerf_pool_release(int slot)
{
	kerf_pool_owners[slot] = NULL;
}

unsigned int kerf_pool_used(void)
{
	unsigned int used = 0;
	int slot;

	for (slot = 0; slot < KERF_SLOTS; slot++)
		used += !!kerf_pool_owners[slot];
	return used;
}

/* Fills a slot that is in no path. Caller holds text_mutex. */
void kerf_pool_write(const struct kerf_location *loc)
{
	u8 *to = (u8 *)kerf_pool_address(loc->slot);
	u8 old[KERF_SLOT_SIZE];

	memcpy(old, to, sizeof(old));
	kcall(text_poke, to, loc->image, sizeof(loc->image));
	kcall(perf_event_text_poke, to, old, sizeof(old), loc->image, sizeof(loc->image));
}
