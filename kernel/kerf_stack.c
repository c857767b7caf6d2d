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

static bool inside(const struct kerf_txn *txn, unsigned long ip)
{
	unsigned int low = 0, high = txn->n_ranges;

	while (low < high) {
		unsigned int middle = (low + high) / 2;

		if (ip < txn->ranges[middle].start)
			high = middle;
		else if (ip >= txn->ranges[middle].end)
			low = middle + 1;
		else
			return true;
	}
	return false;
}

/*
 * Follows a waiting task's stack. 0: it is outside; 1: inside, at *@ip, or *@ip is 0 when the stack cannot be followed.
 * Frames of interrupts carry registers: their instruction pointer is exact.
 */
static int check_task(const struct kerf_txn *txn, struct task_struct *task, unsigned long *ip)
{
	struct unwind_state state;
	const struct kerf_location *loc;
	struct pt_regs *regs;
	int slot;

	for (unwind_start(&state, task, NULL, NULL); !unwind_done(&state) && !unwind_error(&state);
	     unwind_next_frame(&state)) {
		regs = unwind_get_entry_regs(&state, NULL);
		if (regs && user_mode(regs))
			return 0;
		*ip = unwind_get_return_address(&state);
		if (!*ip || inside(txn, *ip))
			return 1;
		slot = kerf_pool_slot_of(*ip);
		if (slot < 0)
			continue;
		/*
		 * In a trampoline that stays. There are no ORC data for it, but it leaves the stack as it was
		 * at the window's start, or lower by its cells; and for the ranges it is within that window.
		 */
		loc = kerf_pool_location(slot);
		if (!loc || inside(txn, loc->addr + 1))
			return 1;
		if (kerf_pool_lowered(slot, *ip))
			state.sp += KERF_CELLS_SIZE;
		state.ip = loc->addr;
		state.signal = true;	/* the next instruction, not the one behind a call */
	}
	*ip = 0;
	return unwind_error(&state) ? 1 : 0;
}
NOKPROBE_SYMBOL(check_task);

static bool blocks(const struct kerf_txn *txn, struct task_struct *task, unsigned int *tasks, struct kerf_blocker *who)
{
	/* On a CPU now: a stopper. No stack any more: dead. */
	if (task->on_cpu || !refcount_read(&task->stack_refcount))
		return false;
	++*tasks;
	if (!check_task(txn, task, &who->ip))
		return false;
	memcpy(who->comm, task->comm, sizeof(who->comm));
	who->comm[sizeof(who->comm) - 1] = 0;
	who->pid = task->pid;
	return true;
}

/* Tasks that have reaped themselves and still have part of do_exit to run, from the lists that Tasks RCU keeps of them. */
static bool exiting_block(const struct kerf_txn *txn, int cpu, unsigned int *tasks, struct kerf_blocker *who)
{
	struct list_head *head = (void *)(kerf_rcu_tasks__percpu + kerf_exit_list_offset + per_cpu_offset(cpu));
	struct task_struct *task;

	if (!head->next)
		return false;
	list_for_each_entry(task, head, rcu_tasks_exit_list)
		if (blocks(txn, task, tasks, who))
			return true;
	return false;
}

/* Looks at every task there is. -EAGAIN and @who when one is inside. */
int kerf_stack_check_all(const struct kerf_txn *txn, unsigned int *tasks, struct kerf_blocker *who)
{
	struct task_struct *group, *task;
	int cpu;

	*tasks = 0;
	for_each_process_thread(group, task)
		if (blocks(txn, task, tasks, who))
			return -EAGAIN;
	for_each_online_cpu(cpu)
		if (blocks(txn, kcall(idle_task, cpu), tasks, who))
			return -EAGAIN;
	for_each_possible_cpu(cpu)
		if (exiting_block(txn, cpu, tasks, who))
			return -EAGAIN;
	return 0;
}
NOKPROBE_SYMBOL(kerf_stack_check_all);
