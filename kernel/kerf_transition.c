// SPDX-License-Identifier: GPL-2.0-only
/*
 * From one value to another without any thread acting on both: while some are inside a safe span, gates stand in the text and
 * give each thread the value that it began with. docs/transitions.md argues why that is enough.
 */
#include <linux/delay.h>
#include <linux/hash.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "kerf.h"
#include "kerf_lookup.h"

#define BUCKETS_BITS 8

/* A thread that holds on to the value that is on its way out. */
struct record {
	struct hlist_node node;
	struct task_struct *task;	/* compared, never followed: it may be gone */
	unsigned long cfa;		/* of the outermost frame inside */
	bool seen;
};

static struct {
	raw_spinlock_t lock;		/* taken in any context but NMI, where no gate is */
	bool running;
	enum kerf_mode mode;
	bool reversed;			/* going back: the records hold the new value */
	bool frozen;			/* globally: the moment may not come any more */
	bool over;			/* globally: it has come */
	bool overflow;			/* there was no record left */
	unsigned int n;			/* records in use */
	struct hlist_head buckets[1 << BUCKETS_BITS];
	struct hlist_head unused;
	struct record *records;
	struct kerf_range *ranges;	/* of all safe spans, sorted and apart */
	unsigned int n_ranges;
	struct kerf_blocker who;	/* one that was seen inside in the last look */
} now = { .lock = __RAW_SPIN_LOCK_UNLOCKED(now.lock) };

/* One that could not be taken back yet: gates stay until the last thread is out. */
static struct kerf_txn *stuck;

static struct hlist_head *bucket(struct task_struct *task)
{
	return &now.buckets[hash_ptr(task, BUCKETS_BITS)];
}

/* Caller holds the lock. @cfa 0: any. */
static struct record *find(struct task_struct *task, unsigned long cfa)
{
	struct record *record;

	hlist_for_each_entry(record, bucket(task), node)
		if (record->task == task && (!cfa || record->cfa == cfa))
			return record;
	return NULL;
}

static void add(struct task_struct *task, unsigned long cfa)
{
	struct record *record = hlist_entry_safe(now.unused.first, struct record, node);

	if (!record) {
		now.overflow = true;
		return;
	}
	hlist_del(&record->node);
	record->task = task;
	record->cfa = cfa;
	record->seen = true;
	hlist_add_head(&record->node, bucket(task));
	now.n++;
}

static void remove(struct record *record)
{
	hlist_del(&record->node);
	hlist_add_head(&record->node, &now.unused);
	if (!--now.n && now.mode == KERF_GLOBALLY && !now.frozen && !now.overflow)
		now.over = true;
}

static bool inside(struct task_struct *task, struct pt_regs *regs, unsigned long *cfa, unsigned long *ip)
{
	return kerf_stack_inside(task, regs, now.ranges, now.n_ranges, cfa, ip);
}

/* By task: a thread that comes to a gate with no safe span on its stack begins anew, and with the new value. */
static bool holds_by_task(struct pt_regs *regs)
{
	unsigned long cfa, ip, flags;
	struct record *record;
	bool holds;

	raw_spin_lock_irqsave(&now.lock, flags);
	record = find(current, 0);
	raw_spin_unlock_irqrestore(&now.lock, flags);
	if (!record)
		return false;
	holds = inside(current, regs, &cfa, &ip);
	raw_spin_lock_irqsave(&now.lock, flags);
	record = holds ? NULL : find(current, 0);
	if (record)
		remove(record);
	raw_spin_unlock_irqrestore(&now.lock, flags);
	return holds;
}

/* Globally: everybody has the old value until there is a moment at which nobody is inside. A gate is an entry point. */
static bool holds_globally(const struct kerf_location *loc, struct pt_regs *regs)
{
	unsigned long cfa, ip, flags;
	bool over;

	if (READ_ONCE(now.over))
		return false;
	if (!inside(current, regs, &cfa, &ip)) {
		/* The first gate of a safe span: the frame is about to be inside. */
		struct kerf_range own = { regs->ip, regs->ip + 1 };

		if (!kerf_stack_inside(current, regs, &own, 1, &cfa, &ip))
			cfa = 0;
	}
	raw_spin_lock_irqsave(&now.lock, flags);
	over = now.over;
	if (!over && !find(current, cfa))
		add(current, cfa);
	raw_spin_unlock_irqrestore(&now.lock, flags);
	return !over;
}

/* Does the running thread get the value that is on its way out? Asked by the gates. */
bool kerf_transition_old(const struct kerf_location *loc, struct pt_regs *regs)
{
	bool holds;

	if (likely(!READ_ONCE(now.running)))
		return false;
	if (now.mode == KERF_GLOBALLY)
		return holds_globally(loc, regs);
	holds = READ_ONCE(now.n) && holds_by_task(regs);
	return now.reversed ? !holds : holds;
}
NOKPROBE_SYMBOL(kerf_transition_old);

/* A probe at a safe span's entry, where no gate is: whoever comes here with no other span on its stack begins anew. */
void kerf_transition_entered(struct pt_regs *regs)
{
	if (READ_ONCE(now.running) && now.mode == KERF_BY_TASK && READ_ONCE(now.n))
		holds_by_task(regs);
}
NOKPROBE_SYMBOL(kerf_transition_entered);

/* A probe where a safe span is left: the frame's record goes. */
void kerf_transition_left(struct pt_regs *regs)
{
	struct kerf_range own = { regs->ip, regs->ip + 1 };
	unsigned long cfa, ip, flags;
	struct record *record;

	if (!READ_ONCE(now.running) || !kerf_stack_inside(current, regs, &own, 1, &cfa, &ip) || !cfa)
		return;
	raw_spin_lock_irqsave(&now.lock, flags);
	record = find(current, cfa);
	if (record)
		remove(record);
	raw_spin_unlock_irqrestore(&now.lock, flags);
}
NOKPROBE_SYMBOL(kerf_transition_left);

/* For the report, should it be the one that never leaves. */
static void remember(struct task_struct *task, unsigned long ip)
{
	memcpy(now.who.comm, task->comm, sizeof(now.who.comm));
	now.who.comm[sizeof(now.who.comm) - 1] = 0;
	now.who.pid = task->pid;
	now.who.ip = ip;
}

static void collect_one(struct task_struct *task)
{
	unsigned long cfa, ip;

	if (!inside(task, NULL, &cfa, &ip))
		return;
	remember(task, ip);
	if (!find(task, 0))
		add(task, cfa);
}

static void look_one(struct task_struct *task)
{
	unsigned long cfa, ip;
	struct record *record = find(task, 0);

	if (!record)
		return;
	if (!inside(task, NULL, &cfa, &ip))
		return;
	/* One record stands for all of the stack. */
	record->seen = true;
	remember(task, ip);
}

/* A waiting task, all CPUs being stopped. */
void kerf_transition_visit(struct task_struct *task, bool again)
{
	if (again)
		look_one(task);
	else
		collect_one(task);
}
NOKPROBE_SYMBOL(kerf_transition_visit);

/* In the stop that puts the gates in place: who is inside? */
int kerf_transition_collect(struct kerf_report *report)
{
	kerf_stack_each(&(struct kerf_visit){});
	report->inside = now.n;
	if (now.overflow)
		return kerf_refuse(report, -E2BIG, "more than %u threads are inside the safe spans", KERF_INSIDE_MAX);
	now.over = now.mode == KERF_GLOBALLY && !now.n;
	now.running = true;
	return 0;
}
NOKPROBE_SYMBOL(kerf_transition_collect);

/* All CPUs are stopped. Records of threads that have left unnoticed go: through a missed probe, or by ending. */
static int look(void *unused)
{
	struct hlist_node *next;
	struct record *record;
	unsigned int n;

	for (n = 0; n < ARRAY_SIZE(now.buckets); n++)
		hlist_for_each_entry(record, &now.buckets[n], node)
			record->seen = false;
	kerf_stack_each(&(struct kerf_visit){ .again = true });
	for (n = 0; n < ARRAY_SIZE(now.buckets); n++)
		hlist_for_each_entry_safe(record, next, &now.buckets[n], node)
			if (!record->seen)
				remove(record);
	return 0;
}

/*
 * As look(), for the way back: the records become those of threads that hold the new value. Those that have one now hold the
 * old value, which is what everybody gets.
 */
static int turn(void *unused)
{
	struct hlist_node *next;
	struct record *record;
	unsigned int n;

	now.reversed = true;
	for (n = 0; n < ARRAY_SIZE(now.buckets); n++)
		hlist_for_each_entry(record, &now.buckets[n], node)
			record->seen = false;
	kerf_stack_each(&(struct kerf_visit){});
	for (n = 0; n < ARRAY_SIZE(now.buckets); n++)
		hlist_for_each_entry_safe(record, next, &now.buckets[n], node)
			if (!record->seen)
				remove(record);
	return 0;
}

static void stop(int (*fn)(void *unused))
{
	cpus_read_lock();
	kcall(stop_machine_cpuslocked, fn, NULL, NULL);
	cpus_read_unlock();
}

static bool converged(void)
{
	return now.mode == KERF_GLOBALLY && !now.frozen ? READ_ONCE(now.over) : !READ_ONCE(now.n);
}

static int refuse_waiting(struct kerf_report *report)
{
	const char *threads = now.n == 1 ? "thread is" : "threads are";

	if (!now.who.comm[0])
		return kerf_refuse(report, -EBUSY, "%u %s still inside", now.n, threads);
	if (!now.who.ip)
		return kerf_refuse(report, -EBUSY, "%u %s still inside, among them %s (pid %d), whose stack cannot be followed",
				   now.n, threads, now.who.comm, now.who.pid);
	return kerf_refuse(report, -EBUSY, "%u %s still inside, among them %s (pid %d) at %pS", now.n, threads, now.who.comm,
			   now.who.pid, (void *)now.who.ip);
}

/* Threads leave by themselves. Now and then, and before it is given up, all stacks of those left are looked at. */
static int wait(struct kerf_txn *txn, unsigned long until, bool killable)
{
	unsigned long pause = 200, next_look = jiffies + msecs_to_jiffies(20), between = 40;
	bool late;

	while (!converged()) {
		if (killable && fatal_signal_pending(current))
			return kerf_refuse(txn->report, -EINTR, "the caller was killed; everything is as before");
		late = time_after_eq(jiffies, until);
		if (late || time_after_eq(jiffies, next_look)) {
			stop(look);
			txn->report->looks++;
			next_look = jiffies + msecs_to_jiffies(between);
			between = min(between * 2, 1000UL);
			if (late)
				return converged() ? 0 : refuse_waiting(txn->report);
		}
		usleep_range(pause, pause * 2);
		pause = min(pause * 2, 10000UL);
	}
	return 0;
}

static int prepare(struct kerf_txn *txn)
{
	struct kerf_entry *entry;
	unsigned int i, n, total = 0;

	list_for_each_entry(entry, &txn->sets, node)
		for (i = 0; i < entry->n_spans; i++)
			total += entry->spans[i].n_ranges;
	now.ranges = kvcalloc(total, sizeof(*now.ranges), GFP_KERNEL);
	now.records = kvcalloc(KERF_INSIDE_MAX, sizeof(*now.records), GFP_KERNEL);
	if (!now.ranges || !now.records)
		return -ENOMEM;
	now.n_ranges = 0;
	list_for_each_entry(entry, &txn->sets, node)
		for (i = 0; i < entry->n_spans; i++)
			for (n = 0; n < entry->spans[i].n_ranges; n++)
				now.ranges[now.n_ranges++] = entry->spans[i].ranges[n];
	kerf_merge_ranges(now.ranges, &now.n_ranges);
	memset(now.buckets, 0, sizeof(now.buckets));
	INIT_HLIST_HEAD(&now.unused);
	for (n = 0; n < KERF_INSIDE_MAX; n++)
		hlist_add_head(&now.records[n].node, &now.unused);
	now.n = 0;
	now.mode = txn->mode;
	now.reversed = now.frozen = now.over = now.overflow = false;
	memset(&now.who, 0, sizeof(now.who));
	return 0;
}

/* No gate asks any more. */
static void finish(void)
{
	now.running = false;
	kerf_points_remove();
	kvfree(now.ranges);
	kvfree(now.records);
	now.ranges = NULL;
	now.records = NULL;
	kerf_pending = NULL;
}

/* The gates go, and what was in force comes back. Nobody holds the new value. */
static int remove_gates(struct kerf_txn *txn, unsigned long until)
{
	kerf_plan(txn, KERF_BACK, false);
	return kerf_attempts(txn, until);
}

/*
 * The same machine the other way: everybody gets the old value but those that began with the new one. If they do not leave
 * either, the gates stay and keep them apart; the next transaction tries again.
 */
static void take_back(struct kerf_txn *txn)
{
	unsigned long until = jiffies + msecs_to_jiffies(max(txn->timeout_ms, 1000U));
	struct kerf_report report = *txn->report;
	unsigned long flags;
	int err = 0;

	if (now.mode == KERF_GLOBALLY) {
		raw_spin_lock_irqsave(&now.lock, flags);
		now.frozen = !now.over;
		raw_spin_unlock_irqrestore(&now.lock, flags);
	}
	if (now.mode == KERF_BY_TASK || now.over) {
		now.mode = KERF_BY_TASK;
		stop(turn);
		err = wait(txn, until, false);
	}
	err = err ?: remove_gates(txn, until);
	if (err) {
		stuck = txn;
		__module_get(THIS_MODULE);
	} else {
		finish();
	}
	report.looks = txn->report->looks;
	*txn->report = report;
}

/* What is left of a transition that failed, before anything else is done. */
int kerf_transition_settle(struct kerf_report *report)
{
	struct kerf_txn *txn = stuck;
	int err;

	if (!txn)
		return 0;
	txn->report = report;
	err = wait(txn, jiffies + HZ, true) ?: remove_gates(txn, jiffies + HZ);
	if (err)
		return kerf_refuse(report, -EBUSY, "a transition that failed is not settled yet: %u threads began with a value that is taken back, one is %s (pid %d)",
				   now.n, now.who.comm, now.who.pid);
	finish();
	stuck = NULL;
	module_put(THIS_MODULE);
	kerf_txn_settled(txn);
	return 0;
}

bool kerf_transition_stuck(const struct kerf_txn *txn)
{
	return stuck && stuck == txn;
}

/*
 * Directly, if nobody is inside; where a place has no room for a gate, until then. Else by gates: in one stop they come and those inside are noted; when the last has left,
 * the value itself takes their place.
 */
int kerf_transition(struct kerf_txn *txn)
{
	unsigned long until = jiffies + msecs_to_jiffies(txn->timeout_ms);
	int err;

	kerf_plan(txn, KERF_DIRECTLY, true);
	if (!txn->gated)
		return kerf_attempts(txn, until);
	err = kerf_attempt(txn, true);
	if (err != -EAGAIN)
		return err;
	err = prepare(txn);
	if (!err)
		err = kerf_points_place(txn);
	if (err) {
		finish();
		return err;
	}
	kerf_pending = &txn->sets;
	kerf_plan(txn, KERF_TO_GATES, false);
	txn->collect = true;
	err = kerf_attempts(txn, until);
	txn->collect = false;
	if (err) {
		finish();
		return err;
	}
	err = wait(txn, until, true);
	if (!err) {
		kerf_plan(txn, KERF_FROM_GATES, false);
		if (txn->n_writes)
			err = kerf_attempts(txn, jiffies + msecs_to_jiffies(max(txn->timeout_ms, 1000U)));
	}
	if (err) {
		take_back(txn);
		return err;
	}
	finish();
	return 0;
}
