//! `kerf const build --from` on the real source: a list is worked through, and a run that was killed goes on where it was.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kerf_const::Entry;
use kerf_const::table::Table;
use serde_json::Value;

const LIST: &str = "name\tfile\tnote\n\
    MAX_SOFTIRQ_RESTART\tkernel/softirq.c\t\n\
    NO_SUCH_CONSTANT\t\tnobody has it\n\
    no name(at all)\t\t\n\
    SHRINK_BATCH\tmm/shrinker.c\t\n\
    PAGEVEC_SIZE\t\ta layout\n\
    BLK_MQ_BUDGET_DELAY\tblock/blk-mq-sched.c\t\n";

fn build(list: &Path, table: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kerf"));
    command.args(["const", "build", "--json", "--from"]).arg(list).arg("--table").arg(table).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn told(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(35), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn entries(table: &Path) -> Vec<Entry> {
    Table::open(table).expect("a table").entries(None).expect("entries")
}

/// Kills a run when it has stored something, and gives how much that was.
fn killed(list: &Path, table: &Path) -> usize {
    let mut child = build(list, table, &[]).spawn().expect("kerf starts");
    let stderr = child.stderr.take().expect("a pipe");
    let mut lines = BufReader::new(stderr).lines();
    let first = lines.by_ref().map_while(Result::ok).find(|line| line.contains(" of 6: mm/shrinker.c:SHRINK_BATCH"));
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

    let before = killed(&list, &path("killed.db"));
    assert!((1..4).contains(&before), "{before} entries when it was killed");
    let second = told(&build(&list, &path("killed.db"), &[]).output().expect("kerf starts"));
    assert!(second["tried"].as_u64().is_some_and(|tried| tried < 6), "what was stored is not built again: {second}");

    let words = ["--report", report.to_str().expect("plain characters")];
    let whole = told(&build(&list, &path("whole.db"), &words).output().expect("kerf starts"));
    assert_eq!((&whole["queries"], &whole["tried"], &whole["failed"]), (&6.into(), &6.into(), &2.into()));
    assert_eq!((&whole["classes"], &whole["failed"]), (&second["classes"], &second["failed"]));
    assert_eq!(whole["classes"]["proved"], 3, "{whole}");
    assert_eq!(whole["classes"]["layout"], 1, "{whole}");
    assert_eq!(entries(&path("killed.db")), entries(&path("whole.db")));

    let report = std::fs::read_to_string(report).expect("the report");
    assert_eq!(report.lines().count(), 7, "{report}");
    for failed in ["NO_SUCH_CONSTANT", "no name(at all)"] {
        assert!(report.contains(&format!("{failed}\tfailed\t0\t")), "{report}");
    }

    let third = told(&build(&list, &path("whole.db"), &[]).output().expect("kerf starts"));
    assert_eq!(third["tried"], 0, "all of it was tried: {third}");
}
