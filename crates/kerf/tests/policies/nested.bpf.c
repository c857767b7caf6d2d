// SPDX-License-Identifier: GPL-2.0-only
/* Calls a helper that comes to the policy's own constant, with the help of the module `nested`. */
#include "vmlinux.h"
#include "kerf.bpf.h"

XK_TUNE(nested, "BLK_MAX_REQUEST_COUNT")
{
	char name[16];

	bpf_get_current_comm(name, sizeof(name));
	xk_set(xk_ctx, 4);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
