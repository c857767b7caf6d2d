// SPDX-License-Identifier: GPL-2.0-only
/* Replaces kerf_test_top() in kerf_test.ko by one that does the same: what a switch of its constant is measured against. */
#include <linux/livepatch.h>
#include <linux/module.h>

static u64 (*deeper)(u32 how, u32 levels);

static u64 replaced_top(u32 how, u32 levels)
{
	u64 both = deeper(how, levels);

	barrier();
	return both;
}

static struct klp_func funcs[] = {
	{ .old_name = "kerf_test_top", .new_func = replaced_top },
	{ }
};

static struct klp_object objects[] = {
	{ .name = "kerf_test", .funcs = funcs },
	{ }
};

static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects };

static int __init patch_init(void)
{
	int err;

	deeper = (void *)__symbol_get("kerf_test_deeper");
	if (!deeper)
		return -ENOENT;
	err = klp_enable_patch(&patch);
	if (err)
		__symbol_put("kerf_test_deeper");
	return err;
}

static void __exit patch_exit(void)
{
	__symbol_put("kerf_test_deeper");
}

module_init(patch_init);
module_exit(patch_exit);
MODULE_DESCRIPTION("A livepatch for the measurements of kerf.ko");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
