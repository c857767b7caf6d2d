// SPDX-License-Identifier: GPL-2.0-only
/* Follows a pointer without a helper. */
#include "vmlinux.h"
#include "kerf.bpf.h"

XK_TUNE(direct, "BLK_MAX_REQUEST_COUNT", __u64 *plug)
{
	xk_set(xk_ctx, *plug);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
