#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A program writes blocks one after the other into a large region, overwrites earlier ones, and has its memory reclaimed on the way, which fills
# zswap. Measured is what zswap's shrinker writes to disk meanwhile, and what has to be read from there again.
#
# constants: SHRINK_BATCH
# modules: virtio_blk
# memory: 768
# disk: 256
# figure: written_back; pages; less
# figure: read_from_disk; pages; less
set -e

ROUNDS=3
zswap=/sys/module/zswap/parameters
group=/sys/fs/cgroup/writer

mount -t bpf bpf /sys/fs/bpf
[ -e /sys/fs/cgroup/cgroup.controllers ] || mount -t cgroup2 none /sys/fs/cgroup
echo +memory > /sys/fs/cgroup/cgroup.subtree_control
insmod /kerf.ko
mkswap /dev/vda >&2
swapon /dev/vda
# Each page that is read from disk was needed.
echo 0 > /proc/sys/vm/page-cluster
echo 1 > $zswap/enabled
echo 1 > $zswap/shrinker_enabled

vmstat() { awk -v name="$1" '$1 == name { print $2 }' /proc/vmstat; }

# stock|tuned
round() {
	mkdir $group
	written=$(vmstat zswpwb)
	read=$(vmstat pswpin)
	line=$(sh -c "echo \$\$ > $group/cgroup.procs && exec /case/write-blocks $group/memory.reclaim")
	written=$(($(vmstat zswpwb) - written))
	read=$(($(vmstat pswpin) - read))
	rmdir $group
	echo "$1 $line" >&2
	echo "figure written_back $1 $written"
	echo "figure read_from_disk $1 $read"
}

n=0
while [ $n -lt $ROUNDS ]; do
	n=$((n + 1))
	round stock
	kerf policy load /case/shrink-batch-by-name.o >&2
	round tuned
	[ $n -lt $ROUNDS ] || echo "status $(kerf status --json | tr -d '\n')"
	kerf policy unload shrink-batch-by-name >&2
done
