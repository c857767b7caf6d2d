// SPDX-License-Identifier: GPL-2.0-only
/*
 * What stands behind the trampolines of a constant with a policy: a BPF program that returns a decision, the values that it
 * may decide on, and what became of its decisions. docs/policies.md says what a policy may rely on.
 */
#include <linux/filter.h>
#include <linux/overflow.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "kerf_lookup.h"
#include "kerf_policy.h"

static s64 floor_div(s64 v, s64 by)
{
	return v / by - (v % by < 0);
}

static bool affine(s64 a, s64 v, s64 b, s64 *n)
{
	s64 product;

	return !check_mul_overflow(a, v, &product) && !check_add_overflow(product, b, n);
}

/* The number that follows from the value @v. False if there is none. */
static bool form_number(const struct kerf_form *form, s64 v, s64 *n)
{
	switch (form->kind) {
	case KERF_AFFINE:
		return affine(form->a, v, form->b, n);
	case KERF_QUOTIENT:
		return !check_add_overflow(v, form->b, &v) &&
		       !check_add_overflow(floor_div(v, form->a), form->c, &v) &&
		       !check_mul_overflow(form->factor, v, n);
	case KERF_RECIPROCAL:
		return v > 0 && !check_add_overflow(floor_div(form->a, v), form->b, n);
	case KERF_POWER:
		return v >= 0 && v < 63 && affine(form->a, 1LL << v, form->b, n);
	case KERF_LOGARITHM:
		return v > 0 && !check_add_overflow((s64)ilog2((u64)v), form->b, n);
	case KERF_RECIPROCAL_LOGARITHM:
		return v > 0 && form->a / v > 0 && !check_add_overflow((s64)ilog2((u64)(form->a / v)), form->b, n);
	}
	return false;
}

/* Cut to @bits and read as signed. */
static s64 wrap(s64 n, u8 bits)
{
	return (s64)((u64)n << (64 - bits)) >> (64 - bits);
}

static bool mark_number(const struct kerf_decider *decider, const struct kerf_mark *mark, s64 value, s64 *n)
{
	if (!form_number(&decider->forms[mark->form], value, n))
		return false;
	*n = wrap(*n, mark->bits);
	if (mark->below && (u64)*n >= mark->below)
		return false;
	return !mark->nonzero || (u32)*n;
}

static bool permitted(const struct kerf_decider *decider, s64 value)
{
	unsigned int low = 0, high = decider->n_ranges;

	while (low < high) {
		unsigned int middle = (low + high) / 2;

		if (value < decider->ranges[middle].min)
			high = middle;
		else if (value > decider->ranges[middle].max)
			low = middle + 1;
		else
			return true;
	}
	return false;
}

/* struct pt_regs keeps registers in an order of its own. */
static unsigned long *register_of(struct pt_regs *regs, u8 number)
{
	unsigned long *const order[16] = {
		&regs->ax, &regs->cx, &regs->dx, &regs->bx, &regs->sp, &regs->bp, &regs->si, &regs->di,
		&regs->r8, &regs->r9, &regs->r10, &regs->r11, &regs->r12, &regs->r13, &regs->r14, &regs->r15,
	};

	return order[number & 15];
}

static const u8 parameters[KERF_ARGUMENTS] = { 7, 6, 2, 1, 8, 9 };	/* di, si, dx, cx, r8, r9 */

/* Gives the parameter registers what they held at the function's entry, as far as it is still somewhere. */
static void show_arguments(const struct kerf_location *loc, struct pt_regs *regs, unsigned long *kept)
{
	unsigned long found[KERF_ARGUMENTS];
	unsigned int n;

	for (n = 0; n < loc->n_arguments; n++) {
		const struct kerf_argument *from = &loc->arguments[n];

		found[n] = from->kind == 1 ? *register_of(regs, from->reg) :
			   from->kind == 2 ? *(unsigned long *)(regs->sp + from->offset) : 0;
	}
	for (n = 0; n < loc->n_arguments; n++) {
		kept[n] = *register_of(regs, parameters[n]);
		*register_of(regs, parameters[n]) = found[n];
	}
}

static void restore_arguments(const struct kerf_location *loc, struct pt_regs *regs, const unsigned long *kept)
{
	unsigned int n;

	for (n = 0; n < loc->n_arguments; n++)
		*register_of(regs, parameters[n]) = kept[n];
}

/*
 * Runs the program as a kprobe would: not preemptible, and not inside another program of this kind, whose locks it might want.
 * False: it could not run.
 */
static bool ask(const struct kerf_decider *decider, struct pt_regs *regs, u64 *answer)
{
	struct bpf_trace_run_ctx context = {};
	struct bpf_run_ctx *outer;
	bool first;

	if (in_nmi() || !rcu_is_watching())
		return false;
	preempt_disable_notrace();
	first = this_cpu_inc_return(*kerf_bpf_prog_active) == 1;
	if (first) {
		outer = bpf_set_run_ctx(&context.run_ctx);
		*answer = decider->run(regs, decider->prog->insnsi);
		bpf_reset_run_ctx(outer);
	}
	this_cpu_dec(*kerf_bpf_prog_active);
	preempt_enable_notrace();
	return first;
}

/* The numbers for @value into the cells, all of them or none. */
static bool fill(const struct kerf_location *loc, s64 value, s64 *cells)
{
	s64 numbers[KERF_MARKS_MAX];
	unsigned int n;

	for (n = 0; n < loc->n_marks; n++)
		if (!mark_number(loc->entry->decider, &loc->marks[n], value, &numbers[n]))
			return false;
	for (n = 0; n < loc->n_marks; n++)
		cells[n] = numbers[n];
	return true;
}

/* Can every place of the constant hold the value? Where an execution begins, it is decided for those behind as well. */
static bool fits(const struct kerf_location *loc, s64 value)
{
	const struct kerf_location *all;
	unsigned int n, i;
	s64 number;

	if (loc->role != KERF_BEGINS)
		return true;
	all = kerf_gates(loc->entry, &n);
	while (n--)
		for (i = 0; i < all[n].n_marks; i++)
			if (!mark_number(loc->entry->decider, &all[n].marks[i], value, &number))
				return false;
	return true;
}

enum outcome { MISSED, KEPT, REFUSED, DECIDED };

/* An answer is 0, keep, or a value shifted left by one with the lowest bit set. kerf.bpf.h makes it. */
static enum outcome consult(const struct kerf_decider *decider, const struct kerf_location *loc, struct pt_regs *regs, s64 *value)
{
	unsigned long kept[KERF_ARGUMENTS];
	u64 answer = 0;
	bool asked;

	if (loc->n_arguments)
		show_arguments(loc, regs, kept);
	asked = ask(decider, regs, &answer);
	if (loc->n_arguments)
		restore_arguments(loc, regs, kept);
	if (!asked)
		return MISSED;
	if (!(answer & 1))
		return KEPT;
	*value = (s64)answer >> 1;
	return permitted(decider, *value) && fits(loc, *value) ? DECIDED : REFUSED;
}

/* As consult(), but once for an execution of the safe span. */
static enum outcome consult_once(const struct kerf_decider *decider, const struct kerf_location *loc, struct pt_regs *regs, s64 *value)
{
	enum outcome outcome = MISSED;
	unsigned long frame;
	bool decided;

	if (in_nmi())
		return MISSED;
	frame = loc->frame >= 0 ? regs->sp + loc->frame : kerf_stack_frame(regs, loc->entry, loc->role == KERF_BEGINS);
	if (!frame)
		return MISSED;
	if (loc->role == KERF_BEGINS) {
		outcome = consult(decider, loc, regs, value);
		return kerf_execution_begin(decider->executions, frame, outcome == DECIDED, *value) ? outcome : MISSED;
	}
	if (kerf_execution_find(decider->executions, frame, &decided, value))
		outcome = decided ? DECIDED : KEPT;
	return outcome;
}

/* False: the stock numbers are to be used. */
static bool decide_by_policy(const struct kerf_decider *decider, const struct kerf_location *loc, struct pt_regs *regs, s64 *cells)
{
	bool once = loc->role != KERF_ALONE && decider->executions;
	enum outcome outcome;
	s64 value = 0;

	this_cpu_inc(decider->counts->hits);
	outcome = once ? consult_once(decider, loc, regs, &value) : consult(decider, loc, regs, &value);
	if (outcome == DECIDED && !fill(loc, value, cells))
		outcome = REFUSED;
	switch (outcome) {
	case MISSED:
		this_cpu_inc(decider->counts->missed);
		break;
	case KEPT:
		this_cpu_inc(decider->counts->kept);
		break;
	case REFUSED:
		this_cpu_inc(decider->counts->refused);
		break;
	case DECIDED:
		this_cpu_inc(decider->counts->decided);
		break;
	}
	return outcome == DECIDED;
}

/* The numbers for what an entry says, policy or fixed value. False: the stock ones are to be used. */
static bool decide(const struct kerf_entry *entry, const struct kerf_location *loc, struct pt_regs *regs, s64 *cells)
{
	if (!entry)
		return false;
	if (entry->decider && entry->decider->prog)
		return decide_by_policy(entry->decider, loc, regs, cells);
	return fill(loc, entry->value, cells);
}

/*
 * Called by kerf_enter for a slot. The cells lie behind @regs and the return address; the slot's instructions read them.
 * Whatever goes wrong, they hold the stock numbers.
 */
asmlinkage notrace void kerf_trigger(struct pt_regs *regs)
{
	const struct kerf_location *loc = kerf_pool_location(kerf_pool_slot_of(regs->ip));
	const struct kerf_entry *entry = loc->entry;
	s64 *cells = (s64 *)(regs + 1) + 1;
	unsigned int n;

	regs->ip = loc->addr;
	/* ss, the return address and the cells lie between what was pushed as sp and the window's own */
	regs->sp += 2 * sizeof(long) + KERF_CELLS_SIZE;
	if (kerf_transition_old(loc, regs))
		entry = entry->old;
	if (decide(entry, loc, regs, cells))
		return;
	for (n = 0; n < loc->n_marks; n++)
		cells[n] = loc->marks[n].stock;
}
NOKPROBE_SYMBOL(kerf_trigger);

struct kerf_decider *kerf_decider_alloc(unsigned int n_ranges)
{
	struct kerf_decider *decider = kvzalloc(struct_size(decider, ranges, n_ranges), GFP_KERNEL);

	if (!decider)
		return NULL;
	decider->n_ranges = n_ranges;
	decider->counts = alloc_percpu(struct kerf_counts);
	if (!decider->counts) {
		kvfree(decider);
		return NULL;
	}
	return decider;
}

/* Nobody runs it any more: the stop that took its trampolines out of the text has looked at every stack. */
void kerf_decider_free(struct kerf_decider *decider)
{
	if (!decider)
		return;
	if (decider->prog)
		bpf_prog_put(decider->prog);
	kerf_executions_free(decider->executions);
	free_percpu(decider->counts);
	kvfree(decider);
}

/* Takes the caller's program. It runs where a kprobe of this type may run, and under its rules. */
int kerf_decider_program(struct kerf_decider *decider, int fd, const char *id, struct kerf_report *report)
{
	struct bpf_prog *prog = bpf_prog_get_type_dev(fd, BPF_PROG_TYPE_KPROBE, false);

	if (IS_ERR(prog))
		return kerf_refuse(report, -EBADF, "%s: file %d is no BPF program of type kprobe", id, fd);
	decider->prog = prog;
	decider->run = (void *)prog->bpf_func;
	if (!prog->jited)
		return kerf_refuse(report, -EOPNOTSUPP, "%s: the program is not compiled to machine code (net.core.bpf_jit_enable)",
				   id);
	if (prog->sleepable || prog->kprobe_override)
		return kerf_refuse(report, -EINVAL, "%s: a policy may neither sleep nor override a return value", id);
	return 0;
}

static bool form_valid(const struct kerf_form *form)
{
	switch (form->kind) {
	case KERF_AFFINE: case KERF_POWER: case KERF_LOGARITHM:
		return true;
	case KERF_QUOTIENT:
		return form->a >= 2 && form->factor;
	case KERF_RECIPROCAL: case KERF_RECIPROCAL_LOGARITHM:
		return form->a >= 0;
	}
	return false;
}

/* Sorted intervals, forms that can be computed. */
int kerf_decider_check(const struct kerf_decider *decider, const char *id, struct kerf_report *report)
{
	unsigned int n;

	for (n = 0; n < decider->n_ranges; n++)
		if (decider->ranges[n].min > decider->ranges[n].max ||
		    (n && decider->ranges[n].min <= decider->ranges[n - 1].max))
			return kerf_refuse(report, -EINVAL, "%s: the permitted values are not sorted intervals", id);
	for (n = 0; n < decider->n_forms; n++)
		if (!form_valid(&decider->forms[n]))
			return kerf_refuse(report, -EINVAL, "%s: form %u cannot be computed", id, n);
	return 0;
}

/* The numbers that the location holds are those that follow from the stock value, by the forms as they were sent. */
int kerf_decider_check_marks(const struct kerf_location *loc, struct kerf_report *report)
{
	const struct kerf_decider *decider = loc->entry->decider;
	unsigned int n;
	s64 number;

	for (n = 0; n < loc->n_marks; n++) {
		const struct kerf_mark *mark = &loc->marks[n];

		if (!mark->met)
			return kerf_refuse(report, -EINVAL, "%s: detour at %pS: there is no instruction %u.%u", loc->entry->id,
					   (void *)loc->addr, mark->insn, mark->part);
		if (mark->form >= decider->n_forms || !mark_number(decider, mark, decider->stock, &number) ||
		    number != wrap(mark->stock, mark->bits))
			return kerf_refuse(report, -EINVAL, "%s: detour at %pS: instruction %u.%u holds %lld, which does not follow from the stock value %lld",
					   loc->entry->id, (void *)loc->addr, mark->insn, mark->part, mark->stock,
					   decider->stock);
	}
	return 0;
}

void kerf_decider_show(struct seq_file *m, const struct kerf_entry *entry)
{
	const struct kerf_decider *decider = entry->decider;
	struct kerf_counts sum = {};
	int cpu;

	for_each_possible_cpu(cpu) {
		const struct kerf_counts *counts = per_cpu_ptr(decider->counts, cpu);

		sum.hits += counts->hits;
		sum.decided += counts->decided;
		sum.kept += counts->kept;
		sum.refused += counts->refused;
		sum.missed += counts->missed;
	}
	seq_printf(m, "policy id=%s program=%u hits=%llu decided=%llu kept=%llu refused=%llu missed=%llu owner=%s\n", entry->id,
		   decider->prog->aux->id, sum.hits, sum.decided, sum.kept, sum.refused, sum.missed, entry->owner);
}
