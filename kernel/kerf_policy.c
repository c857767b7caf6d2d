// SPDX-License-Identifier: GPL-2.0-only
/*
 * What stands behind the trampolines of a constant with a policy: a BPF program that returns a decision, the values that it
 * may decide on, and what became of its decisions. docs/policies.md says what a policy may rely on.
 */
#include <linux/context_tracking.h>
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

static __always_inline bool affine(s64 a, s64 v, s64 b, s64 *n)
{
	s64 product;

	return !check_mul_overflow(a, v, &product) && !check_add_overflow(product, b, n);
}

static noinline bool seldom_number(const struct kerf_form *form, s64 v, s64 *n)
{
	switch (form->kind) {
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

/* The number that follows from the value @v. False if there is none. */
static __always_inline bool form_number(const struct kerf_form *form, s64 v, s64 *n)
{
	return likely(form->kind == KERF_AFFINE) ? affine(form->a, v, form->b, n) : seldom_number(form, v, n);
}

/* Cut to @bits and read as signed. */
static __always_inline s64 wrap(s64 n, u8 bits)
{
	return (s64)((u64)n << (64 - bits)) >> (64 - bits);
}

static __always_inline bool mark_number(const struct kerf_decider *decider, const struct kerf_mark *mark, s64 value,
					s64 *n)
{
	if (!form_number(&decider->forms[mark->form], value, n))
		return false;
	*n = wrap(*n, mark->bits);
	if (mark->below && (u64)*n >= mark->below)
		return false;
	return !mark->nonzero || (u32)*n;
}

static __always_inline bool permitted(const struct kerf_decider *decider, s64 value)
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
	static const u8 at[16] = {
		offsetof(struct pt_regs, ax), offsetof(struct pt_regs, cx), offsetof(struct pt_regs, dx),
		offsetof(struct pt_regs, bx), offsetof(struct pt_regs, sp), offsetof(struct pt_regs, bp),
		offsetof(struct pt_regs, si), offsetof(struct pt_regs, di), offsetof(struct pt_regs, r8),
		offsetof(struct pt_regs, r9), offsetof(struct pt_regs, r10), offsetof(struct pt_regs, r11),
		offsetof(struct pt_regs, r12), offsetof(struct pt_regs, r13), offsetof(struct pt_regs, r14),
		offsetof(struct pt_regs, r15),
	};

	return (void *)regs + at[number & 15];
}

static const u8 parameters[KERF_ARGUMENTS] = { 7, 6, 2, 1, 8, 9 };	/* di, si, dx, cx, r8, r9 */

/* Is an argument elsewhere than where it was at the function's entry? Those that are nowhere do not matter: nobody reads them. */
bool kerf_arguments_moved(const struct kerf_location *loc)
{
	unsigned int n;

	for (n = 0; n < loc->n_arguments; n++)
		if (loc->arguments[n].kind == 2 || (loc->arguments[n].kind == 1 && loc->arguments[n].reg != parameters[n]))
			return true;
	return false;
}

/*
 * Runs the program as a kprobe would: not preemptible, and not inside another program of this kind, whose locks it might want.
 * False: it could not run.
 */
static __always_inline bool ask(const struct kerf_decider *decider, struct pt_regs *regs, u64 *answer)
{
	struct bpf_trace_run_ctx context = {};
	struct bpf_run_ctx *outer;
	bool asked = false;

	if (in_nmi())
		return false;
	preempt_disable_notrace();
	if (likely(rcu_is_watching_curr_cpu())) {
		asked = this_cpu_inc_return(*kerf_bpf_prog_active) == 1;
		if (likely(asked)) {
			outer = bpf_set_run_ctx(&context.run_ctx);
			*answer = decider->run(regs, decider->prog->insnsi);
			bpf_reset_run_ctx(outer);
		}
		this_cpu_dec(*kerf_bpf_prog_active);
	}
	preempt_enable_notrace();
	return asked;
}

/* Gives the parameter registers what they held at the function's entry, as far as it is still somewhere, while it asks. */
static noinline bool ask_with_arguments(const struct kerf_decider *decider, const struct kerf_location *loc,
					struct pt_regs *regs, u64 *answer)
{
	unsigned long found[KERF_ARGUMENTS], kept[KERF_ARGUMENTS];
	unsigned int n;
	bool asked;

	for (n = 0; n < loc->n_arguments; n++) {
		const struct kerf_argument *from = &loc->arguments[n];

		found[n] = from->kind == 1 ? *register_of(regs, from->reg) :
			   from->kind == 2 ? *(unsigned long *)(regs->sp + from->offset) : 0;
	}
	for (n = 0; n < loc->n_arguments; n++) {
		kept[n] = *register_of(regs, parameters[n]);
		*register_of(regs, parameters[n]) = found[n];
	}
	asked = ask(decider, regs, answer);
	for (n = 0; n < loc->n_arguments; n++)
		*register_of(regs, parameters[n]) = kept[n];
	return asked;
}

/* The numbers for @value into the cells. False: there is none for one of them, and what the cells hold means nothing. */
static __always_inline bool fill(const struct kerf_decider *decider, const struct kerf_location *loc, s64 value, s64 *cells)
{
	const struct kerf_mark *mark = loc->marks, *end = mark + loc->n_marks;

	for (; mark < end; mark++)
		if (!mark_number(decider, mark, value, cells++))
			return false;
	return true;
}

/* An answer is 0, keep, or a value shifted left by one with the lowest bit set. kerf.bpf.h makes it. */
static __always_inline bool consult(struct kerf_decider *decider, const struct kerf_location *loc, struct pt_regs *regs,
				    s64 *cells)
{
	u64 answer = 0;
	s64 value;
	bool asked;

	asked = loc->moved ? ask_with_arguments(decider, loc, regs, &answer) : ask(decider, regs, &answer);
	if (unlikely(!asked)) {
		this_cpu_inc(decider->counts->missed);
		return false;
	}
	if (!(answer & 1)) {
		this_cpu_inc(decider->counts->kept);
		return false;
	}
	value = (s64)answer >> 1;
	if (unlikely(!permitted(decider, value) || !fill(decider, loc, value, cells))) {
		this_cpu_inc(decider->counts->refused);
		return false;
	}
	this_cpu_inc(decider->counts->decided);
	return true;
}

/* The numbers for what an entry says, policy or fixed value. False: the stock ones are to be used. */
static __always_inline bool decide(const struct kerf_entry *entry, const struct kerf_location *loc, struct pt_regs *regs, s64 *cells)
{
	if (!entry)
		return false;
	if (entry->decider && entry->decider->prog)
		return consult(entry->decider, loc, regs, cells);
	return fill(loc->entry->decider, loc, entry->value, cells);
}

/*
 * Called by kerf_enter for a slot. The cells lie behind @regs and the return address; the slot's instructions read them.
 * Whatever goes wrong, they hold the stock numbers.
 */
asmlinkage notrace __no_stack_protector void kerf_trigger(struct pt_regs *regs)
{
	const struct kerf_location *loc = kerf_pool_owners[(regs->ip - (unsigned long)kerf_pool) / KERF_SLOT_SIZE];
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

		sum.decided += counts->decided;
		sum.kept += counts->kept;
		sum.refused += counts->refused;
		sum.missed += counts->missed;
	}
	seq_printf(m, "policy id=%s program=%u hits=%llu decided=%llu kept=%llu refused=%llu missed=%llu owner=%s\n", entry->id,
		   decider->prog->aux->id, sum.decided + sum.kept + sum.refused + sum.missed, sum.decided, sum.kept, sum.refused, sum.missed, entry->owner);
}
