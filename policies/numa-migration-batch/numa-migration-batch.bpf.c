// SPDX-License-Identifier: GPL-2.0-only
/*
 * Small batches for a program that moves pages others are reading: while a batch moves, its pages are mapped nowhere and whoever
 * reads one waits. The price is a TLB flush for each batch, so the flushes are counted beside.
 */
#include "vmlinux.h"
#include "kerf.bpf.h"

#define MOVER "migrate-hot"	/* the thread that moves, as in /proc/PID/comm */
#define BATCH 32

/* TLB flushes of the whole machine since the policy is loaded, by enum tlb_flush_reason */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NR_TLB_FLUSH_REASONS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u64);
} flushes SEC(".maps");

SEC("tracepoint/tlb/tlb_flush")
int count_flush(struct trace_event_raw_tlb_flush *flush)
{
	__u32 reason = flush->reason;
	__u64 *count = bpf_map_lookup_elem(&flushes, &reason);

	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}

XK_TUNE(batch, "NR_MAX_BATCHED_MIGRATION")
{
	char name[16] = {};

	if (!xk_transition_done(xk_ctx))
		return 0;
	bpf_get_current_comm(name, sizeof(name));
	if (!bpf_strncmp(name, sizeof(MOVER), MOVER))
		xk_set(xk_ctx, BATCH);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
