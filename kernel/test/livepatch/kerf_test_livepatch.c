// SPDX-License-Identifier: GPL-2.0-only
/* Replaces kerf_test_limit() in kerf_test.ko: the foreign owner that the tests of kerf.ko need. */
#include <linux/livepatch.h>
#include <linux/module.h>

static u32 replaced_limit(u32 x)
{
	return x + 1000;
}

static struct klp_func funcs[] = {
	{ .old_name = "kerf_test_limit", .new_func = replaced_limit },
	{ }
};

static struct klp_object objects[] = {
	{ .name = "kerf_test", .funcs = funcs },
	{ }
};

static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects };

static int __init patch_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit patch_exit(void)
{
}

module_init(patch_init);
module_exit(patch_exit);
MODULE_DESCRIPTION("A livepatch for the tests of kerf.ko");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
