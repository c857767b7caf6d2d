// SPDX-License-Identifier: GPL-2.0-only
/*
 * Several instructions in the place of one: a multiplication or division by a number that the compiler folded into a
 * shift or lea, as the operation itself. The numbers may be any; the registers are the stock instruction's, and those
 * that the sender has found to hold nothing.
 */
#include "kerf.h"
#include "kerf_insn.h"
#include "kerf_lookup.h"

struct sequence {
	const u8 *at, *end;
	bool wide;				/* the stock instruction's operand size: 64 bits, else 32 */
};

/* The next instruction: no prefix but REX, one opcode byte, the operand size asked for. */
static bool next(struct sequence *s, struct insn *i, bool wide)
{
	if (s->at >= s->end || kerf_decode(i, s->at, s->end - s->at))
		return false;
	s->at += i->length;
	return !i->prefixes.nbytes && !i->vex_prefix.nbytes && one_byte(i) && !REX_W(i) == !wide;
}

/* opcode /digit or opcode with a register in its place, between registers */
static bool next_registers(struct sequence *s, struct insn *i, u8 opcode, int reg, int rm)
{
	return next(s, i, s->wide) && op(i) == opcode && MOD(i) == 3 && reg_reg(i) == reg && rm_reg(i) == rm;
}

/* The register that lea (,x,s) or lea (x,x,s) multiplies, or -1. */
static int multiplied(const struct insn *stock)
{
	int index, base;

	if (op(stock) != 0x8d || MOD(stock) == 3 || RM(stock) != RSP || !stock->sib.nbytes)
		return -1;
	index = ((stock->sib.bytes[0] >> 3) & 7) | (REX_X(stock) ? 8 : 0);
	base = (stock->sib.bytes[0] & 7) | (REX_B(stock) ? 8 : 0);
	if (index == RSP)
		return -1;
	if (MOD(stock) == 0 && (base & 7) == 5)
		return index;
	return base == index ? index : -1;
}

/* imul $n, x, r; add $n, r */
static bool product(struct sequence *s, const struct insn *stock)
{
	struct insn i;
	int target = reg_reg(stock), source = multiplied(stock);

	return source >= 0 && next_registers(s, &i, 0x69, target, source) && next_registers(s, &i, 0x81, 0, target);
}

/* mov %r64, %r64 */
static bool next_copy(struct sequence *s, struct insn *i)
{
	return next(s, i, true) && op(i) == 0x89 && MOD(i) == 3;
}

/*
 * mov r, %rax; xor %edx, %edx; mov $n, t; div t; mov %rax, r, without the moves where r is rax. With rdx empty and the
 * divisor not zero, no division faults. Before and behind, what rax and rdx hold may be kept in other registers.
 */
static bool quotient(struct sequence *s, const struct insn *stock)
{
	int target = rm_reg(stock), divisor, kept[RDX + 1], reg;
	struct insn i;
	const u8 *at;

	if ((op(stock) != 0xc1 && op(stock) != 0xd1) || REG(stock) != 5 || target < 0 || target == RSP)
		return false;
	memset(kept, -1, sizeof(kept));
	for (at = s->at; next_copy(s, &i); at = s->at) {
		reg = reg_reg(&i);
		if ((reg != RAX && reg != RDX) || reg == target || kept[reg] >= 0)
			break;
		kept[reg] = rm_reg(&i);
	}
	s->at = at;
	if (target != RAX && !next_registers(s, &i, 0x89, target, RAX))
		return false;
	if (!next(s, &i, false) || op(&i) != 0x31 || MOD(&i) != 3 || reg_reg(&i) != RDX || rm_reg(&i) != RDX)
		return false;
	if (!next(s, &i, false) || (op(&i) & 0xf8) != 0xb8 || i.immediate.nbytes != 4 || !i.immediate.value)
		return false;
	divisor = (op(&i) & 7) | (REX_B(&i) ? 8 : 0);
	if (divisor == RAX || divisor == RDX || divisor == RSP || !next_registers(s, &i, 0xf7, 6, divisor))
		return false;
	if (target != RAX && !next_registers(s, &i, 0x89, RAX, target))
		return false;
	for (reg = RAX; reg <= RDX; reg += RDX - RAX) {
		if (kept[reg] < 0)
			continue;
		if (kept[reg] <= RDX && kept[reg] != RCX)
			return false;
		if (kept[reg] == RSP || kept[reg] == target || kept[reg] == divisor || kept[RAX] == kept[RDX])
			return false;
		if (!next_copy(s, &i) || reg_reg(&i) != kept[reg] || rm_reg(&i) != reg)
			return false;
	}
	return true;
}

/* Is @code, @len bytes, an accepted sequence for @stock? */
int kerf_sequence(const struct insn *stock, const u8 *code, size_t len, const char **why)
{
	struct sequence s = { .at = code, .end = code + len, .wide = REX_W(stock) };

	*why = "is neither one instruction nor a multiplication or division in the place of the stock instruction";
	if (!kerf_form_ordinary(stock) || !one_byte(stock) || stock->prefixes.nbytes)
		return -EINVAL;
	if (!product(&s, stock)) {
		s.at = code;
		if (!quotient(&s, stock))
			return -EINVAL;
	}
	return s.at == s.end ? 1 : -EINVAL;
}
