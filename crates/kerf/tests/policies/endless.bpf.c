// SPDX-License-Identifier: GPL-2.0-only
/* A loop without an end. */
#include "vmlinux.h"
#include "kerf.bpf.h"

XK_TUNE(endless, "BLK_MAX_REQUEST_COUNT")
{
	volatile int n = 0;

	while (n < 1 << 30)
		if (bpf_get_prandom_u32() & 1)
			n = 0;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
