// SPDX-License-Identifier: GPL-2.0-only
/* Fills its maps, and decides once nothing goes in any more. */
#include "vmlinux.h"
#include "kerf.bpf.h"

#define ROOM 64

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ROOM);
	__type(key, __u64);
	__type(value, __u64);
} full SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ROOM);
	__type(key, __u64);
	__type(value, __u64);
} forgetful SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

static __u64 n;

XK_TUNE(brim, "BLK_MAX_REQUEST_COUNT")
{
	__u64 key = __sync_fetch_and_add(&n, 1);
	long hash = bpf_map_update_elem(&full, &key, &key, BPF_NOEXIST);
	long events_left = bpf_ringbuf_output(&events, &key, sizeof(key), 0);

	bpf_map_update_elem(&forgetful, &key, &key, BPF_ANY);
	if (hash < 0 && events_left < 0)
		xk_set(xk_ctx, 4);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
