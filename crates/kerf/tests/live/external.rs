//! A module that is not in the kernel's tree: its constants are built from its own source, and set whenever it is loaded.

use std::fs;
use std::path::Path;

use crate::common::{self, PRELUDE, Words, done, kerf, kernel, script};

/// A module with a limit, and a parameter that passes it.
const GATE: &str = r#"
#include <linux/module.h>
#define GATE_LIMIT 10
static noinline int passed(int wanted)
{
	return wanted > GATE_LIMIT ? GATE_LIMIT : wanted;
}
static int get(char *buffer, const struct kernel_param *kp)
{
	return sprintf(buffer, "%d\n", passed(READ_ONCE(*(int *)kp->arg)));
}
static int wanted = 100;
static const struct kernel_param_ops ops = { .get = get };
module_param_cb(passed, &ops, &wanted, 0444);
MODULE_DESCRIPTION("lets some of a hundred pass");
MODULE_LICENSE("GPL");
"#;

const WORDS: Words = &[
    ("kerf apply", 0, "waits until the module gate is loaded"),
    ("insmod /gate.ko", 0, ""),
    ("cat /sys/module/gate/parameters/passed", 0, "10"),
    ("kerf apply --module other", 0, "no file says that anything is to be set"),
    ("kerf apply --module gate", 0, "GATE_LIMIT: 10 → 25"),
    ("cat /sys/module/gate/parameters/passed", 0, "25"),
    ("kerf verify", 0, ""),
    ("rmmod gate", 0, ""),
    ("kerf verify", 32, "GATE_LIMIT"),
    ("insmod /gate.ko", 0, ""),
    ("cat /sys/module/gate/parameters/passed", 0, "10"),
    ("kerf apply --module gate", 0, "GATE_LIMIT: 10 → 25"),
    ("cat /sys/module/gate/parameters/passed", 0, "25"),
    ("kerf const set GATE_LIMIT 40", 0, "GATE_LIMIT: 25 → 40"),
    ("cat /sys/module/gate/parameters/passed", 0, "40"),
    ("kerf const unset GATE_LIMIT", 0, "GATE_LIMIT: stock"),
    ("cat /sys/module/gate/parameters/passed", 0, "10"),
];

/// Its source, built, and a table with its constant.
fn make(dir: &Path) {
    let source = dir.join("gate");
    fs::create_dir(&source).expect("a directory");
    fs::write(source.join("gate.c"), GATE).expect("it can be written");
    fs::write(source.join("Kbuild"), "obj-m := gate.o\n").expect("it can be written");
    kerf_lab::module::build(&kernel(), &source, &source.join("gate.ko")).expect("the module builds");
    let mut build = kerf();
    build.args(["const", "build", "GATE_LIMIT", "--external"]).arg(&source);
    build.arg("--image").arg(kernel().vmlinuz).arg("--table").arg(dir.join("scope.db"));
    let said = done(&build.output().expect("kerf starts"));
    assert!(said.contains("GATE_LIMIT = 10: proved"), "{said}");
}

#[test]
fn constants_of_a_module_out_of_the_tree_are_set_when_it_is_loaded() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    make(dir.path());
    fs::write(dir.path().join("gate.toml"), "[const]\nGATE_LIMIT = 25\n").expect("it can be written");
    let (table, module, gate) =
        (dir.path().join("scope.db"), common::module(dir.path()), dir.path().join("gate/gate.ko"));
    let drop_in = dir.path().join("gate.toml");
    let files: [(&Path, &str); 4] = [
        (&table, "/var/lib/kerf/scope.db"),
        (&module, "/kerf.ko"),
        (&gate, "/gate.ko"),
        (&drop_in, "/etc/kerf.d/gate.toml"),
    ];
    let said = common::run(&[], &files, &format!("{PRELUDE}kerf module load /kerf.ko > /dev/null\n{}", script(WORDS)));
    common::check(WORDS, &said);
}
