// SPDX-License-Identifier: GPL-2.0-only
/* Small plugs for threads whose requests have not merged lately: waiting for neighbours does not pay for them. */
#include "vmlinux.h"
#include "kerf.bpf.h"

#define FAILURES 16	/* in a row */

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} failures SEC(".maps");

/* bool: the register's other bits mean nothing */
SEC("kretprobe/blk_attempt_plug_merge")
int BPF_KRETPROBE(attempted, __u8 merged)
{
	__u32 *count = bpf_task_storage_get(&failures, bpf_get_current_task_btf(), NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!count)
		return 0;
	*count = merged ? 0 : *count + 1;
	return 0;
}

XK_TUNE(plug_limit, "BLK_MAX_REQUEST_COUNT")
{
	__u32 *count;

	if (!xk_transition_done(xk_ctx))
		return 0;
	count = bpf_task_storage_get(&failures, bpf_get_current_task_btf(), NULL, 0);
	if (count && *count >= FAILURES)
		xk_set(xk_ctx, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
