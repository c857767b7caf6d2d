// SPDX-License-Identifier: GPL-2.0-only
// Functions whose counts are known: a loop to the instruction, and one that the kernel patches while it runs.
#include <linux/jump_label.h>
#include <linux/linkage.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

static DEFINE_STATIC_KEY_FALSE(kerf_known_key);

void kerf_known_loop(unsigned long rounds);

// Two instructions a round, one before them and one behind.
asm(".pushsection .text\n"
    ".type kerf_known_loop, @function\n"
    "kerf_known_loop:\n"
    "	mov %rdi, %rcx\n"
    "1:	dec %rcx\n"
    "	jnz 1b\n"
    "	" ASM_RET "\n"
    ".size kerf_known_loop, . - kerf_known_loop\n"
    ".popsection\n");

static noinline void kerf_known_patched(void)
{
	if (static_branch_unlikely(&kerf_known_key))
		asm volatile("nop\n\tnop\n\tnop\n\tnop\n\tnop");
	asm volatile("nop");
}

static int run_loop(const char *value, const struct kernel_param *param)
{
	unsigned long rounds;
	int error = kstrtoul(value, 0, &rounds);

	if (!error && rounds)
		kerf_known_loop(rounds);
	return error;
}

// Calls that many times; an odd number does so with the branch switched.
static int run_patched(const char *value, const struct kernel_param *param)
{
	unsigned long calls, call;
	int error = kstrtoul(value, 0, &calls);

	if (error)
		return error;
	if (calls & 1)
		static_branch_enable(&kerf_known_key);
	for (call = 0; call < calls; call++)
		kerf_known_patched();
	static_branch_disable(&kerf_known_key);
	return 0;
}

static const struct kernel_param_ops loop_ops = { .set = run_loop };
static const struct kernel_param_ops patched_ops = { .set = run_patched };

module_param_cb(loop, &loop_ops, NULL, 0200);
module_param_cb(patched, &patched_ops, NULL, 0200);
MODULE_DESCRIPTION("functions whose counts are known");
MODULE_LICENSE("GPL");
