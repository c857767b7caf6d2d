// SPDX-License-Identifier: GPL-2.0-only
/* Another value at every hit, all over the certified ones. */
#include "vmlinux.h"
#include "kerf.bpf.h"

static unsigned long n;

XK_TUNE(changing, "BLK_MAX_REQUEST_COUNT")
{
	xk_set(xk_ctx, 1 + __sync_fetch_and_add(&n, 1) * 7919 % 1000003);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
