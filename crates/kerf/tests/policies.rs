//! Policies on the stock kernel in a virtual machine: they decide as written, and whatever they try, nothing else happens.

mod common;
#[path = "policies/costs.rs"]
mod costs;
#[path = "policies/decisions.rs"]
mod decisions;
#[path = "policies/expressions.rs"]
mod expressions;
#[path = "policies/hostile.rs"]
mod hostile;
#[path = "policies/words.rs"]
mod words;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use common::{done, kerf};
use serde_json::Value;

/// A shift count of TCP CUBIC that has no name, as its policy writes it.
const SHIFT: &str = "net/ipv4/tcp_cubic.c:L439:3:0";

/// What the guests take along, made once.
struct Baggage {
    dir: tempfile::TempDir,
    table: PathBuf,
    module: PathBuf,
}

fn baggage() -> &'static Baggage {
    static BAGGAGE: OnceLock<Baggage> = OnceLock::new();
    BAGGAGE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let names = [
            "BLK_MAX_REQUEST_COUNT",
            "SHRINK_BATCH",
            "IO_ALLOC_CACHE_MAX",
            "HYSTART_DELAY_MIN",
            "HYSTART_DELAY_MAX",
            SHIFT,
        ];
        let (table, module) = (common::table(dir.path(), &names), common::module(dir.path()));
        for program in ["text", "hinted", "delay"] {
            compile_program(&fixture(&format!("{program}.c")), &dir.path().join(program));
        }
        let submit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kerf-live/tests/fixtures/submit.c");
        compile_program(&submit, &dir.path().join("submit"));
        Baggage { dir, table, module }
    })
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policies").join(name)
}

/// One of the example policies.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies").join(name).join(format!("{name}.bpf.c"))
}

fn compile_program(source: &Path, program: &Path) {
    let built =
        Command::new("gcc").args(["-Wall", "-Werror", "-static", "-O1", "-o"]).arg(program).arg(source).status();
    assert!(built.expect("gcc starts").success(), "{}", source.display());
}

/// Compiles policies with `kerf policy check` into a directory.
fn compile(sources: &[PathBuf], directory: &Path) {
    for source in sources {
        let name = source.file_name().expect("a file").to_string_lossy().replace(".bpf.c", ".o");
        let mut check = kerf();
        check.args(["policy", "check"]).arg(source).arg("-o").arg(directory.join(name));
        done(&check.arg("--table").arg(&baggage().table).output().expect("kerf starts"));
    }
}

/// Runs a script, with the tools that it sources, in a guest with these policies as objects in /policies, and more files.
fn run(options: &[&str], sources: &[PathBuf], files: &[(&Path, &str)], script: &str) -> String {
    let (baggage, objects) = (baggage(), tempfile::tempdir().expect("a temporary directory"));
    compile(sources, objects.path());
    let own = ["text", "hinted", "delay", "submit"].map(|name| (baggage.dir.path().join(name), format!("/{name}")));
    let mut all: Vec<(&Path, &str)> = own.iter().map(|(host, guest)| (host.as_path(), guest.as_str())).collect();
    let tools = fixture("tools.sh");
    all.extend([(baggage.table.as_path(), "/var/lib/kerf/scope.db"), (&baggage.module, "/kerf.ko")]);
    all.extend([(objects.path(), "/policies"), (&tools, "/tools")]);
    all.extend(files);
    common::run(options, &all, &format!("{}. /tools\n{script}", common::PRELUDE))
}

/// What stands behind the two first words of a line of the output.
#[track_caller]
fn line<'a>(output: &'a str, word: &str, label: &str) -> &'a str {
    let found = output.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.strip_prefix(label));
    found.unwrap_or_else(|| panic!("there is no `{word} {label}`:\n{output}")).trim()
}

/// The sizes of batches and how many there were of each.
#[track_caller]
fn batches(output: &str, label: &str) -> Vec<(u32, u32)> {
    let pair = |word: &str| {
        let (size, number) = word.split_once('x')?;
        Some((size.parse().ok()?, number.parse().ok()?))
    };
    let words = line(output, "batches", label).split_whitespace();
    let batches: Vec<(u32, u32)> = words.map(|word| pair(word).expect("a size and a number")).collect();
    let sum: u32 = batches.iter().map(|(size, number)| size * number).sum();
    assert_eq!(sum % 256, 0, "no request is lost: {batches:?}");
    batches
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    hits: u64,
    decided: u64,
    kept: u64,
    refused: u64,
    missed: u64,
}

/// The counts of a constant's policy, which must add up.
#[track_caller]
fn counts(output: &str, label: &str, constant: &str) -> Counts {
    let status: Value = serde_json::from_str(line(output, "status", label)).expect("JSON");
    let entries = status["entries"].as_array().expect("an array");
    let entry = entries.iter().find(|e| e["id"] == constant).unwrap_or_else(|| panic!("{constant}: {status:#}"));
    assert_eq!(entry["placement"], "decided", "{status:#}");
    let count = |name: &str| entry["policy"][name].as_u64().unwrap_or_else(|| panic!("{name}: {status:#}"));
    let [hits, decided, kept, refused, missed] = ["hits", "decided", "kept", "refused", "missed"].map(count);
    assert_eq!(hits, decided + kept + refused + missed, "{status:#}");
    Counts { hits, decided, kept, refused, missed }
}

/// A copy of a policy with other words in it.
fn with_words(source: &Path, name: &str, from: &str, to: &str) -> PathBuf {
    let text = fs::read_to_string(source).expect("a policy");
    assert!(text.contains(from), "{}: no {from}", source.display());
    let copy = baggage().dir.path().join(format!("{name}.bpf.c"));
    fs::write(&copy, text.replace(from, to)).expect("it can be written");
    copy
}
