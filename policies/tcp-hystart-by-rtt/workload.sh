#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A web server for clients near and far, 20 and 80 ms away, at the same time, with and without the policy: how many flows leave
# slow start because of a delay, and how long a file takes. `cargo xtask bench cases` runs it in a virtual machine.
#
# The clients' packets wait for a slot, as on a radio link, so that round trips differ, and the more so the longer the path is. The
# two sites have a network namespace and thus the kernel's counts for themselves.
#
# constants: net/ipv4/tcp_cubic.c:L439:3:0 HYSTART_DELAY_MIN HYSTART_DELAY_MAX
# modules: veth; sch_netem
# cpus: 1
# programs: /usr/sbin/ip /usr/sbin/tc /usr/sbin/nginx
# figure: far-exits-by-delay; flows; less
# figure: far-completion-median; ms; less
# figure: near-exits-by-delay; flows; same
# figure: near-completion-median; ms; same
set -eu
ip=/usr/sbin/ip
tc=/usr/sbin/tc
mount -t bpf bpf /sys/fs/bpf
insmod /kerf.ko

# What nginx wants to be there.
mkdir -p /var/lib/nginx /var/log/nginx /www
echo root:x:0:0::/: > /etc/passwd
echo root:x:0: > /etc/group
dd if=/dev/zero of=/www/file bs=1k count=2048 2> /dev/null

# NAME DELAY SLOTS: a server and its clients, each packet of which waits so long, and the clients' for the next slot besides
site() {
	$ip netns add "$1"
	$ip netns add "$1-clients"
	$ip -n "$1" link add eth0 type veth peer name eth0 netns "$1-clients"
	$ip -n "$1" address add 10.0.0.1/24 dev eth0
	$ip -n "$1-clients" address add 10.0.0.2/24 dev eth0
	$ip -n "$1" link set eth0 up
	$ip -n "$1-clients" link set eth0 up
	$tc -n "$1" qdisc add dev eth0 root netem limit 10000 delay "$2"
	$tc -n "$1-clients" qdisc add dev eth0 root netem limit 10000 delay "$2" slot $3
	# Windows large enough, and each flow begins as the first one did.
	$ip netns exec "$1" sh -c 'echo 4096 4194304 16777216 > /proc/sys/net/ipv4/tcp_wmem; echo 1 > /proc/sys/net/ipv4/tcp_no_metrics_save'
	$ip netns exec "$1-clients" sh -c 'echo 4096 16777216 16777216 > /proc/sys/net/ipv4/tcp_rmem'
	cat > "/tmp/$1.conf" <<- END
		daemon off;
		master_process off;
		user root root;
		pid /tmp/$1.pid;
		error_log stderr;
		events { }
		http {
			access_log off;
			sendfile on;
			tcp_nopush on;
			server { listen 80; root /www; }
		}
	END
	$ip netns exec "$1" /usr/sbin/nginx -e stderr -c "/tmp/$1.conf" >&2 &
	until [ -s "/tmp/$1.pid" ]; do
		kill -0 $!
		sleep 0.1
	done
}

# SITE FLOWS TIMES: microseconds for each file
fetch() { $ip netns exec "$1-clients" /case/fetch 10.0.0.1 /file "$2" "$3"; }

# SITE: the kernel's own count of flows that left slow start because of a delay
exits() {
	$ip netns exec "$1" awk '
		/^TcpExt:/ && !names { names = split($0, name); next }
		/^TcpExt:/ { for (i = 1; i <= names; i++) if (name[i] == "TCPHystartDelayDetect") print $i }
	' /proc/net/netstat
}

# FILE: the median of its numbers, in milliseconds
median() { sort -n "$1" | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] / 1000 }'; }

# The first flow after a switch is slower in an emulator, which translates the code anew, and is not counted.
measure() {
	fetch far 1 1 > /dev/null
	far=$(exits far)
	near=$(exits near)
	fetch near 1 8 > /tmp/near &
	fetch far 3 4 > /tmp/far
	wait $!
	echo "figure far-exits-by-delay $1 $(($(exits far) - far))"
	echo "figure far-completion-median $1 $(median /tmp/far)"
	echo "figure near-exits-by-delay $1 $(($(exits near) - near))"
	echo "figure near-completion-median $1 $(median /tmp/near)"
}

site near 10ms "500us 6500us"
site far 40ms "2ms 26ms"
for round in 1 2 3 4; do
	measure stock
	kerf policy load /case/tcp-hystart-by-rtt.o >&2
	measure tuned
	[ $round -lt 4 ] || echo "status $(kerf status --json | tr -d '\n')"
	kerf policy unload tcp-hystart-by-rtt >&2
done
