// SPDX-License-Identifier: GPL-2.0-only
/* What became of a policy's triggers, summed up over the CPUs and shown. */
#include <linux/seq_file.h>

#include "kerf_policy.h"

static u64 decided_on(const struct kerf_counts *counts)
{
	unsigned int n;
	u64 sum = 0;

	for (n = 0; n < KERF_MAGNITUDES; n++)
		sum += counts->decided[n];
	return sum;
}

/* Others count meanwhile; what is read of one number is whole. */
void kerf_counts_sum(const struct kerf_decider *decider, struct kerf_sums *sums)
{
	unsigned int n;
	int cpu;

	memset(sums, 0, sizeof(*sums));
	for_each_possible_cpu(cpu) {
		const struct kerf_counts *counts = per_cpu_ptr(decider->counts, cpu);

		for (n = 0; n < KERF_MAGNITUDES; n++)
			sums->magnitudes[n] += counts->decided[n];
		sums->decided += decided_on(counts);
		sums->kept += counts->kept;
		sums->refused += counts->refused;
		sums->missed += counts->missed;
		sums->timed += counts->timed;
		sums->ns += counts->ns;
		sums->longest = max(sums->longest, counts->longest);
	}
	sums->hits = sums->decided + sums->kept + sums->refused + sums->missed;
}

/* CPU:VALUE, of those that have decided. */
static void show_last(struct seq_file *m, const struct kerf_decider *decider)
{
	const char *comma = "";
	int cpu;

	seq_puts(m, " last=");
	for_each_possible_cpu(cpu) {
		const struct kerf_counts *counts = per_cpu_ptr(decider->counts, cpu);

		if (!decided_on(counts))
			continue;
		seq_printf(m, "%s%d:%lld", comma, cpu, counts->last);
		comma = ",";
	}
}

/* BITS:COUNT, where decisions were. */
static void show_magnitudes(struct seq_file *m, const struct kerf_sums *sums)
{
	const char *comma = "";
	unsigned int n;

	seq_puts(m, " decisions=");
	for (n = 0; n < KERF_MAGNITUDES; n++) {
		if (!sums->magnitudes[n])
			continue;
		seq_printf(m, "%s%u:%llu", comma, n, sums->magnitudes[n]);
		comma = ",";
	}
}

void kerf_decider_show(struct seq_file *m, const struct kerf_entry *entry)
{
	const struct kerf_decider *decider = entry->decider;
	struct kerf_sums sums;

	kerf_counts_sum(decider, &sums);
	seq_printf(m, "policy id=%s program=%u hits=%llu decided=%llu kept=%llu refused=%llu missed=%llu", entry->id,
		   decider->prog->aux->id, sums.hits, sums.decided, sums.kept, sums.refused, sums.missed);
	show_last(m, decider);
	show_magnitudes(m, &sums);
	seq_printf(m, " timed=%llu ns=%llu longest_ns=%llu stopped=%d owner=%s\n", sums.timed, sums.ns, sums.longest,
		   decider->stopped, entry->owner);
	kerf_watchdog_show(m, entry);
}
