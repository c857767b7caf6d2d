// SPDX-License-Identifier: GPL-2.0-only
/* Batches of 4 for programs whose name begins with `small`. */
#include "vmlinux.h"
#include "kerf.bpf.h"

XK_TUNE(chosen, "BLK_MAX_REQUEST_COUNT")
{
	char name[16] = {};

	if (!xk_transition_done(xk_ctx))
		return 0;
	bpf_get_current_comm(name, sizeof(name));
	if (!bpf_strncmp(name, 5, "small"))
		xk_set(xk_ctx, 4);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
