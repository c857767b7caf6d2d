// SPDX-License-Identifier: GPL-2.0-only
/* The pool of trampolines: slots in the module's own text, written with text_poke, reused after a Tasks RCU grace period. */
#include <linux/objtool.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>

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

enum slot_state { SLOT_FREE, SLOT_USED, SLOT_PENDING };

static struct slot {
	struct rcu_head rcu;
	unsigned long window;		/* where the detour starts */
	enum slot_state state;
} slots[KERF_SLOTS];
static DEFINE_SPINLOCK(slots_lock);

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
	return slots[slot].window;
}

static int try_take(unsigned long window)
{
	int slot;

	spin_lock_bh(&slots_lock);
	for (slot = 0; slot < KERF_SLOTS && slots[slot].state != SLOT_FREE; slot++)
		;
	if (slot < KERF_SLOTS) {
		slots[slot].state = SLOT_USED;
		slots[slot].window = window;
	} else {
		slot = -ENOSPC;
	}
	spin_unlock_bh(&slots_lock);
	return slot;
}

/* A free slot, or -ENOSPC. May wait for slots that were released lately. */
int kerf_pool_take(unsigned long window)
{
	int slot = try_take(window);

	if (slot < 0) {
		rcu_barrier_tasks();
		slot = try_take(window);
	}
	return slot;
}

static void slot_free(struct rcu_head *rcu)
{
	spin_lock_bh(&slots_lock);
	container_of(rcu, struct slot, rcu)->state = SLOT_FREE;
	spin_unlock_bh(&slots_lock);
}

void kerf_pool_release(int slot)
{
	spin_lock_bh(&slots_lock);
	slots[slot].state = SLOT_PENDING;
	spin_unlock_bh(&slots_lock);
	call_rcu_tasks(&slots[slot].rcu, slot_free);
}

/* Returns when no slot is pending any more: before the module's text goes away. */
void kerf_pool_drain(void)
{
	rcu_barrier_tasks();
}

void kerf_pool_usage(unsigned int *used, unsigned int *pending)
{
	int slot;

	*used = 0;
	*pending = 0;
	spin_lock_bh(&slots_lock);
	for (slot = 0; slot < KERF_SLOTS; slot++) {
		*used += slots[slot].state == SLOT_USED;
		*pending += slots[slot].state == SLOT_PENDING;
	}
	spin_unlock_bh(&slots_lock);
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
