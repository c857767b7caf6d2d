// SPDX-License-Identifier: GPL-2.0-only
/* Makes the function return something else. */
#include "vmlinux.h"
#include "kerf.bpf.h"

XK_TUNE(override, "BLK_MAX_REQUEST_COUNT")
{
	bpf_override_return(ctx, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
