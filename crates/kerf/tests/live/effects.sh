#!/bin/sh
# Two constants at work, with counts that the kernel itself keeps. Runs in a virtual machine that has /kerf.ko, a table with
# both constants, ext4 and an empty disk.
#
# Standard output, a line for each measurement:
#   short VALUE NUMBER...        wakeups of ksoftirqd in 20 pings, five times, for short chains of softirqs
#   long VALUE NUMBER...         the same for long ones
#   shrinker VALUE NUMBER...     how many objects each call of a shrinker was to scan
set -eu
trace=/sys/kernel/tracing
insmod /kerf.ko

# MAX_SOFTIRQ_RESTART: with a weight of 1 each run of the softirq takes one packet and is raised again for the next one. The
# answer to a ping is made inside a softirq, so that all its fragments wait there together.
ip link set lo mtu 1280
echo 1 > /proc/sys/net/core/dev_weight

threads=$(grep -l '^ksoftirqd/' /proc/[0-9]*/comm | sed 's/comm$/status/')

# A thread that was woken goes to sleep by itself.
wakeups() { awk '/^voluntary/ { n += $2 } END { print n }' $threads; }

# SIZE: wakeups in 20 pings of that size
pings() {
	before=$(wakeups)
	ping -A -q -c 20 -s "$1" 127.0.0.1 > /tmp/ping
	grep -q ' 0% packet loss' /tmp/ping
	echo $(($(wakeups) - before))
}

# SIZE: five times, as a thread that waits long for the CPU is woken once for several pings
rounds() { for round in 1 2 3 4 5; do pings "$1"; done; }

# 1256 bytes to a fragment: 4 fragments need 6 runs of the softirq, 16 need 18.
softirq() {
	echo short "$1" $(rounds 4000)
	echo long "$1" $(rounds 20000)
}

# SHRINK_BATCH: ext4's shrinker of extent states has no batch size of its own. Every second block of a file is a hole, which
# gives a state for each block; the open file holds them in memory.
mke2fs -b 1024 /dev/vda > /dev/null
mkdir -p /mnt
mount -t ext4 /dev/vda /mnt
n=0
while [ $n -lt 250 ]; do
	dd if=/dev/zero of=/mnt/holes bs=1k count=1 seek=$((2 * n)) conv=notrunc 2> /dev/null
	n=$((n + 1))
done
sync
exec 3< /mnt/holes
echo 1 > $trace/events/ext4/ext4_es_shrink_scan_enter/enable

shrinker() {
	cat /mnt/holes > /dev/null
	echo > $trace/trace
	echo 3 > /proc/sys/vm/drop_caches
	echo shrinker "$1" $(sed -n 's/.* nr_to_scan \([0-9]*\) .*/\1/p' $trace/trace)
}

softirq stock
shrinker stock
kerf const set MAX_SOFTIRQ_RESTART=3 SHRINK_BATCH=16 >&2
softirq 3
shrinker 16
kerf const set MAX_SOFTIRQ_RESTART=1000 SHRINK_BATCH=512 >&2
softirq 1000
shrinker 512
kerf const unset --all >&2
softirq stock
shrinker stock
