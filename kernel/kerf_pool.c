// SPDX-License-Identifier: GPL-2.0-only
/* The pool of trampolines: slots in the module's own text, written with text_poke. */
#include <linux/objtool.h>

#include "kerf.h"
#include "kerf_lookup.h"

/* In .kprobes.text, so that kprobes refuses to put a probe here. */
asm(".pushsection .kprobes.text, \"ax\"\n"
    ".balign 4096\n"
    ".type kerf_pool, @object\n"
    "kerf_pool:\n"
    ANNOTATE_NOENDBR
    ".skip " __stringify(KERF_SLOTS) " * " __stringify(KERF_SLOT_SIZE) ", 0xcc\n"
    ".size kerf_pool, . - kerf_pool\n"
    ".popsection\n");
extern u8 kerf_pool[];

/* Where each slot's detour starts, 0 for a free slot. Guarded by kerf_mutex; read by the stopped machine. */
static unsigned long windows[KERF_SLOTS];

unsigned long kerf_pool_address(int slot)
{
	return (unsigned long)kerf_pool + (unsigned long)slot * KERF_SLOT_SIZE;
}

int kerf_pool_slot_of(unsigned long addr)
{
	unsigned long offset = addr - (unsigned long)kerf_pool;

	return offset < KERF_SLOTS * KERF_SLOT_SIZE ? offset / KERF_SLOT_SIZE : -1;
}

unsigned long kerf_pool_window(int slot)
{
	return windows[slot];
}

/* A free slot, or -ENOSPC. */
int kerf_pool_take(unsigned long window)
{
	int slot;

	for (slot = 0; slot < KERF_SLOTS; slot++) {
		if (windows[slot])
			continue;
		windows[slot] = window;
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
	windows[slot] = 0;
}

unsigned int kerf_pool_used(void)
{
	unsigned int used = 0;
	int slot;

	for (slot = 0; slot < KERF_SLOTS; slot++)
		used += !!windows[slot];
	return used;
}

/* Fills a slot that is in no path. Caller holds text_mutex. */
void kerf_pool_write(const struct kerf_location *loc, const u8 *code, size_t len)
{
	u8 *to = (u8 *)kerf_pool_address(loc->slot);
	u8 old[KERF_SLOT_SIZE], image[KERF_SLOT_SIZE];

	memcpy(old, to, sizeof(old));
	memset(image, INT3_INSN_OPCODE, sizeof(image));
	memcpy(image, code, len);
	kcall(text_poke, to, image, sizeof(image));
	kcall(perf_event_text_poke, to, old, sizeof(old), image, sizeof(image));
}
