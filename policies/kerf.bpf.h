/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The words of a policy: include this after vmlinux.h. A policy returns a decision; kerf.ko carries it out.
 *
 *   XK_TUNE(small_batches, "BLK_MAX_REQUEST_COUNT") {
 *           if (!xk_transition_done(xk_ctx))
 *                   return 0;
 *           if (bpf_get_smp_processor_id() == 0)
 *                   xk_set(xk_ctx, 4);
 *           return 0;
 *   }
 *
 * XK_TUNE(name, id, args...): runs where the constant @id (a name or an id of `kerf const list`) is used. @ctx is a struct
 * pt_regs *: the registers at that place, with the parameter registers (PT_REGS_PARM1 to 6, or @args) as they were at the
 * function's entry. `kerf policy load` refuses a policy that reads an argument which is nowhere any more.
 *
 * The helpers are those of kprobe programs.
 */
#ifndef KERF_BPF_H
#define KERF_BPF_H

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

struct xk_ctx {
	__u64 answer;
};

/* handle of the decision that is being made */
typedef const struct xk_ctx *xk_handle_t;

/* Decides on @value, 63 bits of it, for this execution. Called again, the last one counts. Always 0. */
static __always_inline long xk_set(xk_handle_t xk_ctx, __u64 value)
{
	((struct xk_ctx *)xk_ctx)->answer = value << 1 | 1;
	return 0;
}

/* Is the switch to this policy over? A policy is not asked before, so: always. */
static __always_inline _Bool xk_transition_done(xk_handle_t xk_ctx)
{
	return 1;
}

#define XK_TUNE(name, perfconst_id, args...)						\
static __always_inline int ____##name(xk_handle_t xk_ctx, struct pt_regs *ctx, ##args);	\
SEC("kprobe/kerf:" perfconst_id)							\
__u64 name(struct pt_regs *ctx)								\
{											\
	struct xk_ctx decision = {};							\
											\
	____##name(&decision, ___bpf_kprobe_args(args));					\
	return decision.answer;								\
}											\
static __always_inline int ____##name(xk_handle_t xk_ctx, struct pt_regs *ctx, ##args)

#endif
