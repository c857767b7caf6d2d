/* delay INTERFACE MILLISECONDS: packets that leave through it wait so long (netem), in the place of an earlier delay. Static. */
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct {
	struct nlmsghdr head;
	struct tcmsg tc;
	char room[256];
} message;

static void *add(unsigned short type, const void *data, size_t size)
{
	struct rtattr *attribute = (void *)((char *)&message + NLMSG_ALIGN(message.head.nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = RTA_LENGTH(size);
	memcpy(RTA_DATA(attribute), data, size);
	message.head.nlmsg_len = NLMSG_ALIGN(message.head.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
	return attribute;
}

int main(int argc, char **argv)
{
	int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	struct tc_netem_qopt netem = { .limit = 100000 };
	struct { struct nlmsghdr head; struct nlmsgerr error; } answer;
	struct rtattr *options;
	long long ns;

	if (argc != 3 || s < 0)
		return 2;
	message.head.nlmsg_len = NLMSG_LENGTH(sizeof(message.tc));
	message.head.nlmsg_type = RTM_NEWQDISC;
	message.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
	message.tc.tcm_ifindex = if_nametoindex(argv[1]);
	message.tc.tcm_parent = TC_H_ROOT;
	message.tc.tcm_handle = 0x10000;
	add(TCA_KIND, "netem", sizeof("netem"));
	options = add(TCA_OPTIONS, &netem, sizeof(netem));
	ns = atoll(argv[2]) * 1000000;
	add(TCA_NETEM_LATENCY64, &ns, sizeof(ns));
	options->rta_len = (char *)&message + message.head.nlmsg_len - (char *)options;
	if (send(s, &message, message.head.nlmsg_len, 0) < 0 || recv(s, &answer, sizeof(answer), 0) < 0)
		return 1;
	if (answer.error.error)
		fprintf(stderr, "delay: %s\n", strerror(-answer.error.error));
	return answer.error.error != 0;
}
