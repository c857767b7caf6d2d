# Sourced by the scripts of policies' tests, in a virtual machine with kerf.ko, /submit and /text.
#
# Standard output, a line for each measurement:
#   batches LABEL SIZExNUMBER...   how the reads of a program were unplugged, by the kernel's own trace
#   status LABEL JSON              what `kerf status` says
#   text LABEL CHECKSUM            the kernel's text
trace=/sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
insmod /kerf.ko
echo 1 > $trace/events/block/block_unplug/enable

# LABEL COMMAND...
batches() {
	label=$1
	shift
	echo > $trace/trace
	"$@"
	echo "batches $label" $(sed -n 's/.*block_unplug: .*\] //p' $trace/trace | sort -n | uniq -c | awk '{ print $2 "x" $1 }')
}

status() { echo "status $1 $(kerf status --json | tr -d '\n')"; }

symbol() { awk -v name="$1" '$3 == name { print $1 }' /proc/kallsyms; }

text() { echo "text $1 $(/text $(symbol _stext) $(symbol _etext))"; }
