/* SPDX-License-Identifier: GPL-2.0-only */
/* Functions whose every byte is known. In the pair and park functions a value V stands once as V and once as 2V: 16 and 32. */
#include <linux/linkage.h>
#include <asm/asm.h>

/* u32 pair(u32 spins): 3V, with a loop between the two immediates in which a task is likely to be preempted */
SYM_FUNC_START(kerf_test_pair)
	xorl	%eax, %eax
	addl	$0x10, %eax
	movl	%edi, %ecx
1:	decl	%ecx
	jnz	1b
	addl	$0x20, %eax
	xorl	%ecx, %ecx
	RET
SYM_FUNC_END(kerf_test_pair)

/* u32 park(void): 3V, with a sleep between the two immediates */
SYM_FUNC_START(kerf_test_park)
	pushq	%rbx
	movl	$0x10, %ebx
	call	kerf_test_wait
	addl	$0x20, %ebx
	movl	%ebx, %eax
	popq	%rbx
	RET
SYM_FUNC_END(kerf_test_park)

/* u32 limit(u32 x): x < 32 ? small : large. Compare, short branch and RIP-relative load are what a detour moves. */
SYM_FUNC_START(kerf_test_detour)
	cmpl	$0x20, %edi
	jae	1f
	movl	kerf_test_small(%rip), %eax
	RET
1:	movl	kerf_test_large(%rip), %eax
	RET
SYM_FUNC_END(kerf_test_detour)

/* u32 double(u32 x): 4x, by a shift */
SYM_FUNC_START(kerf_test_shift)
	movl	%edi, %eax
	shll	$2, %eax
	addl	$0, %eax
	RET
SYM_FUNC_END(kerf_test_shift)

/* void forms(u32 x, u64 *seen): one window after the other, each of instructions that a detour may replace by other ones */
SYM_FUNC_START(kerf_test_forms)
	imull	$3, %edi, %eax			/* 6b to 69 */
	leal	8(%rax), %ecx			/* 8-bit to 32-bit displacement */
	movl	%eax, 0(%rsi)
	movl	%ecx, 8(%rsi)
	movl	$7, %edx			/* to movabs */
	movq	%rdx, 16(%rsi)
	xorl	%ecx, %ecx
	testl	%edi, %edi			/* to cmp */
	je	1f
	incl	%ecx				/* to add */
1:	movl	%ecx, 24(%rsi)
	movl	$5, kerf_test_stored(%rip)	/* RIP-relative with an immediate behind it */
	leal	(%rdi,%rdi,4), %edx		/* to imul */
	addl	%eax, %eax			/* to imul */
	movl	%edx, 32(%rsi)
	movl	%eax, 40(%rsi)
	jmp	2f				/* short to near */
	ud2
2:	movl	%edi, %eax			/* to imul */
	movl	%eax, 48(%rsi)
	RET
SYM_FUNC_END(kerf_test_forms)

/* void operations(u64 x, u64 *seen): products and quotients as the compiler folds them; rax, rdx and r8 hold nothing there */
SYM_FUNC_START(kerf_test_operations)
	leal	8(,%rdi,8), %ecx
	movq	%rcx, 0(%rsi)
	movq	%rdi, %rax
	shrq	$6, %rax
	movq	%rax, 8(%rsi)
	movq	%rdi, %r9
	shrq	$6, %r9
	movq	%r9, 16(%rsi)
	leaq	3(%rdi,%rdi,2), %r10
	movq	%r10, 24(%rsi)
	movq	%rdi, %rax
	leaq	1(%rdi), %rdx
	movq	%rdi, %r11
	shrq	$6, %r11			/* rax and rdx are in use, r8 and r10 are not */
	movq	%r11, 32(%rsi)
	addq	%rdx, %rax
	movq	%rax, 40(%rsi)
	RET
SYM_FUNC_END(kerf_test_operations)

/* u64 packed(void): two constants, 16 and 32, in one immediate */
SYM_FUNC_START(kerf_test_packed)
	movabsq	$0x2000000010, %rax
	RET
SYM_FUNC_END(kerf_test_packed)

/* Refused: a jump goes to the second of the two additions. */
SYM_FUNC_START(kerf_test_into)
	addl	$0x10, %eax
1:	addl	$0x20, %eax
	decl	%edi
	jnz	1b
	RET
SYM_FUNC_END(kerf_test_into)

/* Refused as a detour: the load may fault and has an exception table entry. */
SYM_FUNC_START(kerf_test_fault)
1:	movl	(%rdi), %eax
	addl	$0x10, %eax
2:	xorl	%ecx, %ecx
	RET
	_ASM_EXTABLE(1b, 2b)
SYM_FUNC_END(kerf_test_fault)

/*
 * u64 span(u32 how, u32 depth): the value V twice, low and high, with a call between that may sleep, or come back here. The safe
 * span goes from behind the first instruction with V to the end.
 */
SYM_FUNC_START(kerf_test_span)
	pushq	%rbx
	movl	$0x10, %ebx
	movl	%ebx, %edx
	call	kerf_test_between
	movl	$0x10, %eax
	shlq	$32, %rax
	orq	%rbx, %rax
	popq	%rbx
	RET
SYM_FUNC_END(kerf_test_span)

/* u32 many(void): a value sixteen times */
SYM_FUNC_START(kerf_test_many)
	.rept	16
	movl	$0x10, %eax
	.endr
	RET
SYM_FUNC_END(kerf_test_many)

/* u64 late(u32 x): as span, the first time at one of two places, so that neither is where every execution begins */
SYM_FUNC_START(kerf_test_late)
	movl	%edi, %eax
	movl	%eax, %ecx
	andl	$1, %ecx
	jz	1f
	movl	$0x10, %edx
	jmp	2f
1:	movl	$0x10, %edx
2:	movl	$0x10, %eax
	shlq	$32, %rax
	orq	%rdx, %rax
	RET
SYM_FUNC_END(kerf_test_late)
