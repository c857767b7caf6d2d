//! What `kerf policy` says and how it ends, on the host and on the kernel.

use std::fs;

use crate::common::{self, Words, kerf, script, text};
use crate::{baggage, fixture, run};

/// A policy around a body.
fn policy(constant: &str, arguments: &str, body: &str) -> String {
    format!(
        "#include \"vmlinux.h\"\n#include \"kerf.bpf.h\"\nXK_TUNE(p, \"{constant}\"{arguments})\n{{\n{body}\nreturn 0;\n}}\n\
         char LICENSE[] SEC(\"license\") = \"GPL\";\n"
    )
}

#[test]
fn what_cannot_be_loaded_is_refused_before_it_is_tried() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let gone = "sample` is not held anywhere at cubictcp_acked+0x";
    for (name, source, code, words) in [
        ("compile", policy("BLK_MAX_REQUEST_COUNT", "", "xk_set(xk_ctx, nothing);"), 17, "compile.bpf.c:5:16: error:"),
        ("unknown", policy("BLK_MAX_REQUEST_COUNTS", "", ""), 13, "did you mean BLK_MAX_REQUEST_COUNT?"),
        ("class", policy("IO_ALLOC_CACHE_MAX", "", ""), 12, "IO_ALLOC_CACHE_MAX"),
        (
            "gone",
            policy("HYSTART_DELAY_MAX", ", void *sk, void *sample", "if (sample) xk_set(xk_ctx, 9000);"),
            17,
            gone,
        ),
        ("none", "int x;".to_owned(), 17, "it has no XK_TUNE"),
    ] {
        let file = dir.path().join(format!("{name}.bpf.c"));
        fs::write(&file, source).expect("it can be written");
        let output = kerf()
            .args(["policy", "check"])
            .arg(&file)
            .arg("--table")
            .arg(&baggage().table)
            .output()
            .expect("kerf starts");
        let said = text(&output.stderr);
        assert!(said.starts_with("kerf: failed to check ") && said.contains(words), "{name}:\n{said}");
        assert_eq!(output.status.code(), Some(code), "{name}:\n{said}");
    }
}

/// Commands, their exit codes, and words of what they say.
const WORDS: Words = &[
    ("kerf policy load /policies/chosen.o --dry-run", 0, "decided by chosen, 2 places (dry run: nothing was changed)"),
    ("kerf status", 0, "nothing is set"),
    ("kerf policy load /policies/chosen.o", 0, "BLK_MAX_REQUEST_COUNT: decided by chosen, 2 places"),
    ("kerf status", 0, "BLK_MAX_REQUEST_COUNT: chosen was asked "),
    ("kerf policy load /policies/wild.o", 24, "BLK_MAX_REQUEST_COUNT is held by the policy chosen"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 4", 24, "BLK_MAX_REQUEST_COUNT is held by the policy chosen"),
    ("kerf policy load /policies/wild.o --replace nobody", 28, "the policy nobody is not loaded"),
    ("kerf policy load /policies/wild.o --limit SHRINK_BATCH=1..2", 10, "this policy does not decide it"),
    ("kerf policy load /policies/wild.o --replace chosen", 0, "BLK_MAX_REQUEST_COUNT: decided by wild, 2 places"),
    ("kerf policy unload chosen", 28, "the policy chosen is not loaded"),
    ("kerf module unload", 21, "unset every entry first"),
    ("kerf policy unload wild.bpf.c", 0, "BLK_MAX_REQUEST_COUNT: stock"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 4", 0, "32 → 4"),
    ("kerf policy load /policies/wild.o", 24, "BLK_MAX_REQUEST_COUNT"),
    ("kerf policy load /policies/wild.o --replace", 0, "decided by wild, 2 places"),
    ("kerf policy load /policies/chosen.o --replace wild --mode task", 0, "switched task by task in "),
    ("kerf policy load /policies/wild.o --replace chosen --mode global --timeout 20", 0, "switched globally in "),
    ("kerf policy unload wild --mode task --timeout 20", 0, "switched task by task in "),
    ("kerf policy load /policies/chosen.o --mode global", 0, "switched globally in "),
    ("kerf policy load /policies/wild.o --replace chosen --mode immediate", 0, "switched for everybody at once in "),
    ("kerf const unset --all", 0, "BLK_MAX_REQUEST_COUNT: stock"),
    ("kerf status", 0, "nothing is set"),
    ("kerf module unload", 0, "unloaded"),
    ("kerf policy load /policies/wild.o", 21, "kerf: try: kerf module load"),
];

#[test]
fn every_word_says_what_it_did() {
    let sources = [fixture("chosen.bpf.c"), fixture("wild.bpf.c")];
    let output = run(&["--module", "null_blk"], &sources, &[], &script(WORDS));
    common::check(WORDS, &output);
}
