// SPDX-License-Identifier: GPL-2.0-only
/* Reads where nothing is: address 0, a user address, one that no page table can hold, the last page. */
#include "vmlinux.h"
#include "kerf.bpf.h"

XK_TUNE(wild, "BLK_MAX_REQUEST_COUNT")
{
	static const unsigned long bad[] = { 0, 0x1000, 0xdeadbeefdeadbeef, -8 };
	unsigned int failed = 0;
	__u64 found;

	for (int n = 0; n < 4; n++)
		failed += bpf_probe_read_kernel(&found, sizeof(found), (void *)bad[n]) < 0;
	if (failed == 4)
		xk_set(xk_ctx, 4);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
