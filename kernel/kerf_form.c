// SPDX-License-Identifier: GPL-2.0-only
/*
 * The forms that instructions may take: which ones may be moved into a trampoline, and what a moved instruction may
 * differ in from the stock one. docs/module-interface.md lists the same rules for people.
 */
#include "kerf.h"
#include "kerf_insn.h"
#include "kerf_lookup.h"

static bool two_byte(const struct insn *i)
{
	return i->opcode.nbytes == 2;
}

static u8 op2(const struct insn *i)
{
	return i->opcode.bytes[1];
}

bool kerf_form_rip_relative(const struct insn *i)
{
	return i->modrm.nbytes && (i->modrm.bytes[0] & 0xc7) == 5;
}

static bool is_jcc(const struct insn *i)
{
	return (one_byte(i) && (op(i) & 0xf0) == 0x70) || (two_byte(i) && (op2(i) & 0xf0) == 0x80);
}

static bool is_jmp(const struct insn *i)
{
	return one_byte(i) && (op(i) == 0xe9 || op(i) == 0xeb);
}

bool kerf_form_branch(const struct insn *i)
{
	return is_jcc(i) || is_jmp(i);
}

static bool ordinary_one(const struct insn *i)
{
	u8 o = op(i);

	if (o < 0x40)
		return (o & 7) < 6;		/* add or adc sbb and sub xor cmp */
	switch (o) {
	case 0x63: case 0x69: case 0x6b:	/* movsxd, imul */
	case 0x70 ... 0x7f:			/* jcc */
	case 0x80: case 0x81: case 0x83:	/* the same as < 0x40, immediate */
	case 0x84 ... 0x8b: case 0x8d:		/* test, xchg, mov, lea */
	case 0x98: case 0x99: case 0xa8: case 0xa9:
	case 0xb0 ... 0xbf:			/* mov immediate */
	case 0xc0: case 0xc1: case 0xd0 ... 0xd3:
	case 0xe9: case 0xeb:
	case 0xf6: case 0xf7:
		return true;
	case 0x90:
		return !REX_B(i);
	case 0xc6: case 0xc7:
		return REG(i) == 0 && i->modrm.bytes[0] != 0xf8;
	case 0xfe: case 0xff:
		return REG(i) <= 1;		/* inc, dec */
	}
	return false;
}

static bool ordinary_two(const struct insn *i)
{
	switch (op2(i)) {
	case 0x0d: case 0x18: case 0x1f:	/* prefetches, nop */
	case 0x40 ... 0x4f: case 0x80 ... 0x9f:	/* cmov, jcc, setcc */
	case 0xa3: case 0xab: case 0xb3: case 0xbb: case 0xba:
	case 0xa4: case 0xa5: case 0xac: case 0xad: case 0xaf:
	case 0xb0: case 0xb1: case 0xc0: case 0xc1:
	case 0xb6: case 0xb7: case 0xbe: case 0xbf: case 0xbc: case 0xbd:
	case 0xc8 ... 0xcf:
		return true;
	case 0xb8:				/* popcnt */
		return i->prefixes.nbytes;
	}
	return false;
}

/* Is the register field an extension of the opcode rather than a register? */
static bool group(const struct insn *i)
{
	if (two_byte(i))
		return op2(i) == 0xba || op2(i) == 0x0d || op2(i) == 0x18 || op2(i) == 0x1f ||
		       (op2(i) & 0xf0) == 0x90;
	switch (op(i)) {
	case 0x80: case 0x81: case 0x83: case 0xc0: case 0xc1: case 0xc6: case 0xc7:
	case 0xd0 ... 0xd3: case 0xf6: case 0xf7: case 0xfe: case 0xff:
		return true;
	}
	return false;
}

/* Is rsp an operand other than as the base of a memory address? Counts ah, which has the same number, too. */
static bool touches_rsp(const struct insn *i)
{
	if (i->modrm.nbytes)
		return (MOD(i) == 3 && RM(i) == RSP && !REX_B(i)) || (!group(i) && REG(i) == RSP && !REX_R(i));
	if (one_byte(i) && op(i) >= 0xb0 && op(i) <= 0xbf)
		return (op(i) & 7) == RSP && !REX_B(i);
	return two_byte(i) && op2(i) == 0xc8 + RSP && !REX_B(i);
}

/* May this instruction run at another address? */
bool kerf_form_ordinary(const struct insn *i)
{
	unsigned int p;

	if (i->vex_prefix.nbytes || i->opcode.nbytes > 2)
		return false;
	for (p = 0; p < i->prefixes.nbytes && p < 4; p++)
		if (i->prefixes.bytes[p] == 0x67)
			return false;
	return (one_byte(i) ? ordinary_one(i) : ordinary_two(i)) && !touches_rsp(i);
}

/* Bytes before the opcode, and everything after them up to @end, skipping a RIP-relative displacement. */
static bool same_head(const struct insn *a, const struct insn *b)
{
	const u8 *x = a->kaddr, *y = b->kaddr;
	int end = insn_offset_immediate((struct insn *)a), disp = insn_offset_displacement((struct insn *)a), k;

	if (insn_offset_immediate((struct insn *)b) != end)
		return false;
	for (k = 0; k < end; k++) {
		if (kerf_form_rip_relative(a) && k >= disp && k < disp + 4)
			continue;
		if (x[k] != y[k])
			return false;
	}
	return true;
}

static bool same_prefixes(const struct insn *a, const struct insn *b)
{
	int n = insn_offset_opcode((struct insn *)a);

	return insn_offset_opcode((struct insn *)b) == n && !memcmp(a->kaddr, b->kaddr, n);
}

static bool same_operand(const struct insn *a, const struct insn *b)
{
	if (a->modrm.value != b->modrm.value || a->sib.nbytes != b->sib.nbytes || a->sib.value != b->sib.value)
		return false;
	return a->displacement.nbytes == b->displacement.nbytes &&
	       (kerf_form_rip_relative(a) || a->displacement.value == b->displacement.value);
}

/* The same operation whose immediate, or lea displacement, needs more room. */
static bool widened(const struct insn *a, const struct insn *b)
{
	if (!one_byte(a) || !one_byte(b))
		return false;
	if (op(a) == 0x8d && op(b) == 0x8d && MOD(a) < 2 && MOD(b) == 2 && !kerf_form_rip_relative(a))
		return same_prefixes(a, b) && REG(a) == REG(b) && RM(a) == RM(b) && a->sib.value == b->sib.value &&
		       !(MOD(a) == 0 && a->sib.nbytes && (a->sib.bytes[0] & 7) == 5);
	if ((op(a) == 0x83 && op(b) == 0x81) || (op(a) == 0x6b && op(b) == 0x69))
		return same_prefixes(a, b) && same_operand(a, b);
	/* mov $imm32, %r32 and mov $simm32, %r64 to movabs of the same register */
	if (op(b) >= 0xb8 && op(b) <= 0xbf && REX_W(b)) {
		if (op(a) == op(b))
			return !REX_W(a) && !REX_B(a) == !REX_B(b) && !a->prefixes.nbytes && !b->prefixes.nbytes;
		return op(a) == 0xc7 && MOD(a) == 3 && RM(a) == (op(b) & 7) && same_prefixes(a, b);
	}
	return false;
}

/* What the compiler folds a multiplication by V into, or a comparison with or addition of a special V. */
static bool substituted(const struct insn *a, const struct insn *b)
{
	bool same_width = !REX_W(a) == !REX_W(b) && !a->prefixes.nbytes && !b->prefixes.nbytes;

	/* imul s, r */
	if (two_byte(a) && op2(a) == 0xaf && MOD(a) == 3 && one_byte(b) && op(b) == 0x69 && MOD(b) == 3 && same_width)
		return reg_reg(a) == reg_reg(b) && (rm_reg(b) == reg_reg(a) || rm_reg(b) == rm_reg(a));
	if (!one_byte(a) || !one_byte(b) || !same_width)
		return false;
	if (op(b) == 0x69 && MOD(b) == 3) {
		if ((op(a) == 0xc1 || op(a) == 0xd1) && REG(a) == 4)		/* shl $n, r */
			return rm_reg(a) >= 0 && rm_reg(a) == reg_reg(b) && rm_reg(a) == rm_reg(b);
		if (op(a) == 0x01 || op(a) == 0x29)				/* add s, r; sub s, r */
			return rm_reg(a) >= 0 && rm_reg(a) == reg_reg(b) &&
			       (rm_reg(b) == rm_reg(a) || rm_reg(b) == reg_reg(a));
		if (op(a) == 0x03 || op(a) == 0x2b)
			return MOD(a) == 3 && reg_reg(a) == reg_reg(b) &&
			       (rm_reg(b) == reg_reg(a) || rm_reg(b) == rm_reg(a));
		if (op(a) == 0xf7 && REG(a) == 4)				/* mul s, into rdx */
			return rm_reg(a) >= 0 && reg_reg(b) == RDX && (rm_reg(b) == RAX || rm_reg(b) == rm_reg(a));
		if (op(a) == 0x89)						/* mov s, r */
			return rm_reg(a) == reg_reg(b) && reg_reg(a) == rm_reg(b);
		if (op(a) == 0x8b)
			return MOD(a) == 3 && reg_reg(a) == reg_reg(b) && rm_reg(a) == rm_reg(b);
		return op(a) == 0x8d && reg_reg(a) == reg_reg(b);		/* lea (s,s,n), r */
	}
	if (op(b) == 0x81 && op(a) == 0xff)					/* inc, dec to add, sub */
		return REX_B(a) == REX_B(b) && MOD(a) == MOD(b) && RM(a) == RM(b) && MOD(a) == 3 &&
		       REG(b) == (REG(a) ? 5 : 0);
	if (op(b) == 0x81 && REG(b) == 7 && op(a) == 0x85)			/* test r, r to cmp $v, r */
		return rm_reg(a) >= 0 && rm_reg(a) == reg_reg(a) && rm_reg(a) == rm_reg(b);
	return false;
}

static bool has_constant(const struct insn *i)
{
	return i->immediate.nbytes || i->moffset1.nbytes;
}

/* Branches are compared without their distances: the module writes those itself. */
static bool same_branch(const struct insn *a, const struct insn *b)
{
	if (is_jmp(a))
		return one_byte(b) && op(b) == 0xe9 && !b->prefixes.nbytes;
	return is_jcc(a) && two_byte(b) && (op2(b) & 0xf0) == 0x80 && !b->prefixes.nbytes &&
	       (op2(b) & 15) == ((one_byte(a) ? op(a) : op2(a)) & 15);
}

/*
 * Is @new the relocated @stock? 0: the same; 1: the same with another constant; -EINVAL with the reason in @why
 */
int kerf_form_pair(const struct insn *stock, const struct insn *new, const char **why)
{
	bool lea = one_byte(stock) && op(stock) == 0x8d && !kerf_form_rip_relative(stock);
	int tail = insn_offset_immediate((struct insn *)stock);

	*why = "is not an instruction that may be moved";
	if (!kerf_form_ordinary(stock) || !kerf_form_ordinary(new))
		return -EINVAL;
	*why = "is neither the stock instruction nor it with another immediate";
	if (kerf_form_branch(stock))
		return same_branch(stock, new) ? 0 : -EINVAL;
	if (kerf_form_branch(new))
		return -EINVAL;
	if (stock->length == new->length && same_head(stock, new)) {
		if (!memcmp(stock->kaddr + tail, new->kaddr + tail, stock->length - tail))
			return 0;
		return has_constant(stock) ? 1 : -EINVAL;
	}
	if (lea && op(new) == 0x8d && one_byte(new) && same_prefixes(stock, new) &&
	    stock->modrm.value == new->modrm.value && stock->sib.value == new->sib.value)
		return 1;
	return widened(stock, new) || substituted(stock, new) ? 1 : -EINVAL;
}

/* May the bytes [field, field + len) of this instruction hold a constant of the program? */
bool kerf_form_field(const struct insn *i, unsigned int field, unsigned int len)
{
	int start = insn_offset_immediate((struct insn *)i), end = i->length;

	if (i->vex_prefix.nbytes || i->opcode.nbytes > 2 || kerf_form_branch(i))
		return false;
	if (one_byte(i) && op(i) == 0x8d && !kerf_form_rip_relative(i)) {
		start = insn_offset_displacement((struct insn *)i);
		end = start + i->displacement.nbytes;
	} else if (!(kerf_form_ordinary(i) || (one_byte(i) && (op(i) == 0x68 || op(i) == 0x6a)))) {
		return false;			/* push of a constant argument stays where it is */
	}
	return field >= start && field + len <= end;
}
