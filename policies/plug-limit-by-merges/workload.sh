#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Reads that never merge and reads that all do, with and without the policy: how many wait for each other, and how many requests
# are made of the second. `cargo xtask bench cases` runs it in a virtual machine.
#
# constants: BLK_MAX_REQUEST_COUNT
# modules: null_blk bs=4096 gb=1
# figure: requests-in-a-batch; requests; less
# figure: requests-of-merging-writes; requests; same
set -eu
trace=/sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
insmod /kerf.ko
echo none > /sys/block/nullb0/queue/scheduler
echo 64 > /sys/block/nullb0/queue/max_sectors_kb
echo 1 > $trace/events/block/block_unplug/enable
echo 1 > $trace/events/block/block_rq_issue/enable

measure() {
	echo > $trace/trace
	/case/random-reads /dev/nullb0 20 >&2
	batch=$(sed -n 's/.*random-reads.*block_unplug: .*\] //p' $trace/trace | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }')
	echo "figure requests-in-a-batch $1 $batch"
	echo > $trace/trace
	dd if=/dev/zero of=/dev/nullb0 bs=1M count=16 conv=fsync 2> /dev/null
	echo "figure requests-of-merging-writes $1 $(grep -c 'block_rq_issue: .* W' $trace/trace)"
}

for round in 1 2 3 4 5; do
	measure stock
	kerf policy load /case/plug-limit-by-merges.o >&2
	measure tuned
	[ $round -lt 5 ] || echo "status $(kerf status --json | tr -d '\n')"
	kerf policy unload plug-limit-by-merges >&2
done
