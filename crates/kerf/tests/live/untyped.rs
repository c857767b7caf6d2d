//! A kernel without type information (BTF): refused with its reason, and nothing is left of the attempt.

use crate::check;
use crate::common::{Words, script, small_module};

/// Takes the kernel's types away while it is loaded, as if they had never been found.
const UNTYPED: &str = r#"
#include <linux/err.h>
#include <linux/module.h>
static unsigned long at;
module_param(at, ulong, 0);
static void *types;
static int __init untyped_init(void)
{
	types = xchg((void **)at, ERR_PTR(-ENOENT));
	return 0;
}
static void __exit untyped_exit(void)
{
	xchg((void **)at, types);
}
module_init(untyped_init);
module_exit(untyped_exit);
MODULE_DESCRIPTION("hides the kernel's types");
MODULE_LICENSE("GPL");
"#;

/// Commands, their exit codes, and words of what they say.
const WORDS: Words = &[
    // The file is hidden and the kernel has no types: this is what CONFIG_DEBUG_INFO_BTF=n looks like.
    ("mount -t tmpfs none /sys/kernel/btf", 0, ""),
    ("take_types", 0, ""),
    ("kerf doctor", 31, "missing  types (BTF)              /sys/kernel/btf/vmlinux is not there"),
    ("kerf module load /kerf.ko", 21, "the kernel has no types (BTF): boot one with CONFIG_DEBUG_INFO_BTF=y"),
    ("kerf const set SHRINK_BATCH 16", 21, "kerf: try: kerf module load"),
    ("kerf status", 0, "no module loaded: everything is stock"),
    ("grep -c ^kerf /proc/modules", 1, "0"),
    ("ls /dev/kerf", 1, "No such file"),
    // Only the file is hidden: the module asks the kernel.
    ("rmmod untyped", 0, ""),
    ("kerf module load /kerf.ko", 0, "loaded /kerf.ko"),
    ("kerf const set SHRINK_BATCH 16", 0, "SHRINK_BATCH: 128 → 16 (immediate, 1 location)"),
    ("kerf doctor", 0, "for build   → boot a kernel with CONFIG_DEBUG_INFO_BTF=y"),
    ("kerf status", 0, "every value is in force at all its locations"),
    ("kerf const unset SHRINK_BATCH", 0, "SHRINK_BATCH: stock"),
];

#[test]
fn a_kernel_without_types_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = format!("{}:/untyped.ko", small_module(dir.path(), "untyped", UNTYPED).display());
    let take = "take_types() { insmod /untyped.ko at=0x$(awk '$3 == \"btf_vmlinux\" { print $1 }' /proc/kallsyms); }\n";
    check(WORDS, &["--file", &place], &format!("{take}{}", script(WORDS)));
}
