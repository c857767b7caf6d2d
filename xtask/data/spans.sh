#!/bin/sh
# Workloads that reach constants of the kernel, for `cargo xtask bench spans`. Runs in a virtual machine with one CPU.
#
# usage: spans.sh WORKLOAD
# The first line of output says that the preparation is done.
set -eu

softirq() {
	# One packet a run of the softirq, and fragments that wait there together.
	ip link set lo mtu 1280
	echo 1 > /proc/sys/net/core/dev_weight
	ping -A -q -s 4000 127.0.0.1 &
	sleep 0.1
	echo go
	sleep 2
	kill $!
}

block() {
	queue=/sys/block/nullb0/queue
	echo none > $queue/scheduler
	echo 2 > $queue/nomerges
	echo 4 > $queue/max_sectors_kb
	echo go
	dd if=/dev/zero of=/dev/nullb0 bs=1M count=8 conv=fsync
}

merge() {
	queue=/sys/block/nullb0/queue
	echo none > $queue/scheduler
	echo 64 > $queue/max_sectors_kb
	echo go
	dd if=/dev/zero of=/dev/nullb0 bs=1M count=8 conv=fsync
}

queue() {
	mount -t configfs none /sys/kernel/config 2> /dev/null || true
	echo go
	for n in 1 2 3; do
		mkdir /sys/kernel/config/nullb/more$n
		echo 1 > /sys/kernel/config/nullb/more$n/power
	done
}

shrink() {
	mke2fs -b 1024 /dev/vda > /dev/null
	mkdir -p /mnt
	mount -t ext4 /dev/vda /mnt
	n=0
	while [ $n -lt 100 ]; do
		dd if=/dev/zero of=/mnt/holes bs=1k count=1 seek=$((2 * n)) conv=notrunc 2> /dev/null
		n=$((n + 1))
	done
	sync
	exec 3< /mnt/holes
	cat /mnt/holes > /dev/null
	echo go
	for n in 1 2 3; do
		echo 3 > /proc/sys/vm/drop_caches
	done
}

writeback() {
	mke2fs /dev/vda > /dev/null
	mkdir -p /mnt
	mount -t ext4 /dev/vda /mnt
	echo go
	for n in 1 2 3; do
		dd if=/dev/zero of=/mnt/file bs=64k count=16
		sync
	done
}

# FLOWS: transfers over the loopback interface
serve() {
	mkdir -p /tmp/www
	dd if=/dev/zero of=/tmp/www/big bs=1M count=8 2> /dev/null
	httpd -p 127.0.0.1:80 -h /tmp/www
	echo go
	n=0
	while [ $n -lt "$1" ]; do
		wget -q -O /dev/null http://127.0.0.1/big
		n=$((n + 1))
	done
}

tcp() {
	serve 3
}

# DELAY…: packets of an ordinary size that take a while, and flows that know nothing of those before. busybox has a tc of its own.
far() {
	ip link set lo mtu 1500
	echo 1 > /proc/sys/net/ipv4/tcp_no_metrics_save
	/usr/sbin/tc qdisc add dev lo root netem limit 20000 delay "$@"
}

start() {
	far 10ms
	serve 4
}

loss() {
	far 10ms 4ms loss 2%
	serve 2
}

memory() {
	group=/sys/fs/cgroup
	grep -q " $group " /proc/mounts || mount -t cgroup2 none $group
	echo +memory > $group/cgroup.subtree_control || true
	mkdir $group/small
	echo $$ > $group/small/cgroup.procs
	echo go
	for n in 1 2 3; do
		dd if=/dev/zero of=/tmp/file bs=64k count=16
		rm /tmp/file
	done
}

"$1"
