// SPDX-License-Identifier: GPL-2.0-only
/*
 * Writes the code of a slot: the checked instructions of a detour, relocated. Where a policy decides a number, the instruction
 * takes it from a cell on the stack instead of from itself, and leaves the same flags.
 */
#include "kerf.h"
#include "kerf_insn.h"
#include "kerf_lookup.h"

/* What a slot is being filled with. */
struct emitter {
	struct kerf_location *loc;
	unsigned int len;
	unsigned long refers;		/* what the stock instruction refers to, if relative to the instruction pointer */
	const char *why;		/* set when it cannot be done */
	/* Branches out of a slot that has moved the stack pointer leave through these. */
	struct { unsigned int at; unsigned long target; } exits[KERF_INSNS_MAX];
	unsigned int n_exits;
};

static int refuse(struct emitter *e, const char *why)
{
	e->why = e->why ?: why;
	return -EINVAL;
}

static void put(struct emitter *e, const void *bytes, unsigned int n)
{
	if (e->len + n > KERF_SLOT_SIZE) {
		refuse(e, "needs more room than a slot has");
		return;
	}
	memcpy(e->loc->image + e->len, bytes, n);
	e->len += n;
}

static void put8(struct emitter *e, u8 byte)
{
	put(e, &byte, 1);
}

static void put32(struct emitter *e, s32 value)
{
	put(e, &value, 4);
}

static unsigned long here(const struct emitter *e)
{
	return kerf_pool_address(e->loc->slot) + e->len;
}

/* A 32-bit distance to @target from behind itself and @behind more bytes. */
static void put_distance(struct emitter *e, unsigned long target, unsigned int behind)
{
	s64 distance = (s64)(target - (here(e) + 4 + behind));

	if (distance != (s32)distance)
		refuse(e, "is out of reach of what it refers to");
	put32(e, distance);
}

static void put_jump(struct emitter *e, unsigned long target)
{
	put8(e, JMP32_INSN_OPCODE);
	put_distance(e, target, 0);
}

/* lea @by(%rsp), %rsp: no flags */
static void move_stack(struct emitter *e, s8 by)
{
	put(e, (u8 []){ 0x48, 0x8d, 0x64, 0x24, by }, 5);
}

static bool has_66(const struct insn *i)
{
	const u8 *bytes = i->kaddr;
	int n;

	for (n = 0; n < insn_offset_rex_prefix((struct insn *)i); n++)
		if (bytes[n] == 0x66)
			return true;
	return false;
}

/* An instruction that is like @i but for its opcode: @reg is its register, @at(%rsp) its memory. */
static void with_cell(struct emitter *e, const struct insn *i, u8 opcode, int reg, u8 at)
{
	u8 rex = 0x40 | (REX_W(i) ? 8 : 0) | (reg & 8 ? 4 : 0);

	if (has_66(i))
		put8(e, 0x66);
	if (rex != 0x40 || i->rex_prefix.nbytes)
		put8(e, rex);
	put8(e, opcode);
	put(e, (u8 []){ 0x44 | (reg & 7) << 3, 0x24, at }, 3);
}

/* mov between a register, all of it, and the stack */
static void keep(struct emitter *e, int reg)
{
	put(e, (u8 []){ 0x48, 0x89, 0x44 | reg << 3, 0x24, KERF_CELL_SCRATCH }, 5);
}

static void give_back(struct emitter *e, int reg)
{
	put(e, (u8 []){ 0x48, 0x8b, 0x44 | reg << 3, 0x24, KERF_CELL_SCRATCH }, 5);
}

static bool rsp_based(const struct insn *i)
{
	return i->modrm.nbytes && MOD(i) != 3 && RM(i) == RSP && i->sib.nbytes && (i->sib.bytes[0] & 7) == RSP && !REX_B(i);
}

/*
 * The memory operand of @i behind another opcode and with another register, followed by @tail bytes of @i. Relative to the
 * instruction pointer it refers to what the stock instruction did; relative to the stack pointer, likewise.
 */
static void with_memory(struct emitter *e, const struct insn *i, const u8 *opcode, unsigned int n, int reg,
			unsigned int tail)
{
	const u8 *bytes = i->kaddr;
	u8 rex = (i->rex_prefix.nbytes ? i->rex_prefix.bytes[0] & ~4 : 0x40) | (reg & 8 ? 4 : 0);
	u8 modrm = (i->modrm.bytes[0] & 0xc7) | (reg & 7) << 3;

	put(e, bytes, insn_offset_rex_prefix((struct insn *)i));
	if (rex != 0x40 || i->rex_prefix.nbytes)
		put8(e, rex);
	put(e, opcode, n);
	if (kerf_form_rip_relative(i)) {
		put8(e, modrm);
		put_distance(e, e->refers, tail);
	} else if (rsp_based(i) && e->loc->kind == KERF_DECIDED) {
		put8(e, (modrm & 0x3f) | 0x80);
		put8(e, i->sib.bytes[0]);
		put32(e, (i->displacement.nbytes ? (s32)i->displacement.value : 0) + KERF_CELLS_SIZE);
	} else {
		put8(e, modrm);
		if (i->sib.nbytes)
			put8(e, i->sib.bytes[0]);
		put(e, bytes + insn_offset_displacement((struct insn *)i), i->displacement.nbytes);
	}
	put(e, bytes + i->length - tail, tail);
}

static bool uses(const struct insn *i, int reg)
{
	if (!i->modrm.nbytes || reg_reg(i) == reg)
		return i->modrm.nbytes;
	if (i->sib.nbytes)
		return ((i->sib.bytes[0] & 7) | (REX_B(i) ? 8 : 0)) == reg ||
		       (((i->sib.bytes[0] >> 3) & 7) | (REX_X(i) ? 8 : 0)) == reg;
	return (RM(i) | (REX_B(i) ? 8 : 0)) == reg;
}

/* One of four registers: base, index and what the register field says are at most three of them. */
static int scratch(const struct insn *i)
{
	int reg = RAX;

	while (reg < RBX && uses(i, reg))
		reg++;
	return reg;
}

/* @opcode mem, scratch: the cell's number in a borrowed register */
static void memory_with_number(struct emitter *e, const struct insn *i, u8 opcode, u8 at)
{
	int reg = scratch(i);

	keep(e, reg);
	put(e, (u8 []){ 0x48, 0x8b, 0x44 | reg << 3, 0x24, at }, 5);
	with_memory(e, i, &opcode, 1, reg, 0);
	give_back(e, reg);
}

/* An operation between register or memory and the number: @load reads the number, @store writes or reads memory. */
static void either(struct emitter *e, const struct insn *i, u8 load, u8 store, u8 at)
{
	if (MOD(i) == 3)
		with_cell(e, i, load, rm_reg(i), at);
	else
		memory_with_number(e, i, store, at);
}

static void multiply(struct emitter *e, const struct insn *i, u8 at)
{
	int target = reg_reg(i);
	u8 load = 0x8b, rex = 0x40 | (REX_W(i) ? 8 : 0) | (target & 8 ? 4 : 0);

	if (MOD(i) != 3 || rm_reg(i) != target)
		with_memory(e, i, &load, 1, target, 0);
	if (has_66(i))
		put8(e, 0x66);
	if (rex != 0x40)
		put8(e, rex);
	put(e, (u8 []){ 0x0f, 0xaf, 0x44 | (target & 7) << 3, 0x24, at }, 5);
}

/* A shift takes its count from cl only. */
static int shift(struct emitter *e, const struct insn *i, u8 at, struct kerf_mark *mark)
{
	int reg = rm_reg(i), borrowed = reg == RCX ? RAX : RCX;
	u8 rex = 0x40 | (REX_W(i) ? 8 : 0) | (reg & 8 ? 1 : 0);

	mark->below = op(i) == 0xc0 ? 8 : has_66(i) ? 16 : REX_W(i) ? 64 : 32;
	/* 8-bit registers from 4 on are halves of others, or need a prefix: nobody shifts them by a constant */
	if (reg < 0 || (op(i) == 0xc0 && reg >= 4))
		return refuse(e, "shifts what a policy's number cannot shift");
	keep(e, borrowed);
	if (reg == RCX)
		put(e, (u8 []){ 0x48, 0x89, 0xc8 }, 3);		/* mov %rcx, %rax */
	put(e, (u8 []){ 0x8b, 0x44 | RCX << 3, 0x24, at }, 4);
	if (has_66(i))
		put8(e, 0x66);
	if (rex != 0x40)
		put8(e, rex);
	put(e, (u8 []){ op(i) == 0xc0 ? 0xd2 : 0xd3, 0xc0 | REG(i) << 3 | (reg == RCX ? RAX : reg & 7) }, 2);
	if (reg == RCX)
		put(e, (u8 []){ 0x48, 0x89, 0xc1 }, 3);		/* mov %rax, %rcx */
	give_back(e, borrowed);
	return 0;
}

/* The sum without its displacement, then with the cell's number; lea leaves the flags alone. */
static int address(struct emitter *e, const struct insn *i, u8 at)
{
	int target = reg_reg(i), reg = scratch(i);
	struct insn plain = *i;
	u8 opcode = 0x8d;

	if (has_66(i) || kerf_form_rip_relative(i))
		return refuse(e, "is an address that a policy's number cannot be added to");
	plain.displacement.value = 0;
	with_memory(e, &plain, &opcode, 1, target, 0);
	/* The displacement's bytes come from the instruction: clear them, unless they were made for the stack pointer. */
	if (!rsp_based(i) && !e->why)
		memset(e->loc->image + e->len - i->displacement.nbytes, 0, i->displacement.nbytes);
	keep(e, reg);
	put(e, (u8 []){ 0x48, 0x8b, 0x44 | reg << 3, 0x24, at }, 5);
	/* lea (target,reg,1), target, with an 8-bit displacement of 0 since r13 has no form without */
	put(e, (u8 []){ 0x40 | (REX_W(i) ? 8 : 0) | (target & 8 ? 5 : 0), 0x8d, 0x44 | (target & 7) << 3,
			reg << 3 | (target & 7), 0 }, 5);
	give_back(e, reg);
	return 0;
}

/* The constant that @i holds. */
static s64 number_of(const struct insn *i)
{
	if (op(i) == 0x8d)
		return (s32)i->displacement.value;
	if (i->immediate2.nbytes)
		return (u64)(u32)i->immediate2.value << 32 | (u32)i->immediate1.value;
	return (s32)i->immediate.value;
}

/* @i with its number taken from the mark's cell. */
static int decided(struct emitter *e, const struct insn *i, struct kerf_mark *mark)
{
	u8 o = op(i), at = (mark - e->loc->marks) * 8;

	mark->met = true;
	mark->stock = number_of(i);
	mark->below = 0;
	mark->nonzero = mark->part && (o & 0xf8) == 0xb8;	/* the divisor of a quotient */
	if (!one_byte(i))
		return refuse(e, "has a number that no policy can decide");
	if (o < 0x40 && (o & 6) == 4) {					/* op $n, %al or %eax */
		with_cell(e, i, (o & 0x38) | 2 | (o & 1), RAX, at);
		return 0;
	}
	switch (o) {
	case 0x80: case 0x81: case 0x83:
		either(e, i, REG(i) << 3 | 2 | (o & 1), REG(i) << 3 | (o & 1), at);
		return 0;
	case 0xa8: case 0xa9:						/* test $n, %al or %eax */
		with_cell(e, i, 0x84 | (o & 1), RAX, at);
		return 0;
	case 0xf6: case 0xf7:						/* test $n, r/m */
		if (REG(i) > 1)
			break;
		either(e, i, 0x84 | (o & 1), 0x84 | (o & 1), at);
		return 0;
	case 0xb0 ... 0xbf:						/* mov $n, r */
		with_cell(e, i, 0x8a | (o >> 3 & 1), (o & 7) | (REX_B(i) ? 8 : 0), at);
		return 0;
	case 0xc6: case 0xc7:						/* mov $n, r/m */
		either(e, i, 0x8a | (o & 1), 0x88 | (o & 1), at);
		return 0;
	case 0x69: case 0x6b:
		multiply(e, i, at);
		return 0;
	case 0xc0: case 0xc1:
		return shift(e, i, at, mark);
	case 0x8d:
		return address(e, i, at);
	}
	return refuse(e, "has a number that no policy can decide");
}

static bool inside_window(const struct kerf_location *loc, unsigned long target)
{
	return target > loc->addr && target < loc->addr + loc->len;
}

/* A direct jump out of the window. Its distance is the stock instruction's; its own is of 32 bits already. */
static void branch(struct emitter *e, const struct insn *stock, const struct insn *i, unsigned long stock_end)
{
	s64 distance = stock->immediate.nbytes == 1 ? (s8)stock->immediate.value : (s32)stock->immediate.value;
	unsigned long target = stock_end + distance;

	if (inside_window(e->loc, target))
		refuse(e, "jumps into its own window");
	put(e, i->kaddr, insn_offset_immediate((struct insn *)i));
	if (e->loc->kind != KERF_DECIDED) {
		put_distance(e, target, 0);
		return;
	}
	e->exits[e->n_exits].at = e->len;
	e->exits[e->n_exits++].target = target;
	put32(e, 0);
}

/* @i unchanged but for where it lies. */
static void moved(struct emitter *e, const struct insn *i)
{
	const u8 *bytes = i->kaddr;
	int at = insn_offset_opcode((struct insn *)i);

	if (kerf_form_rip_relative(i) || (rsp_based(i) && e->loc->kind == KERF_DECIDED))
		with_memory(e, i, bytes + at, i->opcode.nbytes, reg_reg(i),
			    i->length - insn_offset_immediate((struct insn *)i));
	else
		put(e, bytes, i->length);
}

static struct kerf_mark *mark_of(struct kerf_location *loc, unsigned int insn, unsigned int part)
{
	unsigned int n;

	for (n = 0; n < loc->n_marks; n++)
		if (loc->marks[n].insn == insn && loc->marks[n].part == part)
			return &loc->marks[n];
	return NULL;
}

/* What stands for one stock instruction: itself, or a sequence of several. */
static void parts(struct emitter *e, unsigned int k, const u8 *code, const struct insn *stock, unsigned long stock_end)
{
	struct kerf_location *loc = e->loc;
	unsigned int at = 0, part = 0;
	struct kerf_mark *mark;
	struct insn i;

	e->refers = stock_end + (s32)stock->displacement.value;
	for (; at < loc->code_len[k] && !e->why; at += i.length, part++) {
		if (kerf_decode(&i, code + at, loc->code_len[k] - at)) {
			refuse(e, "does not decode");
			return;
		}
		mark = mark_of(loc, k, part);
		if (mark)
			decided(e, &i, mark);
		else if (kerf_form_branch(&i))
			branch(e, stock, &i, stock_end);
		else
			moved(e, &i);
	}
}

/* The branches leave here, with the stack pointer back where it was. */
static void leave(struct emitter *e)
{
	struct kerf_location *loc = e->loc;
	unsigned int n;

	if (loc->kind == KERF_DECIDED)
		move_stack(e, KERF_CELLS_SIZE);
	loc->n_lifted = 0;
	loc->lifted[loc->n_lifted++] = e->len;
	put_jump(e, loc->addr + loc->len);
	for (n = 0; n < e->n_exits && !e->why; n++) {
		s32 distance = e->len - (e->exits[n].at + 4);

		memcpy(loc->image + e->exits[n].at, &distance, 4);
		move_stack(e, KERF_CELLS_SIZE);
		loc->lifted[loc->n_lifted++] = e->len;
		put_jump(e, e->exits[n].target);
	}
}

/* Fills loc->image from loc->code, which has been verified. The location has its slot. */
int kerf_emit(struct kerf_location *loc, struct kerf_report *report)
{
	struct emitter e = { .loc = loc };
	unsigned int k, from = 0, to = 0;
	struct insn stock;

	memset(loc->image, INT3_INSN_OPCODE, sizeof(loc->image));
	if (loc->kind == KERF_DECIDED) {
		move_stack(&e, -KERF_CELLS_SIZE);
		put8(&e, CALL_INSN_OPCODE);
		put_distance(&e, (unsigned long)kerf_enter, 0);
	}
	for (k = 0; k < loc->insns && !e.why; k++) {
		if (kerf_decode(&stock, loc->stock + from, loc->len - from))
			refuse(&e, "does not decode");
		else
			parts(&e, k, loc->code + to, &stock, loc->addr + from + stock.length);
		if (e.why)
			break;
		from += stock.length;
		to += loc->code_len[k];
	}
	if (!e.why)
		leave(&e);
	if (e.why)
		return kerf_refuse(report, -EINVAL, "%s: detour at %pS: instruction %u (%*ph) %s", loc->entry->id,
				   (void *)loc->addr, k, k < loc->insns ? loc->code_len[k] : 0, loc->code + to, e.why);
	return 0;
}
