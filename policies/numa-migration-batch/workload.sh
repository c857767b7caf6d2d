#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Two threads read hot pages that a third one moves between two nodes, again and again: the reads that began during a move, and the
# interrupts by which the moving CPU has the others flush their TLBs. `cargo xtask bench cases` runs it in a virtual machine.
#
# constants: NR_MAX_BATCHED_MIGRATION
# cpus: 4
# memory: 1024
# nodes: 2
# figure: read_p99; us; less
# figure: reads_waited; per 1000; less
# figure: tlb_shootdowns; interrupts; more
set -e

PAGES=1024
MOVES=40
ROUNDS=4
BATCH=32 # the policy's

mount -t bpf bpf /sys/fs/bpf
insmod /kerf.ko
# No other moves than ours.
echo 0 > /proc/sys/kernel/numa_balancing

shootdowns() { awk '$1 == "TLB:" { for (i = 2; $i ~ /^[0-9]+$/; i++) sum += $i; print sum }' /proc/interrupts; }

# stock|tuned
round() {
	before=$(shootdowns)
	line=$(/case/migrate-hot $PAGES $MOVES)
	after=$(shootdowns)
	echo "$1 $line" >&2
	# reads N p99 N longest N waited N moved N
	set -- "$1" $line
	[ "${11}" -eq $((PAGES * MOVES)) ]
	echo "figure read_p99 $1 $5"
	echo "figure reads_waited $1 $9"
	echo "figure tlb_shootdowns $1 $((after - before))"
}

# The first run is slower, whatever the batch.
/case/migrate-hot $PAGES 4 >&2
n=0
while [ $n -lt $ROUNDS ]; do
	n=$((n + 1))
	round stock
	kerf policy load /case/numa-migration-batch.o >&2
	round tuned
	flushes=$(/case/flushes /sys/fs/bpf/kerf/numa-migration-batch/flushes)
	echo "the policy has counted $flushes flushes" >&2
	# one for each batch at least
	[ "$flushes" -ge $((PAGES * MOVES / BATCH)) ]
	[ $n -lt $ROUNDS ] || echo "status $(kerf status --json | tr -d '\n')"
	kerf policy unload numa-migration-batch >&2
done
