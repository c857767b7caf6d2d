#!/bin/sh
# Sets constants live, each to two values, under a workload that uses much of the kernel. Runs in a virtual machine with /kerf.ko, a scope
# table, an empty disk, and /constants: on each line an id and two values.
#
# Standard output, a line for each try: tried ID VALUE JSON, where JSON is what `kerf status` says after the workload; or
# refused ID VALUE CODE, when it could not be set.
set -u
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 none /sys/fs/cgroup 2> /dev/null || mkdir -p /sys/fs/cgroup
mount -t tmpfs none /tmp 2> /dev/null
insmod /kerf.ko
ip link set lo up

echo mq-deadline > /sys/block/vda/queue/scheduler 2> /dev/null
mke2fs -b 4096 /dev/vda > /dev/null 2>&1
mkdir -p /mnt /www
mount -t ext4 /dev/vda /mnt
dd if=/dev/zero of=/www/page bs=64k count=8 2> /dev/null
httpd -p 8080 -h /www
dd if=/dev/zero of=/mnt/swap bs=1M count=24 2> /dev/null
mkswap /mnt/swap > /dev/null 2>&1 && swapon /mnt/swap 2> /dev/null
mkdir -p /sys/fs/cgroup/small
echo +memory > /sys/fs/cgroup/cgroup.subtree_control 2> /dev/null
echo 24M > /sys/fs/cgroup/small/memory.high 2> /dev/null

# Files, holes, direct I/O, and shrinkers.
storage() {
	dd if=/dev/zero of=/mnt/large bs=256k count=64 2> /dev/null
	dd if=/mnt/large of=/dev/null bs=64k iflag=direct 2> /dev/null
	n=0
	while [ $n -lt 40 ]; do
		echo text > "/mnt/small$n"
		dd if=/dev/zero of=/mnt/holes bs=1k count=1 seek=$((8 * n)) conv=notrunc 2> /dev/null
		n=$((n + 1))
	done
	sync
	echo 3 > /proc/sys/vm/drop_caches
	cat /mnt/large /mnt/holes > /dev/null
	rm -f /mnt/small* /mnt/large /mnt/holes
	echo 1 > /proc/sys/vm/compact_memory
}

# Small and large requests over the loopback, fragments, and packets that nobody wants.
network() {
	for n in 1 2 3 4; do
		wget -q -O /dev/null http://127.0.0.1:8080/page
	done
	ping -A -q -c 10 -s 20000 127.0.0.1 > /dev/null
	echo lost | nc -w 1 127.0.0.1 9 2> /dev/null
	echo lost | nc -u -w 1 127.0.0.1 9 2> /dev/null
}

# Processes, pipes and locks; more memory than a group may have, so that it swaps.
tasks() {
	for n in 1 2 3 4; do
		(dd if=/dev/zero bs=4k count=400 2> /dev/null | cat | md5sum > /dev/null) &
	done
	for n in $(seq 20); do
		true | true
	done
	wait $(jobs -p) 2> /dev/null
	(
		echo 0 > /sys/fs/cgroup/small/cgroup.procs 2> /dev/null
		dd if=/dev/zero of=/dev/null bs=32M count=1 2> /dev/null
		dd if=/dev/zero of=/tmp/filled bs=1M count=32 2> /dev/null
		rm -f /tmp/filled
	)
}

workload() {
	storage
	network
	tasks
}

workload
while read -r id first second; do
	for value in $first $second; do
		if kerf const set "$id=$value" --when true > /tmp/said 2>&1; then
			workload
			echo "tried $id $value $(kerf status --json | tr -d '\n')"
		else
			echo "refused $id $value $?"
			sed 's/^/  /' /tmp/said >&2
		fi
	done
	kerf const unset "$id" > /dev/null 2>&1
done < /constants
kerf off > /dev/null
dmesg | grep -iE 'warn|bug:|oops|stall|hung' | sed 's/^/log /'
