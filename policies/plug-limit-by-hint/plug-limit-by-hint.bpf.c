// SPDX-License-Identifier: GPL-2.0-only
/* Small plugs for threads that an application names: their reads are random and do not merge. */
#include "vmlinux.h"
#include "kerf.bpf.h"

/* Thread ids, filled by the application: /sys/fs/bpf/kerf/plug-limit-by-hint/hints */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u32);
} hints SEC(".maps");

XK_TUNE(plug_limit, "BLK_MAX_REQUEST_COUNT")
{
	__u32 thread = bpf_get_current_pid_tgid();

	if (!xk_transition_done(xk_ctx))
		return 0;
	if (bpf_map_lookup_elem(&hints, &thread))
		xk_set(xk_ctx, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
