//! `kerf measure` against known answers: a loop in a module, code that is patched, and patterns that a cache holds or does not.

use std::path::Path;
use std::process::{Command, Stdio};

use kerf_lab::{Cache, Quiet};
use serde_json::Value;

/// Rounds of the module's loop, and calls of the function that is patched: an odd number is with its branch switched.
const ROUNDS: u64 = 1_000_000;
const CALLS: [u64; 2] = [2000, 2001];

const SCRIPT: &str = "set -e
    cd /sys/module/kerf_known/parameters
    mark() { kerf measure mark \"$@\"; }
    mark begin loop; echo 1000000 > loop; mark end
    mark begin stock; echo 2000 > patched; mark end
    mark begin patched; echo 2001 > patched; mark end
    /pattern
    echo done; exit 5";

fn source() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/measure"))
}

/// What `kerf measure --json` says of the script.
fn measured(directory: &Path) -> Value {
    let kernel = kerf_lab::kernel(&Cache::open_default().expect("a cache"), &mut Quiet).expect("a kernel");
    let module = kerf_lab::module::build(&kernel, &source().join("module"), directory).expect("it builds");
    let pattern = directory.join("pattern");
    let gcc = Command::new("gcc").args(["-static", "-O1", "-o"]).arg(&pattern).arg(source().join("pattern.c")).status();
    assert!(gcc.is_ok_and(|status| status.success()));
    let mut kerf = Command::new(env!("CARGO_BIN_EXE_kerf"));
    kerf.args(["measure", "--model", "--per-function", "--json", "--output"]).arg(directory.join("all.json"));
    kerf.arg("--module").arg(&module).arg("--file").arg(format!("{}:/pattern", pattern.display()));
    let output = kerf.args(["--", "sh", "-c", SCRIPT]).stdin(Stdio::null()).output().expect("kerf starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(5), "the command's own exit code: {err}\n{out}");
    serde_json::from_str(&out).expect("one JSON object")
}

/// The interval of this name.
fn interval<'a>(measured: &'a Value, name: &str) -> &'a Value {
    let intervals = measured["intervals"].as_array().expect("intervals");
    intervals.iter().find(|interval| interval["name"] == name).unwrap_or_else(|| panic!("{name} is missing"))
}

/// Counts of a function of the module, in the order of `members`.
fn function(interval: &Value, name: &str, members: &[&str]) -> Vec<u64> {
    let functions = interval["functions"].as_array().expect("functions");
    let found = functions.iter().find(|function| function["name"] == name && function["module"] == "kerf_known");
    let found = found.unwrap_or_else(|| panic!("{name} is missing in {functions:?}"));
    members.iter().map(|member| found[*member].as_u64().expect("a number")).collect()
}

#[test]
fn known_answers() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let measured = measured(directory.path());
    assert_eq!(measured["stdout"], "done\n");
    // One instruction before the rounds of two, one behind; each round ends a block, the last one does not go back.
    let members = ["instructions", "blocks", "taken", "edges"];
    let counts = function(interval(&measured, "loop"), "kerf_known_loop", &members);
    assert_eq!(counts, [2 * ROUNDS + 2, ROUNDS + 1, ROUNDS, 3], "{members:?}");
    patched(&measured);
    patterns(&measured);
    let all: Value = serde_json::from_slice(&std::fs::read(directory.path().join("all.json")).expect("the file"))
        .expect("it is JSON");
    let loops = &interval(&all, "loop")["functions"].as_array().expect("functions")[0];
    assert_eq!(loops["name"], "kerf_known_loop", "the one with the most instructions");
    let back = loops["to"].as_array().expect("edges").iter().find(|edge| edge["count"] == ROUNDS - 1);
    assert!(back.is_some_and(|edge| edge["function"] == "kerf_known_loop [kerf_known]"), "{loops}");
}

/// The same function, two codes at the same addresses, each counted as it was.
fn patched(measured: &Value) {
    let count = |name, calls: u64| {
        let all = function(interval(measured, name), "kerf_known_patched", &["instructions"])[0];
        assert_eq!(all % calls, 0, "{name}: {all} instructions in {calls} calls");
        all / calls
    };
    let (stock, patched) = (count("stock", CALLS[0]), count("patched", CALLS[1]));
    // The branch leads over five instructions, and one back; before, a no-op stands in the branch's place.
    assert_eq!(patched, stock + 6);
}

/// What twelve ways of 64 sets hold, and what they do not.
fn patterns(measured: &Value) {
    let user = |name| {
        let counts = &interval(measured, name)["user"];
        ["instructions", "l1d", "l2"].map(|member| counts[member].as_u64().expect("a number"))
    };
    let instructions = |count: u64, rounds: u64| rounds * (4 * count + 4);
    // Every line of a walk through more than fits is missed each time; an interrupt can take a line away but bring none.
    let [all, l1d, l2] = user("a");
    assert_eq!((all, l1d), (instructions(16384, 4), 4 * 16384), "1 MiB");
    assert!(l2 < 16384, "1 MiB fits the second level: {l2}");
    let [all, l1d, _] = user("c");
    assert_eq!((all, l1d), (instructions(13, 1000), 13_000), "thirteen lines of a set");
    // Nothing is missed but what an interrupt has taken away.
    for (name, count, rounds) in [("b", 256, 100), ("d", 12, 1000)] {
        let [all, l1d, _] = user(name);
        assert_eq!(all, instructions(count, rounds), "{name}");
        assert!(l1d < count * rounds / 50, "{name}: {l1d} misses of {}", count * rounds);
    }
}
