// SPDX-License-Identifier: GPL-2.0-only
/* The moment itself: all CPUs in one function, nobody inside, bytes compared, written, every core serialized. */
#include <linux/nmi.h>
#include <linux/timekeeping.h>
#include <asm/sync_core.h>

#include "kerf.h"
#include "kerf_lookup.h"

struct stop {
	struct kerf_txn *txn;
	atomic_t arrived;
	int done;
	int result;
	struct kerf_blocker who;
};

/* Nothing here can fail once the first byte is written. */
static int compare_and_write(struct stop *stop)
{
	struct kerf_txn *txn = stop->txn;
	unsigned long start, end;
	unsigned int i;
	int err;

	for (i = 0; i < txn->n_writes; i++)
		if (memcmp((void *)txn->writes[i].loc->addr, txn->writes[i].before, txn->writes[i].loc->len))
			return -EILSEQ;
	if (txn->check_stacks) {
		err = kerf_stack_check_all(txn, &txn->report->tasks, &stop->who);
		if (err)
			return err;
	}
	if (txn->collect) {
		err = kerf_transition_collect(txn->report);
		if (err)
			return err;
	}
	for (i = 0; i < txn->n_writes && !txn->dry_run; i++) {
		struct kerf_write *write = &txn->writes[i];
		const u8 *bytes = write->restore ? write->loc->stock : write->loc->set;

		kerf_owned(write->loc, &start, &end);
		kcall(text_poke, (void *)start, bytes + (start - write->loc->addr), end - start);
		write->loc->in_text = !write->restore;
	}
	return 0;
}
NOKPROBE_SYMBOL(compare_and_write);

/*
 * Runs on every online CPU with interrupts off, after all of them have turned them off. The first does the work. The
 * others wait here, not in code that changes, and then serialize: cross-modifying code by the manual.
 */
static int stopped(void *data)
{
	struct stop *stop = data;
	u64 begin;

	if (atomic_inc_return(&stop->arrived) == 1) {
		begin = ktime_get_mono_fast_ns();
		stop->result = compare_and_write(stop);
		stop->txn->report->stop_ns = ktime_get_mono_fast_ns() - begin;
		smp_store_release(&stop->done, 1);
	} else {
		while (!smp_load_acquire(&stop->done)) {
			cpu_relax();
			touch_nmi_watchdog();
		}
	}
	sync_core();
	return 0;
}
NOKPROBE_SYMBOL(stopped);

/*
 * One attempt. -EAGAIN: somebody is inside, nothing was written, the report names them. Caller holds cpus_read_lock and
 * text_mutex.
 */
int kerf_stop_and_write(struct kerf_txn *txn)
{
	struct stop stop = { .txn = txn };
	int err;

	txn->report->attempts++;
	err = kcall(stop_machine_cpuslocked, stopped, &stop, cpu_online_mask) ?: stop.result;
	if (err == -EILSEQ)
		return kerf_refuse(txn->report, err, "text changed under the lock that guards it");
	if (err == -EAGAIN && stop.who.ip)
		kerf_refuse(txn->report, err, "task %s (pid %d) is at %pS, inside what changes", stop.who.comm,
			    stop.who.pid, (void *)stop.who.ip);
	else if (err == -EAGAIN)
		kerf_refuse(txn->report, err, "the stack of task %s (pid %d) cannot be followed, so it may be inside",
			    stop.who.comm, stop.who.pid);
	return err;
}
