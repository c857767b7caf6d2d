/* SPDX-License-Identifier: GPL-2.0-only */
/* The way from a trampoline into C and back: every register and the flags are as they were, in a struct pt_regs. */
#include <linux/linkage.h>
#include <asm/nospec-branch.h>
#include <asm/segment.h>
#include <asm/unwind_hints.h>

	.section .kprobes.text, "ax"

/*
 * Called by a slot, which has made room for its cells. What is pushed here is a struct pt_regs, whose sp kerf_trigger puts
 * right.
 */
SYM_FUNC_START(kerf_enter)
	pushq	$__KERNEL_DS
	pushq	%rsp
	pushfq
	pushq	$__KERNEL_CS
	pushq	4*8(%rsp)		/* where the slot goes on */
	pushq	$-1
	pushq	%rdi
	pushq	%rsi
	pushq	%rdx
	pushq	%rcx
	pushq	%rax
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	%rsp, %rdi
	call	kerf_trigger
	/* r15 to rbx: C gives them back as they were. Told to objtool, which takes what was pushed for lost. */
	addq	$(6*8), %rsp
	UNWIND_HINT sp_reg=ORC_REG_SP sp_offset=16*8 type=UNWIND_HINT_TYPE_CALL
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rax
	popq	%rcx
	popq	%rdx
	popq	%rsi
	popq	%rdi
	addq	$(3*8), %rsp
	popfq
	leaq	(2*8)(%rsp), %rsp
	UNWIND_HINT_FUNC
	RET
SYM_FUNC_END(kerf_enter)
