# Sourced by the metrics of trials, and by the script that runs them, in a virtual machine with null_blk, /io and /text.

# What the kernel counts of the disk; the fields are in Documentation/block/stat.rst.
field() { awk -v n="$1" '{ print $n }' /sys/block/nullb0/stat; }

# A scheduler that merges what a plug hands over, with room for the largest plug; null_blk has none by default.
scheduler() {
	echo mq-deadline > /sys/block/nullb0/queue/scheduler
	echo 256 > /sys/block/nullb0/queue/nr_requests
}

# WORKLOAD: how many requests reach the disk for 1024 writes of 4 KiB.
requests() {
	before=$(field 5)
	/io "$1" /dev/nullb0 4
	echo $(($(field 5) - before))
}

# How many microseconds the first of some random reads waits until the plug is emptied, by the kernel's trace: the median.
latency() {
	trace=/sys/kernel/tracing
	echo > $trace/trace
	echo 1 > $trace/events/block/block_plug/enable
	echo 1 > $trace/events/block/block_unplug/enable
	/io random /dev/nullb0 8
	echo 0 > $trace/events/block/enable
	sed -n 's/^ *io-.* \([0-9]*\)\.\([0-9]\{6\}\): block_\([a-z]*\): .*/\3 \1\2/p' $trace/trace |
		awk '$1 == "plug" { start = $2 } $1 == "unplug" { print $2 - start }' | sort -n |
		awk '{ wait[NR] = $1 } END { print wait[int((NR + 1) / 2)] " us" }'
}

# A number around 1000 with noise of 2 % and a drift of 0.3 % a run, the same at each call; 5 % less while the limit is 4.
planted() {
	run=$(cat /tmp/run 2> /dev/null || echo 1)
	echo $((run + 1)) > /tmp/run
	kerf status --json | grep -q '"value": 4$' && share=0.95 || share=1
	awk -v run="$run" -v share="$share" 'BEGIN {
		srand(run)
		for (i = 0; i < 12; i++)
			noise += rand()
		print 1000 * share * (1 + 0.02 * (noise - 6)) * (1 + 0.003 * run)
	}'
}

# Fails in its fourth run.
failing() {
	run=$(cat /tmp/failing 2> /dev/null || echo 1)
	echo $((run + 1)) > /tmp/failing
	echo "run $run"
	[ "$run" -lt 4 ]
}

# SIGNAL: a trial that gets a signal while another value is in force.
interrupted() {
	kerf try BLK_MAX_REQUEST_COUNT=128 --metric 'sleep 1; echo 1' &
	until kerf status | grep -q '128 '; do usleep 20000; done
	kill "-$1" $!
	wait $!
}

symbol() { awk -v name="$1" '$3 == name { print $1 }' /proc/kallsyms; }

text() { /text $(symbol _stext) $(symbol _etext); }
