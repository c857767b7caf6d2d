// SPDX-License-Identifier: GPL-2.0-only
/* Where safe spans begin and end: probes that exist only while a transition runs. A missed one costs a look at the stacks. */
#include <linux/kprobes.h>
#include <linux/slab.h>

#include "kerf.h"

static struct kprobe *points;
static unsigned int n_points;

/* Behind the breakpoint is where handlers are told to be; the unwinder wants the instruction itself. */
static int entered(struct kprobe *probe, struct pt_regs *regs)
{
	unsigned long ip = regs->ip;

	regs->ip = (unsigned long)probe->addr;
	kerf_transition_entered(regs);
	regs->ip = ip;
	return 0;
}
NOKPROBE_SYMBOL(entered);

static int left(struct kprobe *probe, struct pt_regs *regs)
{
	unsigned long ip = regs->ip;

	regs->ip = (unsigned long)probe->addr;
	kerf_transition_left(regs);
	regs->ip = ip;
	return 0;
}
NOKPROBE_SYMBOL(left);

/* A probe with a post handler is never optimised, so it copies no instructions that a transaction may write. */
static void after(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}
NOKPROBE_SYMBOL(after);

bool kerf_points_own(const struct kprobe *probe)
{
	return probe >= points && probe < points + n_points;
}

/* Is the address in a window that gets a gate or loses one? A gate is an entry point by itself. */
static bool in_window(struct kerf_txn *txn, unsigned long addr)
{
	struct kerf_location *gates;
	struct kerf_entry *entry;
	unsigned int i, n;

	list_for_each_entry(entry, &txn->sets, node) {
		gates = kerf_gates(entry, &n);
		for (i = 0; i < n; i++)
			if (addr >= gates[i].addr && addr < gates[i].addr + gates[i].len)
				return true;
		for (i = 0; i < entry->n_locations; i++)
			if (addr >= entry->locations[i].addr &&
			    addr < entry->locations[i].addr + entry->locations[i].len)
				return true;
	}
	return false;
}

static void place(struct kerf_txn *txn, unsigned long addr, kprobe_pre_handler_t handler)
{
	struct kprobe *probe = &points[n_points];

	if (in_window(txn, addr))
		return;
	probe->addr = (void *)addr;
	probe->pre_handler = handler;
	probe->post_handler = after;
	if (register_kprobe(probe))
		memset(probe, 0, sizeof(*probe));
	else
		n_points++;
}

/* Probes where they can be placed. Elsewhere, the stacks tell. */
int kerf_points_place(struct kerf_txn *txn)
{
	struct kerf_safe_span *span;
	struct kerf_entry *entry;
	unsigned int total = 0, i, n;

	list_for_each_entry(entry, &txn->sets, node)
		for (i = 0; i < entry->n_spans; i++)
			total += 1 + entry->spans[i].n_exits;
	points = kvcalloc(max(total, 1U), sizeof(*points), GFP_KERNEL);
	if (!points)
		return -ENOMEM;
	list_for_each_entry(entry, &txn->sets, node) {
		for (i = 0; i < entry->n_spans; i++) {
			span = &entry->spans[i];
			if (txn->mode == KERF_BY_TASK)
				place(txn, span->entry, entered);
			for (n = 0; n < span->n_exits && txn->mode == KERF_GLOBALLY; n++)
				place(txn, span->exits[n], left);
		}
	}
	return 0;
}

void kerf_points_remove(void)
{
	while (n_points)
		unregister_kprobe(&points[--n_points]);
	kvfree(points);
	points = NULL;
}
