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
	KERF_RATIO,			/* floor((factor * V + b) / a) */
};

struct kerf_form {
	u8 kind;
	s64 a, b, c, factor;
};

/* min <= V <= max */
struct kerf_interval {
	s64 min, max;
};

#define KERF_MAGNITUDES 65

/* Each trigger counts once, as what became of it; decisions by the bits that their value has. Of one CPU. */
struct kerf_counts {
	u64 kept, refused, missed;
	s64 last;			/* decision, if there was one */
	u64 decided[KERF_MAGNITUDES];
	/* Only under a limit on time. Of the program, in ns. */
	u64 timed, ns, longest;
};

struct kerf_decider {
	struct bpf_prog *prog;		/* NULL: the value of the entry */
	/* The program's own return value, all 64 bits of it: its type in struct bpf_prog cuts it. */
	u64 (*run)(const void *ctx, const struct bpf_insn *insns);
	struct kerf_counts __percpu *counts;
	struct kerf_executions *executions;	/* NULL: each place decides for itself */
	bool timed;			/* its time has a limit: it is measured */
	bool stopped;			/* it came over a limit: not asked any more */
	s64 stock;
	unsigned int n_forms, n_ranges;
	struct kerf_form forms[KERF_FORMS_MAX];
	struct kerf_interval ranges[];	/* sorted: certified, and within the user's limits */
};

struct kerf_decider *kerf_decider_alloc(unsigned int n_ranges);
int kerf_decider_program(struct kerf_decider *decider, int fd, const char *id, struct kerf_report *report);
int kerf_decider_check(const struct kerf_decider *decider, const char *id, struct kerf_report *report);
void kerf_decider_stop(struct kerf_entry *entry);

/* kerf_counts.c */
struct kerf_sums {
	u64 hits, decided, kept, refused, missed;
	u64 timed, ns, longest;
	u64 magnitudes[KERF_MAGNITUDES];
};
void kerf_counts_sum(const struct kerf_decider *decider, struct kerf_sums *sums);

#endif
