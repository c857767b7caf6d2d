#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Chains of softirqs on a CPU whose limit is raised and on one that keeps the kernel's: how often each chain is left to a thread.
# `cargo xtask bench cases` runs it in a virtual machine.
#
# constants: MAX_SOFTIRQ_RESTART
# cpus: 2
# programs: /usr/sbin/bpftool
# figure: ksoftirqd-wakeups; wakeups; less
# figure: ksoftirqd-wakeups-other-cpu; wakeups; same
set -eu
restarts=/sys/fs/bpf/kerf/softirq-restart-by-cpu/restarts
mount -t bpf bpf /sys/fs/bpf
insmod /kerf.ko

# With a weight of 1 each run of the softirq takes one packet and is raised again for the next one. The answer to a ping is made
# inside a softirq, so that all its fragments wait there together: 16 of 1256 bytes, which need 18 runs.
ip link set lo mtu 1280
echo 1 > /proc/sys/net/core/dev_weight

# CPU: how often its ksoftirqd was woken. A thread that was woken goes to sleep by itself.
wakeups() {
	awk '/^voluntary/ { print $2 }' "$(grep -l "^ksoftirqd/$1\$" /proc/[0-9]*/comm | sed 's/comm$/status/')"
}

# CPU: wakeups in 100 pings from there
pings() {
	before=$(wakeups "$1")
	taskset -c "$1" ping -A -q -c 100 -s 20000 127.0.0.1 > /tmp/ping
	grep -q ' 0% packet loss' /tmp/ping
	echo $(($(wakeups "$1") - before))
}

measure() {
	echo "figure ksoftirqd-wakeups $1 $(pings 1)"
	echo "figure ksoftirqd-wakeups-other-cpu $1 $(pings 0)"
}

for round in 1 2 3 4 5; do
	measure stock
	kerf policy load /case/softirq-restart-by-cpu.o >&2
	/usr/sbin/bpftool map update pinned $restarts key hex 01 00 00 00 value hex 28 00 00 00 >&2
	measure tuned
	[ $round -lt 5 ] || echo "status $(kerf status --json | tr -d '\n')"
	kerf policy unload softirq-restart-by-cpu >&2
done
