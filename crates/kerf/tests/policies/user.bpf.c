// SPDX-License-Identifier: GPL-2.0-only
/* Makes the helper that writes a process's memory write to the kernel's: it gives an error. */
#include "vmlinux.h"
#include "kerf.bpf.h"

XK_TUNE(user, "BLK_MAX_REQUEST_COUNT", void *plug)
{
	__u64 zero = 0;

	if (bpf_probe_write_user(plug, &zero, sizeof(zero)) < 0)
		xk_set(xk_ctx, 4);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
