// SPDX-License-Identifier: GPL-2.0-only
/* flushes MAP: how many TLB flushes the policy has seen that one CPU asked others for. MAP is the pinned map. */
#include <linux/bpf.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TLB_REMOTE_SEND_IPI 4

int main(int argc, char **argv)
{
	union bpf_attr get = {}, lookup = {};
	__u32 reason = TLB_REMOTE_SEND_IPI;
	__u64 count;
	int map;

	if (argc != 2) {
		fprintf(stderr, "usage: flushes MAP\n");
		return 1;
	}
	get.pathname = (unsigned long)argv[1];
	map = syscall(SYS_bpf, BPF_OBJ_GET, &get, sizeof(get));
	if (map < 0) {
		perror(argv[1]);
		return 1;
	}
	lookup.map_fd = map;
	lookup.key = (unsigned long)&reason;
	lookup.value = (unsigned long)&count;
	if (syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &lookup, sizeof(lookup))) {
		perror("lookup");
		return 1;
	}
	printf("%llu\n", (unsigned long long)count);
	return 0;
}
