//! `kerf const build --from` and `--all` on the real source: a list is worked through, and a run that was killed goes on where it was.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kerf_const::Entry;
use kerf_const::table::{Attempt, Table};
use serde_json::Value;

const LIST: &str = "name\tfile\tnote\n\
    MAX_SOFTIRQ_RESTART\tkernel/softirq.c\t\n\
    NO_SUCH_CONSTANT\t\tnobody has it\n\
    no name(at all)\t\t\n\
    SHRINK_BATCH\tmm/shrinker.c\t\n\
    PAGEVEC_SIZE\t\ta layout\n\
    BLK_MQ_BUDGET_DELAY\tblock/blk-mq-sched.c\t\n";

/// What a scan of two small files lists from this score on: five constants, two of them enough to have some left when it is killed.
const ALL: [&str; 5] = ["--all", "--score", "71", "block/mq-deadline.c", "block/blk-mq-sched.c"];

fn build(words: &[&str], table: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kerf"));
    command.args(["const", "build", "--json"]).args(words).arg("--table").arg(table);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a run has said, which ended with this code.
#[track_caller]
fn told(words: &[&str], table: &Path, code: i32) -> Value {
    let output = build(words, table).output().expect("kerf starts");
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// What a run that cannot be has said, with its code.
fn refused(words: &[&str]) -> (Option<i32>, String) {
    let output = build(words, Path::new("/nowhere/scope.db")).output().expect("kerf starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn entries(table: &Path) -> Vec<Entry> {
    Table::open(table).expect("a table").entries(None).expect("entries")
}

/// What was tried, apart from times.
fn attempts(table: &Path) -> Vec<Attempt> {
    let table = Table::open(table).expect("a table");
    let (build, _) = table.builds().expect("builds").pop().expect("a kernel");
    let attempts = table.attempts(&build).expect("attempts");
    attempts.into_iter().map(|attempt| Attempt { seconds: 0.0, ..attempt }).collect()
}

/// Kills a run when it has told of something, and gives how many entries that were.
fn killed(words: &[&str], table: &Path, sign: &str) -> usize {
    let mut child = build(words, table).spawn().expect("kerf starts");
    let stderr = child.stderr.take().expect("a pipe");
    let mut lines = BufReader::new(stderr).lines();
    let first = lines.by_ref().map_while(Result::ok).find(|line| line.contains(sign));
    assert!(first.is_some(), "it tells of each");
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    entries(table).len()
}

#[test]
fn a_killed_run_ends_as_one_that_was_not() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    std::fs::write(path("list.tsv"), LIST).expect("it can be written");
    let (list, report) = (path("list.tsv"), path("report.tsv"));
    let from = ["--from", list.to_str().expect("plain characters")];

    let before = killed(&from, &path("killed.db"), " of 6: mm/shrinker.c:SHRINK_BATCH");
    assert!((1..4).contains(&before), "{before} entries when it was killed");
    let second = told(&from, &path("killed.db"), 35);
    assert!(second["tried"].as_u64().is_some_and(|tried| tried < 6), "what was stored is not built again: {second}");

    let words = [&from[..], &["--report", report.to_str().expect("plain characters")]].concat();
    let whole = told(&words, &path("whole.db"), 35);
    assert_eq!((&whole["queries"], &whole["tried"], &whole["failed"]), (&6.into(), &6.into(), &2.into()));
    assert_eq!((&whole["classes"], &whole["failed"]), (&second["classes"], &second["failed"]));
    assert_eq!(whole["classes"]["proved"], 3, "{whole}");
    assert_eq!(whole["classes"]["layout"], 1, "{whole}");
    assert_eq!(entries(&path("killed.db")), entries(&path("whole.db")));
    assert_eq!(attempts(&path("killed.db")), attempts(&path("whole.db")));

    let report = std::fs::read_to_string(report).expect("the report");
    assert_eq!(report.lines().count(), 7, "{report}");
    for failed in ["NO_SUCH_CONSTANT", "no name(at all)"] {
        assert!(report.contains(&format!("{failed}\tfailed\t0\t")), "{report}");
    }

    let third = told(&from, &path("whole.db"), 35);
    assert_eq!(third["tried"], 0, "all of it was tried: {third}");
}

#[test]
fn all_that_a_scan_finds_ends_the_same_killed_or_not() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let before = killed(&ALL, &path("killed.db"), "kerf: 1 of 5: ");
    assert!((1..5).contains(&before), "{before} entries when it was killed");
    let second = told(&ALL, &path("killed.db"), 0);
    assert!(second["tried"].as_u64().is_some_and(|tried| (1..5).contains(&tried)), "{second}");

    let page = path("atlas.html");
    let words = [&ALL[..], &["--html", page.to_str().expect("plain characters")]].concat();
    let whole = told(&words, &path("whole.db"), 0);
    assert_eq!((&whole["queries"], &whole["tried"], &whole["failed"]), (&5.into(), &5.into(), &0.into()));
    assert_eq!(whole["classes"], second["classes"]);
    assert_eq!(entries(&path("killed.db")), entries(&path("whole.db")));
    assert_eq!(attempts(&path("killed.db")), attempts(&path("whole.db")));

    let page = std::fs::read_to_string(page).expect("the page");
    for entry in entries(&path("whole.db")) {
        assert!(page.contains(&format!("<tbody id=\"{}\">", entry.id)), "{} is on the page", entry.id);
    }
    assert!(page.contains("were compared with the kernel's image") && page.contains("functions with a span"));
    report(&path("whole.db"));
}

/// The figures are those of the entries, and every span of this list has a place.
fn report(table: &Path) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_kerf")).args(["const", "report", "--json", "--table"]).arg(table).output();
    let output = output.expect("kerf starts");
    let figures: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let spans: usize = entries(table).iter().map(|entry| entry.spans.len()).sum();
    assert_eq!((&figures["entries"], &figures["spans"]["count"]), (&5.into(), &spans.into()), "{figures}");
    assert_eq!(
        (&figures["compared"], &figures["placements"]["kinds"]["other"]),
        (&spans.into(), &0.into()),
        "{figures}"
    );
}

#[test]
fn a_list_a_scan_and_names_exclude_one_another() {
    for words in [&["--all", "--from", "list"][..], &["--from", "list", "SHRINK_BATCH"]] {
        let (code, said) = refused(words);
        assert!(code == Some(2) && said.contains("cannot be used with"), "{said}");
    }
    let (code, said) = refused(&["--all", "SHRINK_BATCH"]);
    assert!(code == Some(10) && said.contains("by its name without --all"), "{said}");
    let (code, said) = refused(&["SHRINK_BATCH", "--html", "page.html"]);
    assert!(code == Some(2) && said.contains("--from"), "{said}");
}
