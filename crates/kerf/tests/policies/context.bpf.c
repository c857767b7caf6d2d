// SPDX-License-Identifier: GPL-2.0-only
/* Writes a register. */
#include "vmlinux.h"
#include "kerf.bpf.h"

XK_TUNE(context, "BLK_MAX_REQUEST_COUNT")
{
	ctx->ax = 0;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
