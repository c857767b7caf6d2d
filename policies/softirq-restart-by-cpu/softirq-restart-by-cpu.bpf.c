// SPDX-License-Identifier: GPL-2.0-only
/* Longer runs of softirqs on CPUs that an operator names: throughput there, latency on the others. */
#include "vmlinux.h"
#include "kerf.bpf.h"

#define CPUS 1024

/* By CPU, how often its softirqs may start again: /sys/fs/bpf/kerf/softirq-restart-by-cpu/restarts. 0: as in the kernel. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CPUS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u32);
} restarts SEC(".maps");

XK_TUNE(restart, "MAX_SOFTIRQ_RESTART")
{
	__u32 cpu = bpf_get_smp_processor_id();
	__u32 *limit;

	if (!xk_transition_done(xk_ctx))
		return 0;
	limit = bpf_map_lookup_elem(&restarts, &cpu);
	if (limit && *limit)
		xk_set(xk_ctx, *limit);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
