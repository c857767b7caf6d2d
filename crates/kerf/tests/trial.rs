//! `kerf try` on the stock kernel in a virtual machine: it finds what is there, finds nothing where nothing is, and leaves the kernel
//! as it was.

#[expect(dead_code, reason = "other tests need more of it")]
mod common;
#[path = "trial/ends.rs"]
mod ends;
#[path = "trial/workloads.rs"]
mod workloads;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// What is done in the machine, in this order; each step has a name.
fn steps() -> Vec<(&'static str, String)> {
    let head = [("load", "insmod /kerf.ko"), ("scheduler", "scheduler"), ("text before", "text")];
    let steps = head.iter().chain(workloads::STEPS).chain(ends::STEPS);
    steps.map(|(name, line)| (*name, (*line).to_string())).collect()
}

/// What a step said, and its exit code.
#[derive(Clone, Debug)]
struct Said {
    text: String,
    code: i32,
}

/// The machine runs once for all tests.
#[track_caller]
fn said(name: &str) -> Said {
    static SAID: OnceLock<Vec<(&'static str, Said)>> = OnceLock::new();
    let all = SAID.get_or_init(run);
    all.iter().find(|(step, _)| *step == name).unwrap_or_else(|| panic!("no step is called {name}")).1.clone()
}

/// The JSON that a step printed.
#[track_caller]
fn object(name: &str) -> Value {
    let said = said(name);
    assert_eq!(said.code, 0, "{name}: {}", said.text);
    serde_json::from_str(&said.text).unwrap_or_else(|error| panic!("{name}: {error}:\n{}", said.text))
}

fn run() -> Vec<(&'static str, Said)> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let table = common::table(dir.path(), &["BLK_MAX_REQUEST_COUNT", "MAX_SOFTIRQ_RESTART"]);
    let module = common::module(dir.path());
    let io = program(&tests.join("trial/io.c"), dir.path());
    let text = program(&tests.join("policies/text.c"), dir.path());
    let metrics = tests.join("trial/metrics.sh");
    let files: [(&Path, &str); 5] = [
        (&table, "/var/lib/kerf/scope.db"),
        (&module, "/kerf.ko"),
        (&io, "/io"),
        (&text, "/text"),
        (&metrics, "/metrics"),
    ];
    let steps = steps();
    let lines: String = steps.iter().map(|(_, line)| format!("t {line}\n")).collect();
    let options = ["--timeout", "600", "--module", "null_blk submit_queues=1 hw_queue_depth=256 max_sectors=2560"];
    let output = common::run(&options, &files, &format!("{}. /metrics\n{lines}", common::PRELUDE));
    let said = common::blocks(&output);
    assert_eq!(said.len(), steps.len(), "{output}");
    steps.into_iter().zip(said).map(|((name, _), (_, text, code))| (name, Said { text, code })).collect()
}

/// Compiles a program that needs no libraries.
fn program(source: &Path, dir: &Path) -> PathBuf {
    let program = dir.join(source.file_stem().expect("a name"));
    let mut gcc = Command::new("gcc");
    gcc.args(["-Wall", "-Werror", "-static", "-O1", "-o"]).arg(&program).arg(source);
    assert!(gcc.status().expect("gcc starts").success(), "{}", source.display());
    program
}
