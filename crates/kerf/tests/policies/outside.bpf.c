// SPDX-License-Identifier: GPL-2.0-only
/* With the limits 2..16 six of these sixteen values are permitted. */
#include "vmlinux.h"
#include "kerf.bpf.h"

static const __s64 values[16] = { 0, -1, 1, 2, 16, 17, 1000003, 1000004, 1LL << 32, 1LL << 62, 5, 3, -2, 4, 1LL << 31, 15 };
static unsigned long n;

XK_TUNE(outside, "BLK_MAX_REQUEST_COUNT")
{
	xk_set(xk_ctx, values[__sync_fetch_and_add(&n, 1) & 15]);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
