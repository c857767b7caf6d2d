// SPDX-License-Identifier: GPL-2.0-only
/* Makes a helper write to an address of the kernel. */
#include "vmlinux.h"
#include "kerf.bpf.h"

XK_TUNE(copy, "BLK_MAX_REQUEST_COUNT", void *plug)
{
	__u64 zero = 0;

	bpf_probe_read_kernel(plug, sizeof(zero), &zero);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
