//! `kerf const set` on the stock kernel in a virtual machine: every word, every refusal, a sudden death, and the effects.

#[path = "live/effects.rs"]
mod effects;
#[path = "live/untyped.rs"]
mod untyped;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use kerf_lab::{Cache, Quiet};

fn kerf() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kerf"));
    command.stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "stdout:\n{}\nstderr:\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

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
        let (table, module) = (dir.path().join("scope.db"), dir.path().join("kerf.ko"));
        let names = ["BLK_MAX_REQUEST_COUNT", "MAX_SOFTIRQ_RESTART", "SHRINK_BATCH"];
        done(&kerf().args(["const", "build"]).args(names).arg("--table").arg(&table).output().expect("kerf starts"));
        let cache = Cache::open_default().expect("a cache");
        let kernel = kerf_lab::kernel(&cache, &mut Quiet).expect("a kernel");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernel");
        kerf_lab::module::build(&kernel, &source, &module).expect("kerf.ko builds");
        let foreign = foreign_module(&kernel, &source, dir.path());
        Baggage { _dir: dir, table, module, foreign }
    })
}

/// The module as another version of this program would have it.
fn foreign_module(kernel: &kerf_lab::Kernel, source: &Path, dir: &Path) -> PathBuf {
    let copy = dir.join("foreign");
    fs::create_dir(&copy).expect("a directory");
    for file in fs::read_dir(source).expect("the module's source").flatten().filter(|f| f.path().is_file()) {
        let content = fs::read_to_string(file.path()).expect("a source file");
        let changed = match content.lines().find(|line| line.starts_with("#define KERF_PROTOCOL")) {
            Some(line) => content.replace(line, "#define KERF_PROTOCOL 4711"),
            None => content,
        };
        fs::write(copy.join(file.file_name()), changed).expect("it can be written");
    }
    let module = dir.join("foreign.ko");
    kerf_lab::module::build(kernel, &copy, &module).expect("the foreign module builds");
    module
}

/// Runs a script in a guest that is described by more options of `kerf lab run`, and gives its output.
fn run(options: &[&str], script: &str) -> String {
    let baggage = baggage();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("script");
    fs::write(&file, script).expect("it can be written");
    let place = |path: &Path, guest: &str| format!("{}:{guest}", path.display());
    let output = kerf()
        .args(["lab", "run", "--quiet", "--append", "preempt=full"])
        .args(options)
        .args(["--file", &place(&baggage.table, "/var/lib/kerf/scope.db")])
        .args(["--file", &place(&baggage.module, "/kerf.ko")])
        .args(["--file", &place(&baggage.foreign, "/foreign.ko")])
        .args(["--file", &place(&file, "/script")])
        .args(["--", "sh", "/script"])
        .output()
        .expect("kerf starts");
    done(&output)
}

/// Runs a script in a guest; its output in blocks, each headed `## COMMAND` and ended by the exit code.
fn guest(options: &[&str], script: &str) -> Vec<(String, String, i32)> {
    let prelude = "t() { echo \"## $*\"; \"$@\" 2>&1; echo \"code $?\"; }\n";
    blocks(&run(options, &format!("{prelude}{script}")))
}

fn blocks(text: &str) -> Vec<(String, String, i32)> {
    let mut blocks = Vec::new();
    for block in text.split("## ").skip(1) {
        let (command, rest) = block.split_once('\n').expect("a command's line");
        let (said, code) = rest.rsplit_once("code ").expect("an exit code");
        blocks.push((command.to_owned(), said.to_owned(), code.trim().parse().expect("a number")));
    }
    blocks
}

/// Commands, their exit codes, and words of what they say.
const WORDS: &[(&str, i32, &str)] = &[
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

/// The commands of a list as a script.
fn script(words: &[(&str, i32, &str)]) -> String {
    words.iter().map(|(command, ..)| format!("t {command}\n")).collect()
}

/// Runs a script in a guest and compares what its commands said.
#[track_caller]
fn check(words: &[(&str, i32, &str)], options: &[&str], script: &str) {
    let said = guest(options, script);
    assert_eq!(said.len(), words.len());
    for ((command, code, words), (ran, text, ended)) in words.iter().zip(&said) {
        assert_eq!(command, ran);
        assert!(
            ended == code && text.contains(words),
            "{command}: code {ended} instead of {code}, or without `{words}`:\n{text}"
        );
    }
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
