// SPDX-License-Identifier: GPL-2.0-only
/* Is any task inside what a transaction changes? Runs with all CPUs stopped: nothing here sleeps, allocates or locks. */
#include <linux/cpumask.h>
#include <linux/percpu.h>
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>
#include <asm/unwind.h>

#include "kerf.h"
#include "kerf_lookup.h"

#ifndef CONFIG_UNWINDER_ORC
#error "kerf needs the ORC unwinder (CONFIG_UNWINDER_ORC): its stack check relies on it"
#endif

/* Sorted and apart. */
bool kerf_in_ranges(const struct kerf_range *ranges, unsigned int n, unsigned long ip)
{
	unsigned int low = 0, high = n;

	while (low < high) {
		unsigned int middle = (low + high) / 2;

		if (ip < ranges[middle].start)
			high = middle;
		else if (ip >= ranges[middle].end)
			low = middle + 1;
		else
			return true;
	}
	return false;
}
NOKPROBE_SYMBOL(kerf_in_ranges);

/*
 * The frame's instruction pointer, with a place in a trampoline as its window's start: there are no ORC data for the
 * trampoline, but it leaves the stack as it was there, or lower by its cells. 0: the stack cannot be followed. @slot is the
 * trampoline's, or -1.
 */
static unsigned long frame_ip(struct unwind_state *state, int *slot)
{
	unsigned long ip = unwind_get_return_address(state);
	const struct kerf_location *loc;

	*slot = ip ? kerf_pool_slot_of(ip) : -1;
	if (*slot < 0)
		return ip;
	loc = kerf_pool_location(*slot);
	if (!loc)
		return 0;
	if (kerf_pool_lowered(*slot, ip))
		state->sp += KERF_CELLS_SIZE;
	state->ip = loc->addr;
	state->signal = true;		/* the next instruction, not the one behind a call */
	return ip;
}
NOKPROBE_SYMBOL(frame_ip);

static bool at_user_mode(struct unwind_state *state)
{
	struct pt_regs *regs = unwind_get_entry_regs(state, NULL);

	return regs && user_mode(regs);
}
NOKPROBE_SYMBOL(at_user_mode);

/*
 * Follows a waiting task's stack. 0: it is outside; 1: inside, at *@ip, or *@ip is 0 when the stack cannot be followed.
 * Frames of interrupts carry registers: their instruction pointer is exact.
 */
static int check_task(const struct kerf_txn *txn, struct task_struct *task, unsigned long *ip)
{
	struct unwind_state state;
	int slot;

	for (unwind_start(&state, task, NULL, NULL); !unwind_done(&state) && !unwind_error(&state);
	     unwind_next_frame(&state)) {
		if (at_user_mode(&state))
			return 0;
		*ip = frame_ip(&state, &slot);
		if (!*ip || kerf_in_ranges(txn->ranges, txn->n_ranges, *ip))
			return 1;
		/* For the ranges a trampoline that stays is within its window. */
		if (slot >= 0 && kerf_in_ranges(txn->ranges, txn->n_ranges, state.ip + 1))
			return 1;
	}
	*ip = 0;
	return unwind_error(&state) ? 1 : 0;
}
NOKPROBE_SYMBOL(check_task);

/*
 * Is a frame of @task in the ranges? Gives the canonical frame address of the outermost such frame, and its instruction pointer. A
 * stack that cannot be followed counts as inside, at 0. @regs: where the running task itself is; else it waits.
 */
bool kerf_stack_inside(struct task_struct *task, struct pt_regs *regs, const struct kerf_range *ranges, unsigned int n,
		       unsigned long *cfa, unsigned long *ip)
{
	struct unwind_state state;
	bool found = regs && kerf_in_ranges(ranges, n, regs->ip), here;
	unsigned long at;
	int slot;

	/* With registers the unwinder starts at the caller of where they are. */
	unwind_start(&state, task, regs, NULL);
	if (found) {
		*ip = regs->ip;
		*cfa = state.sp;
	}
	while (!unwind_done(&state) && !unwind_error(&state) && !at_user_mode(&state)) {
		at = frame_ip(&state, &slot);
		if (!at)
			goto lost;
		here = kerf_in_ranges(ranges, n, slot < 0 ? at : state.ip + 1);
		if (here)
			*ip = at;
		unwind_next_frame(&state);
		if (here)
			*cfa = state.sp;
		found |= here;
	}
	if (!unwind_error(&state))
		return found;
lost:
	*cfa = 0;
	*ip = 0;
	return true;
}
NOKPROBE_SYMBOL(kerf_stack_inside);

static bool in_spans(const struct kerf_entry *entry, unsigned long ip)
{
	unsigned int i;

	for (i = 0; i < entry->n_spans; i++)
		if (kerf_in_ranges(entry->spans[i].ranges, entry->spans[i].n_ranges, ip))
			return true;
	return false;
}
NOKPROBE_SYMBOL(in_spans);

/*
 * The canonical frame address of the innermost frame in a safe span of @entry, or of the function at @regs itself. What an
 * interrupt has interrupted is another execution: there the search ends. 0: there is none, or the stack cannot be followed.
 */
unsigned long kerf_stack_frame(struct pt_regs *regs, const struct kerf_entry *entry, bool own)
{
	struct unwind_state state;
	bool here = own || in_spans(entry, regs->ip);
	unsigned long at;
	int slot;

	unwind_start(&state, current, regs, NULL);
	while (!here && !unwind_done(&state) && !unwind_error(&state) && !unwind_get_entry_regs(&state, NULL)) {
		at = frame_ip(&state, &slot);
		if (!at)
			return 0;
		here = in_spans(entry, slot < 0 ? at : state.ip + 1);
		unwind_next_frame(&state);
	}
	return here && !unwind_error(&state) ? state.sp : 0;
}
NOKPROBE_SYMBOL(kerf_stack_frame);

/* Tells which frames are on a waiting task's stack. False if it cannot be followed. */
bool kerf_stack_live(struct task_struct *task, struct kerf_kept_stack *own)
{
	struct unwind_state state;
	int slot;

	for (unwind_start(&state, task, NULL, NULL);
	     !unwind_done(&state) && !unwind_error(&state) && !at_user_mode(&state);
	     kerf_execution_live(own, state.sp)) {
		if (!frame_ip(&state, &slot))
			return false;
		unwind_next_frame(&state);
	}
	return !unwind_error(&state);
}
NOKPROBE_SYMBOL(kerf_stack_live);

/* Tasks that have reaped themselves and still have part of do_exit to run, from the lists that Tasks RCU keeps of them. */
static struct list_head *exiting(int cpu)
{
	return (void *)(kerf_rcu_tasks__percpu + kerf_exit_list_offset + per_cpu_offset(cpu));
}

static void check_one(struct task_struct *task, struct kerf_visit *check)
{
	if (check->blocked)
		return;
	check->tasks++;
	if (!check_task(check->txn, task, &check->who->ip))
		return;
	check->blocked = true;
	memcpy(check->who->comm, task->comm, sizeof(check->who->comm));
	check->who->comm[sizeof(check->who->comm) - 1] = 0;
	check->who->pid = task->pid;
}
NOKPROBE_SYMBOL(check_one);

/* On a CPU now: a stopper. No stack any more: dead. */
static bool waits(const struct task_struct *task)
{
	return !task->on_cpu && refcount_read(&task->stack_refcount);
}

static void visit(struct task_struct *task, struct kerf_visit *visit)
{
	if (!waits(task))
		return;
	if (visit->txn)
		check_one(task, visit);
	else if (visit->executions)
		kerf_execution_visit(task, visit->executions);
	else
		kerf_transition_visit(task, visit->again);
}
NOKPROBE_SYMBOL(visit);

/* Looks at every task that there is and that waits. All CPUs are stopped. */
void kerf_stack_each(struct kerf_visit *v)
{
	struct task_struct *group, *task;
	int cpu;

	for_each_process_thread(group, task)
		visit(task, v);
	for_each_online_cpu(cpu)
		visit(kcall(idle_task, cpu), v);
	for_each_possible_cpu(cpu) {
		if (!exiting(cpu)->next)
			continue;
		list_for_each_entry(task, exiting(cpu), rcu_tasks_exit_list)
			visit(task, v);
	}
}
NOKPROBE_SYMBOL(kerf_stack_each);

/* Is any task inside the ranges of the transaction? -EAGAIN and @who when one is. */
int kerf_stack_check_all(const struct kerf_txn *txn, unsigned int *tasks, struct kerf_blocker *who)
{
	struct kerf_visit check = { .txn = txn, .who = who };

	kerf_stack_each(&check);
	*tasks = check.tasks;
	return check.blocked ? -EAGAIN : 0;
}
NOKPROBE_SYMBOL(kerf_stack_check_all);
