/* SPDX-License-Identifier: GPL-2.0-only */
/* What stands behind the trampolines of a constant with a policy. */
#ifndef KERF_POLICY_H
#define KERF_POLICY_H

#include <linux/bpf.h>
#include <linux/percpu.h>

#include "kerf.h"

/* How a number in the code follows from the constant's value. */
enum kerf_form_kind {
	KERF_AFFINE = 1,		/* a * V + b */
	KERF_QUOTIENT,			/* factor * (floor((V + b) / a) + c) */
	KERF_RECIPROCAL,		/* floor(a / V) + b */
	KERF_POWER,			/* a * 2^V + b */
	KERF_LOGARITHM,			/* floor(log2 V) + b */
	KERF_RECIPROCAL_LOGARITHM,	/* floor(log2 floor(a / V)) + b */
};

struct kerf_form {
	u8 kind;
	s64 a, b, c, factor;
};

/* min <= V <= max */
struct kerf_interval {
	s64 min, max;
};

/* Each trigger counts once, as what became of it. */
struct kerf_counts {
	u64 decided, kept, refused, missed;
};

struct kerf_decider {
	struct bpf_prog *prog;		/* NULL: the value of the entry */
	/* The program's own return value, all 64 bits of it: its type in struct bpf_prog cuts it. */
	u64 (*run)(const void *ctx, const struct bpf_insn *insns);
	struct kerf_counts __percpu *counts;
	struct kerf_executions *executions;	/* NULL: each place decides for itself */
	s64 stock;
	unsigned int n_forms, n_ranges;
	struct kerf_form forms[KERF_FORMS_MAX];
	struct kerf_interval ranges[];	/* sorted: certified, and within the user's limits */
};

struct kerf_decider *kerf_decider_alloc(unsigned int n_ranges);
int kerf_decider_program(struct kerf_decider *decider, int fd, const char *id, struct kerf_report *report);
int kerf_decider_check(const struct kerf_decider *decider, const char *id, struct kerf_report *report);

#endif
