// SPDX-License-Identifier: GPL-2.0-only
/* Writes through a pointer that the kernel vouches for. */
#include "vmlinux.h"
#include "kerf.bpf.h"

XK_TUNE(task, "BLK_MAX_REQUEST_COUNT")
{
	bpf_get_current_task_btf()->flags = 0;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
