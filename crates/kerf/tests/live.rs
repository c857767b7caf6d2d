//! `kerf const set` on the stock kernel in a virtual machine: every word, every refusal, a sudden death, and the effects.

#[path = "live/effects.rs"]
mod effects;
#[path = "live/external.rs"]
mod external;
#[path = "live/files.rs"]
mod files;
#[path = "live/untyped.rs"]
mod untyped;

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{PRELUDE, Words, blocks, script};

/// What the guests take along, made once.
struct Baggage {
    _dir: tempfile::TempDir,
    table: PathBuf,
    module: PathBuf,
    foreign: PathBuf,
}

fn baggage() -> &'static Baggage {
    static BAGGAGE: OnceLock<Baggage> = OnceLock::new();
    BAGGAGE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let table = common::table(
            dir.path(),
            &["BLK_MAX_REQUEST_COUNT", "MAX_SOFTIRQ_RESTART", "SHRINK_BATCH", "BLK_MQ_CPU_WORK_BATCH"],
        );
        let module = common::module(dir.path());
        let foreign = foreign_module(dir.path());
        Baggage { _dir: dir, table, module, foreign }
    })
}

/// The module as another version of this program would have it.
fn foreign_module(dir: &Path) -> PathBuf {
    let copy = dir.join("foreign");
    fs::create_dir(&copy).expect("a directory");
    for file in fs::read_dir(common::source()).expect("the module's source").flatten().filter(|f| f.path().is_file()) {
        let content = fs::read_to_string(file.path()).expect("a source file");
        let changed = match content.lines().find(|line| line.starts_with("#define KERF_PROTOCOL")) {
            Some(line) => content.replace(line, "#define KERF_PROTOCOL 4711"),
            None => content,
        };
        fs::write(copy.join(file.file_name()), changed).expect("it can be written");
    }
    let module = dir.join("foreign.ko");
    kerf_lab::module::build(&common::kernel(), &copy, &module).expect("the foreign module builds");
    module
}

/// Runs a script in a guest that is described by more options of `kerf lab run`, and gives its output.
fn run(options: &[&str], script: &str) -> String {
    let baggage = baggage();
    let files: [(&Path, &str); 3] =
        [(&baggage.table, "/var/lib/kerf/scope.db"), (&baggage.module, "/kerf.ko"), (&baggage.foreign, "/foreign.ko")];
    common::run(options, &files, script)
}

/// Runs a script in a guest; its output in blocks, each headed `## COMMAND` and ended by the exit code.
fn guest(options: &[&str], script: &str) -> Vec<(String, String, i32)> {
    blocks(&run(options, &format!("{PRELUDE}{script}")))
}

/// Commands, their exit codes, and words of what they say.
const WORDS: Words = &[
    ("kerf status", 0, "no module loaded: everything is stock"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 4", 21, "kerf: try: kerf module load"),
    ("insmod /foreign.ko", 0, ""),
    ("kerf const set BLK_MAX_REQUEST_COUNT 4", 22, "of another build (protocol 4711"),
    ("kerf module load /kerf.ko", 22, "of another build"),
    ("kerf module unload", 0, "unloaded"),
    ("kerf module load", 21, "no kernel headers"),
    ("kerf module load /kerf.ko", 0, "loaded /kerf.ko"),
    ("kerf module load", 0, "loaded already"),
    ("kerf status", 0, "nothing is set: everything is stock"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 4 --dry-run", 0, "32 → 4 (immediate, 3 locations) (dry run"),
    ("kerf status", 0, "nothing is set"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 4", 0, "BLK_MAX_REQUEST_COUNT: 32 → 4 (immediate, 3 locations)"),
    ("kerf status", 0, "every value is in force at all its locations"),
    ("kerf const list", 0, "BLK_MAX_REQUEST_COUNT  32     4"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 0x10", 0, "BLK_MAX_REQUEST_COUNT: 4 → 16"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 8 --placement detour", 0, "16 → 8 (detour, 2 locations)"),
    ("kerf status", 0, "detour     2 of 2"),
    ("kerf const set BLK_MAX_REQUEST_COUNT@1 -4", 24, "owned by entry BLK_MAX_REQUEST_COUNT"),
    ("kerf const set BLK_MAX_REQUEST_COUNT=9 MAX_SOFTIRQ_RESTART=20", 0, "MAX_SOFTIRQ_RESTART: 10 → 20"),
    ("kerf const set BLK_MAX_REQUEST_COUNT=5 MAX_SOFTIRQ_RESTAR=11", 13, "did you mean MAX_SOFTIRQ_RESTART?"),
    ("kerf const set BLK_MAX_REQUEST_COUNT=5 BLK_MAX_REQUEST_COUNT=6", 10, "named twice"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 1G", 11, "certified are the values"),
    ("kerf const set BLK_MAX_REQUEST_COUNT many", 10, "names no constant"),
    ("kerf module unload", 21, "unset every entry first"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 32", 0, "BLK_MAX_REQUEST_COUNT: 9 → 32 (stock)"),
    ("kerf const unset BLK_MAX_REQUEST_COUNT", 28, "set are MAX_SOFTIRQ_RESTART"),
    ("kerf const unset kernel/softirq.c:L501", 0, "MAX_SOFTIRQ_RESTART: stock"),
    ("kerf const set MAX_SOFTIRQ_RESTART@0 20", 0, "MAX_SOFTIRQ_RESTART@0: 10 → 20"),
    ("kerf const unset --all", 0, "MAX_SOFTIRQ_RESTART@0: stock"),
    ("kerf status", 0, "nothing is set"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 4 --mode task", 0, "switched task by task in "),
    ("kerf const set BLK_MAX_REQUEST_COUNT=8 MAX_SOFTIRQ_RESTART=20 --mode global", 0, "switched globally in "),
    ("kerf const set BLK_MAX_REQUEST_COUNT 32 --mode task --timeout 5", 0, "8 → 32 (stock)"),
    ("kerf const unset MAX_SOFTIRQ_RESTART --mode global --json", 0, "\"mode\": \"global\""),
    ("kerf const unset --all --mode task", 2, "cannot be used with"),
    ("kerf const set BLK_MQ_CPU_WORK_BATCH 4 --mode immediate", 18, "BLK_MQ_CPU_WORK_BATCH cannot be switched for "),
    ("kerf const set BLK_MQ_CPU_WORK_BATCH 4", 0, "switched task by task in "),
    ("kerf const unset BLK_MQ_CPU_WORK_BATCH --mode immediate", 18, "BLK_MQ_CPU_WORK_BATCH cannot be switched for "),
    ("kerf const unset BLK_MQ_CPU_WORK_BATCH", 0, "switched task by task in "),
    ("kerf status", 0, "nothing is set"),
    ("kerf const set BLK_MAX_REQUEST_COUNT 4", 0, "switched "),
    ("mv /var/lib/kerf/scope.db /elsewhere", 0, ""),
    ("kerf const unset BLK_MAX_REQUEST_COUNT --mode task", 14, "scope table"),
    ("kerf const unset BLK_MAX_REQUEST_COUNT", 0, "without a look at safe spans"),
    ("mv /elsewhere /var/lib/kerf/scope.db", 0, ""),
    ("kerf status", 0, "nothing is set"),
    ("kerf module unload", 0, "unloaded"),
    ("kerf doctor", 31, "kerf module load"),
];

/// Runs a script in a guest and compares what its commands said.
#[track_caller]
fn check(words: Words, options: &[&str], script: &str) {
    common::check(words, &run(options, &format!("{PRELUDE}{script}")));
}

#[test]
fn every_word_says_what_it_did() {
    check(WORDS, &[], &script(WORDS));
}

#[test]
fn a_killed_set_leaves_all_or_nothing() {
    let kills: String = (0..10)
        .map(|n| {
            let value = if n % 2 == 0 { 4 } else { 48 };
            format!(
                "kerf const set BLK_MAX_REQUEST_COUNT={value} MAX_SOFTIRQ_RESTART=20 >/dev/null 2>&1 &\n\
                 usleep {}\nkill -9 $! 2>/dev/null; wait $!; t kerf status --json\n",
                n * 12_000
            )
        })
        .collect();
    let said = guest(&[], &format!("insmod /kerf.ko\n{kills}t kerf const unset --all\nt kerf status --json\n"));
    let states: Vec<serde_json::Value> = said
        .iter()
        .filter(|(command, ..)| command == "kerf status --json")
        .map(|(_, text, code)| {
            assert_eq!(*code, 0, "{text}");
            serde_json::from_str(text).expect("JSON")
        })
        .collect();
    assert_eq!(states.len(), 11);
    for state in &states {
        let entries = state["entries"].as_array().expect("an array");
        // Both constants of the transaction are set, or none.
        let set = match state["state"].as_str() {
            Some("tuned") => 2,
            Some("stock") => 0,
            other => panic!("{other:?}: {state:#}"),
        };
        assert_eq!(entries.len(), set, "{state:#}");
        assert!(entries.iter().all(|e| e["in_force"] == true), "{state:#}");
    }
    assert_eq!(states.last().expect("the last one")["state"], "stock");
}
