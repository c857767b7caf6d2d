// SPDX-License-Identifier: GPL-2.0-only
/* Thinks for a long time before it decides on what it could have said at once. */
#include "vmlinux.h"
#include "kerf.bpf.h"

static long think(__u32 n, void *sum)
{
	*(__u64 *)sum += n * n;
	return 0;
}

XK_TUNE(costly, "BLK_MAX_REQUEST_COUNT")
{
	__u64 sum = 0;

	bpf_loop(20000, think, &sum, 0);
	xk_set(xk_ctx, sum ? 4 : 8);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
