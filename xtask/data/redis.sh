#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# In the machine of `cargo xtask bench redis`: a Redis server and its benchmark over the loopback interface, with the first
# constants of /redis.list set, decided by a policy, and stock, in turns. A line of the list: LABEL SITE VALUE STOCK.
#
# redis.sh REQUESTS ROUNDS SIZE…: that many SETs and as many GETs; the sizes are numbers of constants.
set -eu
requests=$1
rounds=$2
shift 2

load() { redis-benchmark -t set,get -n "$1" -c 50 -d 3 -q > /dev/null; }

# NAME: counted by the plugin
measure() {
	kerf measure mark begin "$1"
	load "$requests"
	kerf measure mark end
}

# LIST: the policy that decides on all of it, each time as the kernel was compiled
decide() { kerf const set $(awk '{ print $2 "==" $4 }' "$1") --name redis; }

# How often each constant was passed, as LABEL COUNT
passed() {
	kerf status --metrics - | awk -F '"' '/^kerf_policy_triggers_total/ { split($NF, n, " "); sum[$2] += n[2] }
		END { for (label in sum) print label, sum[label] }'
}

# Which can be set, and decided, on this machine
try() {
	if { kerf const set "$site=$value" && kerf const unset --all && kerf const set "$site==$stock" --name redis; } > /tmp/said 2>&1
	then
		echo "$label $site $value $stock" >> /tmp/able
	else
		echo "refused $label $(tail -n 1 /tmp/said)"
	fi
	kerf const unset --all > /tmp/said 2>&1 || cat /tmp/said >&2
}

insmod /kerf.ko
/usr/bin/redis-server --save '' --appendonly no --bind 127.0.0.1 --logfile /tmp/redis.log > /dev/null 2>&1 &
until redis-cli ping 2> /dev/null | grep -q PONG; do
	kill -0 $!
	sleep 0.2
done

: > /tmp/able
while read -r label site value stock; do try; done < /redis.list
decide /tmp/able > /tmp/said || { cat /tmp/said >&2; exit 1; }
load 500
passed > /tmp/passed
kerf policy unload redis > /tmp/said
awk 'NR == FNR { count[$1] = $2; next } count[$1] { print > "/tmp/usable"; print "usable", $1; next } { print "unreached", $1 }' \
	/tmp/passed /tmp/able
all=$(wc -l < /tmp/usable)

# The last size that there are not enough constants for is as many as there are.
wanted=
for size in "$@"; do
	[ "$size" -le "$all" ] || size=$all
	case " $wanted " in *" $size "*) ;; *) wanted="$wanted $size" ;; esac
done
load 500
for round in $(seq "$rounds"); do
	measure stock
	for size in $wanted; do
		head -n "$size" /tmp/usable > /tmp/first
		kerf const set $(awk '{ print $2 "=" $3 }' /tmp/first) > /tmp/said
		measure "set $size"
		kerf const unset --all > /tmp/said
		decide /tmp/first > /tmp/said
		measure "policy $size"
		passed | sed "s/^/passed $round $size /"
		[ "$round" -lt "$rounds" ] || grep -E '\[(kerf|bpf)\]' /proc/kallsyms | sed "s/^/symbol $size /"
		kerf policy unload redis > /tmp/said
	done
done
