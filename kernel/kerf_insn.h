/* SPDX-License-Identifier: GPL-2.0-only */
/* The parts of a decoded instruction. */
#ifndef KERF_INSN_H
#define KERF_INSN_H

#include <asm/insn.h>

#define REX_B(i) ((i)->rex_prefix.nbytes ? (i)->rex_prefix.bytes[0] & 1 : 0)
#define REX_R(i) ((i)->rex_prefix.nbytes ? (i)->rex_prefix.bytes[0] & 4 : 0)
#define REX_X(i) ((i)->rex_prefix.nbytes ? (i)->rex_prefix.bytes[0] & 2 : 0)
#define REX_W(i) ((i)->rex_prefix.nbytes ? (i)->rex_prefix.bytes[0] & 8 : 0)
#define MOD(i) ((i)->modrm.bytes[0] >> 6)
#define REG(i) (((i)->modrm.bytes[0] >> 3) & 7)
#define RM(i) ((i)->modrm.bytes[0] & 7)
#define RAX 0
#define RCX 1
#define RDX 2
#define RBX 3
#define RSP 4

static inline u8 op(const struct insn *i)
{
	return i->opcode.bytes[0];
}

static inline bool one_byte(const struct insn *i)
{
	return i->opcode.nbytes == 1;
}

/* Register number with its REX bit. */
static inline int rm_reg(const struct insn *i)
{
	return MOD(i) == 3 ? RM(i) | (REX_B(i) ? 8 : 0) : -1;
}

static inline int reg_reg(const struct insn *i)
{
	return REG(i) | (REX_R(i) ? 8 : 0);
}

#endif
