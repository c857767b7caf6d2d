// SPDX-License-Identifier: GPL-2.0-only
/*
 * One decision for one execution of a safe span: the place at which it begins asks the policy and keeps the answer here, by the
 * address of its frame, and the places behind it go on with that. docs/policies.md argues why an old answer is never taken
 * for a new one.
 */
#include <linux/cpu.h>
#include <linux/hash.h>
#include <linux/irq_work.h>
#include <linux/sched/task_stack.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "kerf_lookup.h"
#include "kerf_policy.h"

#define BUCKETS_BITS	8
#define STACKS_MAX	1024
#define DEPTH_MAX	8

struct kept {
	unsigned long frame;
	bool decided, live;
	s64 value;
};

/* The executions on one stack, the outermost first: each frame lies below the one before. */
struct kerf_kept_stack {
	struct hlist_node node;
	unsigned long stack;
	unsigned int n;
	bool live;
	struct kept kept[DEPTH_MAX];
};

struct bucket {
	raw_spinlock_t lock;		/* taken in any context but NMI */
	struct hlist_head stacks;
};

struct kerf_executions {
	struct bucket buckets[1 << BUCKETS_BITS];
	raw_spinlock_t unused_lock;
	struct hlist_head unused;
	struct irq_work full;
	struct work_struct clean;
	unsigned long cleaned;		/* when */
	struct kerf_kept_stack stacks[STACKS_MAX];
};

/* A task's own stack, or what interrupts have on this CPU. */
static unsigned long stack_of(unsigned long frame)
{
	unsigned long stack = (unsigned long)task_stack_page(current);

	return frame > stack && frame <= stack + THREAD_SIZE ? stack : 1UL + raw_smp_processor_id();
}
NOKPROBE_SYMBOL(stack_of);

static struct bucket *bucket_of(struct kerf_executions *all, unsigned long stack)
{
	return &all->buckets[hash_long(stack, BUCKETS_BITS)];
}
NOKPROBE_SYMBOL(bucket_of);

static struct kerf_kept_stack *find(struct bucket *bucket, unsigned long stack)
{
	struct kerf_kept_stack *own;

	hlist_for_each_entry(own, &bucket->stacks, node)
		if (own->stack == stack)
			return own;
	return NULL;
}
NOKPROBE_SYMBOL(find);

static struct kerf_kept_stack *take(struct kerf_executions *all, struct bucket *bucket, unsigned long stack)
{
	struct kerf_kept_stack *own;

	raw_spin_lock(&all->unused_lock);
	own = hlist_entry_safe(all->unused.first, struct kerf_kept_stack, node);
	if (own)
		hlist_del(&own->node);
	raw_spin_unlock(&all->unused_lock);
	if (!own)
		return NULL;
	own->stack = stack;
	own->n = 0;
	hlist_add_head(&own->node, &bucket->stacks);
	return own;
}
NOKPROBE_SYMBOL(take);

/*
 * An execution begins in the frame that ends at @frame. Whatever is kept for this frame or one below it on the stack is of
 * executions that have ended. False: there is no room, and nothing is kept for this frame.
 */
bool kerf_execution_begin(struct kerf_executions *all, unsigned long frame, bool decided, s64 value)
{
	unsigned long stack = stack_of(frame), flags;
	struct bucket *bucket = bucket_of(all, stack);
	struct kerf_kept_stack *own;
	bool room;

	raw_spin_lock_irqsave(&bucket->lock, flags);
	own = find(bucket, stack) ?: take(all, bucket, stack);
	while (own && own->n && own->kept[own->n - 1].frame <= frame)
		own->n--;
	room = own && own->n < DEPTH_MAX;
	if (room)
		own->kept[own->n++] = (struct kept){ .frame = frame, .decided = decided, .value = value };
	raw_spin_unlock_irqrestore(&bucket->lock, flags);
	if (!room)
		irq_work_queue(&all->full);
	return room;
}
NOKPROBE_SYMBOL(kerf_execution_begin);

/* What was decided when the execution in this frame began. False: nothing is kept of that. */
bool kerf_execution_find(struct kerf_executions *all, unsigned long frame, bool *decided, s64 *value)
{
	unsigned long stack = stack_of(frame), flags;
	struct bucket *bucket = bucket_of(all, stack);
	struct kerf_kept_stack *own;
	bool found = false;
	unsigned int n;

	raw_spin_lock_irqsave(&bucket->lock, flags);
	own = find(bucket, stack);
	for (n = own ? own->n : 0; n-- && !found;) {
		found = own->kept[n].frame == frame;
		*decided = own->kept[n].decided;
		*value = own->kept[n].value;
	}
	raw_spin_unlock_irqrestore(&bucket->lock, flags);
	return found;
}
NOKPROBE_SYMBOL(kerf_execution_find);

/* A frame that is on the stack. All CPUs are stopped. */
void kerf_execution_live(struct kerf_kept_stack *own, unsigned long frame)
{
	unsigned int n;

	for (n = 0; n < own->n; n++)
		own->kept[n].live |= own->kept[n].frame == frame;
}
NOKPROBE_SYMBOL(kerf_execution_live);

/* A waiting task, all CPUs being stopped: what is kept of frames that it has no more goes. */
void kerf_execution_visit(struct task_struct *task, struct kerf_executions *all)
{
	unsigned long stack = (unsigned long)task_stack_page(task);
	struct kerf_kept_stack *own = find(bucket_of(all, stack), stack);
	unsigned int n, left = 0;

	if (!own)
		return;
	for (n = 0; n < own->n; n++)
		own->kept[n].live = false;
	if (kerf_stack_live(task, own)) {
		for (n = 0; n < own->n; n++)
			if (own->kept[n].live)
				own->kept[left++] = own->kept[n];
		own->n = left;
	}
	own->live = own->n;
}
NOKPROBE_SYMBOL(kerf_execution_visit);

/* Nobody is in an interrupt now, so only tasks have executions. */
static int clean_stopped(void *data)
{
	struct kerf_executions *all = data;
	struct kerf_kept_stack *own;
	struct hlist_node *next;
	unsigned int n;

	for (n = 0; n < STACKS_MAX; n++)
		all->stacks[n].live = false;
	kerf_stack_each(&(struct kerf_visit){ .executions = all });
	for (n = 0; n < ARRAY_SIZE(all->buckets); n++) {
		hlist_for_each_entry_safe(own, next, &all->buckets[n].stacks, node) {
			if (own->live)
				continue;
			hlist_del(&own->node);
			hlist_add_head(&own->node, &all->unused);
		}
	}
	return 0;
}
NOKPROBE_SYMBOL(clean_stopped);

static void clean(struct work_struct *work)
{
	struct kerf_executions *all = container_of(work, struct kerf_executions, clean);

	cpus_read_lock();
	kcall(stop_machine_cpuslocked, clean_stopped, all, NULL);
	cpus_read_unlock();
	all->cleaned = jiffies;
}

/* There was no room. A place in the code may be deep in the scheduler: only from here may somebody be woken. */
static void full(struct irq_work *work)
{
	struct kerf_executions *all = container_of(work, struct kerf_executions, full);

	if (time_after(jiffies, all->cleaned + HZ))
		schedule_work(&all->clean);
}

struct kerf_executions *kerf_executions_alloc(void)
{
	struct kerf_executions *all = kvzalloc(sizeof(*all), GFP_KERNEL);
	unsigned int n;

	if (!all)
		return NULL;
	for (n = 0; n < ARRAY_SIZE(all->buckets); n++)
		raw_spin_lock_init(&all->buckets[n].lock);
	raw_spin_lock_init(&all->unused_lock);
	for (n = 0; n < STACKS_MAX; n++)
		hlist_add_head(&all->stacks[n].node, &all->unused);
	init_irq_work(&all->full, full);
	INIT_WORK(&all->clean, clean);
	all->cleaned = jiffies - HZ;
	return all;
}

/* Nobody comes to the constant's places any more. */
void kerf_executions_free(struct kerf_executions *all)
{
	if (!all)
		return;
	irq_work_sync(&all->full);
	cancel_work_sync(&all->clean);
	kvfree(all);
}
