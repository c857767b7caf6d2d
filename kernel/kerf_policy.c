// SPDX-License-Identifier: GPL-2.0-only
/*
 * What stands behind the trampolines of a constant with a policy: a BPF program that returns a decision, the values that it
 * may decide on, and what became of its decisions. docs/policies.md says what a policy may rely on.
 */
#include <linux/context_tracking.h>
#include <linux/filter.h>
#include <linux/overflow.h>
#include <linux/sched/clock.h>
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
	case KERF_RATIO:
		if (!affine(form->factor, v, form->b, n))
			return false;
		*n = floor_div(*n, form->a);
		return true;
	}
	return false;
}

/* Without the @shift upper bits, and read as signed. */
static __always_inline s64 wrap(s64 n, u8 shift)
{
	return (s64)((u64)n << shift) >> shift;
}

static bool mark_number(const struct kerf_decider *decider, const struct kerf_mark *mark, s64 value, s64 *n)
{
	if (!form_number(&decider->forms[mark->form], value, n))
		return false;
	*n = wrap(*n, 64 - mark->bits);
	if (mark->below && (u64)*n >= mark->below)
		return false;
	return !mark->nonzero || (u32)*n;
}

static __always_inline bool permitted(const struct kerf_decider *decider, s64 value)
{
	unsigned int low = 1, high = decider->n_ranges;

	if (likely(value >= decider->ranges[0].min && value <= decider->ranges[0].max))
		return true;
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
static bool arguments_moved(const struct kerf_location *loc)
{
	unsigned int n;

	for (n = 0; n < loc->n_arguments; n++)
		if (loc->arguments[n].kind == 2 || (loc->arguments[n].kind == 1 && loc->arguments[n].reg != parameters[n]))
			return true;
	return false;
}

/* a * V + b for all permitted values, since it is for the ends of the intervals; and the instruction takes every number. */
static bool mark_plain(const struct kerf_decider *decider, const struct kerf_mark *mark)
{
	const struct kerf_form *form = &decider->forms[mark->form];
	unsigned int n;
	s64 number;

	if (form->kind != KERF_AFFINE || mark->below || mark->nonzero)
		return false;
	for (n = 0; n < decider->n_ranges; n++)
		if (!affine(form->a, decider->ranges[n].min, form->b, &number) ||
		    !affine(form->a, decider->ranges[n].max, form->b, &number))
			return false;
	return true;
}

/* What a trigger needs to know, in the form in which it is quickest. After the marks have been checked. */
static void prepare(struct kerf_location *loc)
{
	struct kerf_decider *decider = loc->entry->decider;
	unsigned int n;

	loc->plain = true;
	for (n = 0; n < loc->n_marks; n++) {
		struct kerf_mark *mark = &loc->marks[n];

		mark->a = decider->forms[mark->form].a;
		mark->b = decider->forms[mark->form].b;
		mark->shift = 64 - mark->bits;
		loc->plain = loc->plain && mark_plain(decider, mark);
	}
	/* Values without a policy, limited time, arguments that have to be moved and executions of several places go another way. */
	loc->asks = decider->prog && !decider->timed && !arguments_moved(loc) && loc->role == KERF_ALONE ? decider : NULL;
}

/*
 * Runs the program as a kprobe would: not preemptible, and not inside another program of this kind, whose locks it might want.
 * False: it could not run. Nothing but the answer is kept across the program, which saves a trigger a few instructions.
 */
static __always_inline bool ask(const struct kerf_decider *decider, struct pt_regs *regs, u64 *answer)
{
	int __percpu *active = kerf_bpf_prog_active;
	struct bpf_trace_run_ctx context = {};
	struct bpf_run_ctx *outer;

	if (in_nmi())
		return false;
	preempt_disable_notrace();
	if (unlikely(!(raw_cpu_read(context_tracking.state.counter) & CT_RCU_WATCHING)) || unlikely(this_cpu_read(*active))) {
		preempt_enable_notrace();
		return false;
	}
	this_cpu_inc(*active);
	outer = bpf_set_run_ctx(&context.run_ctx);
	/* Machine code: what the interpreter would walk is not looked at. */
	*answer = decider->run(regs, NULL);
	bpf_reset_run_ctx(outer);
	this_cpu_dec(*active);
	preempt_enable_notrace();
	return true;
}

static noinline bool fill_slowly(const struct kerf_location *loc, s64 value, s64 *cells)
{
	unsigned int n;

	for (n = 0; n < loc->n_marks; n++)
		if (!mark_number(loc->entry->decider, &loc->marks[n], value, &cells[n]))
			return false;
	return true;
}

/* The numbers for @value into the cells. False: there is none for one of them, and what the cells hold means nothing. */
static __always_inline bool fill(const struct kerf_location *loc, s64 value, s64 *cells)
{
	const struct kerf_mark *mark = loc->marks;
	const s64 *end = cells + loc->n_marks;

	if (unlikely(!loc->plain))
		return fill_slowly(loc, value, cells);
	do {
		*cells++ = wrap(mark->a * value + mark->b, mark->shift);
		mark++;
	} while (cells != end);
	return true;
}

static __always_inline void fill_stock(const struct kerf_location *loc, s64 *cells)
{
	unsigned int n;

	for (n = 0; n < loc->n_marks; n++)
		cells[n] = loc->marks[n].stock;
}

enum outcome { MISSED, KEPT, REFUSED, DECIDED };

/* An answer is 0, keep, or a value shifted left by one with the lowest bit set. kerf.bpf.h makes it. */
static __always_inline enum outcome consult(const struct kerf_decider *decider, struct pt_regs *regs, s64 *value)
{
	u64 answer = 0;

	if (unlikely(!ask(decider, regs, &answer)))
		return MISSED;
	if (!(answer & 1))
		return KEPT;
	*value = (s64)answer >> 1;
	return likely(permitted(decider, *value)) ? DECIDED : REFUSED;
}

/* Every trigger counts once. True: the cells hold what was decided. */
static __always_inline bool carry_out(const struct kerf_decider *decider, enum outcome outcome, s64 value,
				      const struct kerf_location *loc, s64 *cells)
{
	if (likely(outcome == DECIDED) && likely(fill(loc, value, cells))) {
		this_cpu_write(decider->counts->last, value);
		this_cpu_inc(decider->counts->decided[fls64(value)]);
		return true;
	}
	if (outcome == MISSED)
		this_cpu_inc(decider->counts->missed);
	else if (outcome == KEPT)
		this_cpu_inc(decider->counts->kept);
	else
		this_cpu_inc(decider->counts->refused);
	return false;
}

static enum outcome consult_timed(const struct kerf_decider *decider, struct pt_regs *regs, s64 *value)
{
	enum outcome outcome;
	u64 ns;

	preempt_disable_notrace();
	ns = local_clock();
	outcome = consult(decider, regs, value);
	ns = local_clock() - ns;
	if (outcome != MISSED) {
		this_cpu_inc(decider->counts->timed);
		this_cpu_add(decider->counts->ns, ns);
		if (ns > this_cpu_read(decider->counts->longest))
			this_cpu_write(decider->counts->longest, ns);
	}
	preempt_enable_notrace();
	return outcome;
}

/* The parameter registers hold what they held at the function's entry, as far as it is still somewhere, while it is asked. */
static noinline enum outcome consult_with_arguments(const struct kerf_decider *decider, const struct kerf_location *loc,
						    struct pt_regs *regs, s64 *value)
{
	unsigned long found[KERF_ARGUMENTS], kept[KERF_ARGUMENTS];
	enum outcome outcome;
	unsigned int n;

	if (unlikely(READ_ONCE(decider->stopped)))
		return MISSED;
	for (n = 0; n < loc->n_arguments; n++) {
		const struct kerf_argument *from = &loc->arguments[n];

		found[n] = from->kind == 1 ? *register_of(regs, from->reg) :
			   from->kind == 2 ? *(unsigned long *)(regs->sp + from->offset) : 0;
	}
	for (n = 0; n < loc->n_arguments; n++) {
		kept[n] = *register_of(regs, parameters[n]);
		*register_of(regs, parameters[n]) = found[n];
	}
	outcome = decider->timed ? consult_timed(decider, regs, value) : consult(decider, regs, value);
	for (n = 0; n < loc->n_arguments; n++)
		*register_of(regs, parameters[n]) = kept[n];
	return outcome;
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

static enum outcome consult_here(const struct kerf_decider *decider, const struct kerf_location *loc, struct pt_regs *regs,
				 s64 *value)
{
	enum outcome outcome = consult_with_arguments(decider, loc, regs, value);

	return outcome == DECIDED && !fits(loc, *value) ? REFUSED : outcome;
}

/* As consult_here(), but once for an execution of the safe span. */
static enum outcome consult_once(const struct kerf_decider *decider, const struct kerf_location *loc, struct pt_regs *regs,
				 s64 *value)
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
		outcome = consult_here(decider, loc, regs, value);
		return kerf_execution_begin(decider->executions, frame, outcome == DECIDED, *value) ? outcome : MISSED;
	}
	if (kerf_execution_find(decider->executions, frame, &decided, value))
		outcome = decided ? DECIDED : KEPT;
	return outcome;
}

/* What an entry says, policy or fixed value, where not just the policy is to be asked. No entry: the stock numbers. */
static noinline bool decide(const struct kerf_location *loc, struct pt_regs *regs, s64 *cells)
{
	const struct kerf_entry *entry = loc->entry;
	const struct kerf_decider *decider;
	enum outcome outcome;
	s64 value = 0;

	if (kerf_transition_old(loc, regs))
		entry = entry->old;
	if (!entry)
		return false;
	decider = entry->decider;
	if (!decider || !decider->prog)
		return fill_slowly(loc, entry->value, cells);
	if (loc->role != KERF_ALONE && decider->executions)
		outcome = consult_once(decider, loc, regs, &value);
	else
		outcome = consult_here(decider, loc, regs, &value);
	return carry_out(decider, outcome, value, loc, cells);
}

/*
 * Called by kerf_enter for a slot. The cells lie behind @regs and the return address; the slot's instructions read them.
 * Whatever goes wrong, they hold the stock numbers. A transition runs only while entries are pending.
 */
asmlinkage notrace __no_stack_protector void kerf_trigger(struct pt_regs *regs)
{
	const struct kerf_location *loc = kerf_pool_owners[(regs->ip - (unsigned long)kerf_pool) / KERF_SLOT_SIZE];
	const struct kerf_decider *decider = READ_ONCE(loc->asks);
	s64 *cells = (s64 *)(regs + 1) + 1;
	bool decided;

	regs->ip = loc->addr;
	/* ss, the return address and the cells lie between what was pushed as sp and the window's own */
	regs->sp += 2 * sizeof(long) + KERF_CELLS_SIZE;
	if (likely(decider && !READ_ONCE(kerf_pending))) {
		s64 value = 0;
		enum outcome outcome = consult(decider, regs, &value);

		decided = carry_out(decider, outcome, value, loc, cells);
	} else {
		decided = decide(loc, regs, cells);
	}
	if (!decided)
		fill_stock(loc, cells);
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

/* From now on the program is not asked, which means the stock value, as whenever it cannot be. Its places stay. */
void kerf_decider_stop(struct kerf_entry *entry)
{
	unsigned int n;

	WRITE_ONCE(entry->decider->stopped, true);
	for (n = 0; n < entry->n_locations; n++)
		WRITE_ONCE(entry->locations[n].asks, NULL);
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
	case KERF_QUOTIENT: case KERF_RATIO:
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
int kerf_decider_check_marks(struct kerf_location *loc, struct kerf_report *report)
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
		    number != wrap(mark->stock, 64 - mark->bits))
			return kerf_refuse(report, -EINVAL, "%s: detour at %pS: instruction %u.%u holds %lld, which does not follow from the stock value %lld",
					   loc->entry->id, (void *)loc->addr, mark->insn, mark->part, mark->stock,
					   decider->stock);
	}
	if (loc->n_marks)
		prepare(loc);
	return 0;
}
