// SPDX-License-Identifier: GPL-2.0-only
/*
 * TCP CUBIC leaves slow start when the round-trip time has grown by an eighth, at least 4 and at most 16 ms. Long flows may
 * grow by a half, at least 8 and at most 32 ms.
 */
#include "vmlinux.h"
#include "kerf.bpf.h"

#define LONG 40000	/* us */

/* Is the flow's round-trip time, the least of all so far, a long one? */
static __always_inline bool is_long(const void *sk)
{
	const struct inet_connection_sock *icsk = sk;
	const struct bictcp *ca = (const void *)&icsk->icsk_ca_priv;

	return BPF_CORE_READ(ca, delay_min) >= LONG;
}

/* delay_min >> 3 */
XK_TUNE(share, "net/ipv4/tcp_cubic.c:L439:3:0", struct sock *sk)
{
	if (!xk_transition_done(xk_ctx))
		return 0;
	if (is_long(sk))
		xk_set(xk_ctx, 1);
	return 0;
}

XK_TUNE(least, "HYSTART_DELAY_MIN", struct sock *sk)
{
	if (!xk_transition_done(xk_ctx))
		return 0;
	if (is_long(sk))
		xk_set(xk_ctx, 8000);
	return 0;
}

XK_TUNE(most, "HYSTART_DELAY_MAX", struct sock *sk)
{
	if (!xk_transition_done(xk_ctx))
		return 0;
	if (is_long(sk))
		xk_set(xk_ctx, 32000);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
