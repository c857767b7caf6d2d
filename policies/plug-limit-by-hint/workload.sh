#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Random reads of a program that says so, with and without the policy: how many wait for each other, and how long the first one
# takes. `cargo xtask bench cases` runs it in a virtual machine.
#
# constants: BLK_MAX_REQUEST_COUNT
# modules: null_blk bs=4096 gb=1 irqmode=2 completion_nsec=50000
# programs: /usr/sbin/bpftool
# figure: requests-in-a-batch; requests; less
# figure: first-read-median; us; less
set -eu
trace=/sys/kernel/tracing
hints=/sys/fs/bpf/kerf/plug-limit-by-hint/hints
device=/dev/nullb0
mount -t bpf bpf /sys/fs/bpf
insmod /kerf.ko
echo none > /sys/block/nullb0/queue/scheduler
echo 1 > $trace/events/block/block_unplug/enable

# The program's thread has the id of the shell that becomes it, and names itself in the map if there is one.
measure() {
	echo > $trace/trace
	first=$(sh -c '
		key=$(printf "%02x %02x %02x %02x" $(($$ & 255)) $((($$ >> 8) & 255)) $((($$ >> 16) & 255)) $((($$ >> 24) & 255)))
		[ ! -e "$1" ] || /usr/sbin/bpftool map update pinned "$1" key hex $key value hex 01 00 00 00 >&2
		exec /case/random-reads "$2" 200
	' reads $hints $device)
	batch=$(sed -n 's/.*random-reads.*block_unplug: .*\] //p' $trace/trace | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }')
	echo "figure requests-in-a-batch $1 $batch"
	echo "figure first-read-median $1 $first"
}

for round in 1 2 3 4 5; do
	measure stock
	kerf policy load /case/plug-limit-by-hint.o >&2
	measure tuned
	[ $round -lt 5 ] || echo "status $(kerf status --json | tr -d '\n')"
	kerf policy unload plug-limit-by-hint >&2
done
