#!/bin/sh
# The demo's part inside the virtual machine: I/O runs all the time while a constant of the kernel changes.
#
# usage: demo.sh NAME VALUE...
# Standard output: the kernel's trace, then what `kerf status --json` said after each change.
# Standard error: what a person at the machine would see.
set -eu
name=$1
shift
queue=/sys/block/nullb0/queue
trace=/sys/kernel/tracing

# Every 4 KiB page is a request of its own: no merging, no scheduler.
echo none > $queue/scheduler
echo 2 > $queue/nomerges
echo 4 > $queue/max_sectors_kb

mark() { echo "kerf: $*" > $trace/trace_marker; }
shown() { echo "# $*" >&2; "$@" >&2; }

echo mono > $trace/trace_clock
echo 1 > $trace/events/block/block_unplug/enable
cat $trace/trace_pipe &
reader=$!
while :; do
	dd if=/dev/zero of=/dev/nullb0 bs=1M count=4 conv=fsync 2> /dev/null
	usleep 10000
done &
load=$!

sleep 1
xtask guest-text save /tmp/text
mark in force stock
sleep 2
for value; do
	mark change
	shown kerf const set "$name" "$value" --table /scope.db
	# A batch that was begun under the old value may still be on its way.
	sleep 0.2
	mark in force "$value"
	sleep 2
	kerf status --json > "/tmp/status.$value"
done
shown kerf status --table /scope.db
mark change
shown kerf const unset "$name" --table /scope.db
sleep 0.2
mark in force stock
sleep 2
mark end
shown kerf status --table /scope.db
shown xtask guest-text compare /tmp/text

kill $load
sleep 0.3
kill $reader
for value; do
	echo "kerf: status $value"
	cat "/tmp/status.$value"
done
