// SPDX-License-Identifier: GPL-2.0-only
/*
 * A helper of BPF that comes to BLK_MAX_REQUEST_COUNT: whenever bpf_get_current_comm is called, a plug is started, for more
 * requests than a policy allows and fewer than the stock limit. How many were allowed is counted in /sys/module/nested.
 */
#include <linux/blkdev.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/sched.h>

static unsigned long at;	/* blk_start_plug_nr_ios */
module_param(at, ulong, 0);
static unsigned long eight, others;
module_param(eight, ulong, 0444);
module_param(others, ulong, 0444);

static int called(struct kprobe *probe, struct pt_regs *regs)
{
	void (*start)(struct blk_plug *plug, unsigned short requests) = (void *)at;
	struct blk_plug *outer = current->plug;
	struct blk_plug plug;

	current->plug = NULL;
	start(&plug, 8);
	current->plug = outer;
	if (plug.nr_ios == 8)
		eight++;
	else
		others++;
	return 0;
}

static struct kprobe probe = { .symbol_name = "bpf_get_current_comm", .pre_handler = called };

static int __init nested_init(void)
{
	return register_kprobe(&probe);
}

static void __exit nested_exit(void)
{
	unregister_kprobe(&probe);
}

module_init(nested_init);
module_exit(nested_exit);
MODULE_DESCRIPTION("brings a BPF helper to a constant");
MODULE_LICENSE("GPL");
