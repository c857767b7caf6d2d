// SPDX-License-Identifier: GPL-2.0-only
/* Another batch size for one shrinker, by the name of the function that scans. All others keep the stock one. */
#include "vmlinux.h"
#include "kerf.bpf.h"

#define SCAN "zswap_shrinker_scan"
#define BATCH 24

/* Kernels need not keep the names of shrinkers, but they have symbols. */
static const char symbol[] = "%ps";

XK_TUNE(batch, "SHRINK_BATCH", struct shrink_control *control, struct shrinker *shrinker)
{
	__u64 scan = (__u64)BPF_CORE_READ(shrinker, scan_objects);
	char name[32] = {};

	if (!xk_transition_done(xk_ctx))
		return 0;
	if (bpf_snprintf(name, sizeof(name), symbol, &scan, sizeof(scan)) < 0)
		return 0;
	/* A module's function is followed by the module's name. */
	if (!bpf_strncmp(name, sizeof(SCAN) - 1, SCAN))
		xk_set(xk_ctx, BATCH);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
