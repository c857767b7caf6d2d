//! How often the history of a git work tree changed the value of a constant.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::candidates::Candidate;
use crate::error::ConstError;
use crate::grep;
use crate::site::literals;

/// For each candidate the number of commits that changed its value; `None` if the tree is no git work tree.
///
/// Merges count for nothing, nor does what a file was called before.
///
/// # Errors
/// If git cannot be run to the end, or a file cannot be read.
pub fn changes(tree: &Path, candidates: &[Candidate]) -> Result<Option<Vec<u32>>, ConstError> {
    if !is_work_tree(tree) {
        return Ok(None);
    }
    let mut counts = vec![0; candidates.len()];
    let mut by_file: HashMap<&str, Vec<(usize, Key)>> = HashMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        by_file.entry(&candidate.place.file).or_default().push((at, Key::of(tree, candidate)?));
    }
    if by_file.is_empty() {
        return Ok(Some(counts));
    }
    let io = |what, source| ConstError::Io { what, path: tree.into(), source };
    let mut command = git(tree);
    command.args([
        "log",
        "--no-color",
        "--no-ext-diff",
        "--no-renames",
        "--relative",
        "--format=tformat:commit",
        "-p",
        "-U0",
        "--",
    ]);
    let mut child = command.args(by_file.keys()).stdout(Stdio::piped()).spawn().map_err(|e| io("run git log in", e))?;
    let output = child.stdout.take().ok_or_else(|| ConstError::Internal("git has no output".into()))?;
    let mut commit = Commit::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.map_err(|e| io("read what git says of", e))?;
        let line = String::from_utf8_lossy(&line);
        if line == "commit" {
            commit.count(&mut counts);
        } else {
            commit.line(&line, &by_file);
        }
    }
    commit.count(&mut counts);
    let status = child.wait().map_err(|e| io("wait for git log in", e))?;
    if status.success() {
        Ok(Some(counts))
    } else {
        Err(ConstError::History { tree: tree.into(), status: status.to_string() })
    }
}

fn git(tree: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(tree).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// Whether git knows the tree: not only a directory above that has nothing to do with it.
fn is_work_tree(tree: &Path) -> bool {
    let known = git(tree).args(["ls-files", "--error-unmatch", "Makefile"]).stdout(Stdio::null()).status();
    let committed = || git(tree).args(["rev-parse", "--verify", "HEAD"]).stdout(Stdio::null()).status();
    known.is_ok_and(|status| status.success()) && committed().is_ok_and(|status| status.success())
}

/// What makes a line of a change one that writes this constant.
enum Key {
    /// It defines the name.
    Name(String),
    /// It is this line but for its numbers.
    Line(String),
}

impl Key {
    fn of(tree: &Path, candidate: &Candidate) -> Result<Key, ConstError> {
        if let Some(name) = &candidate.name {
            return Ok(Key::Name(name.clone()));
        }
        let text = grep::read_source(tree, &candidate.place.file)?;
        let line = text.lines().nth(candidate.place.line.saturating_sub(1) as usize).unwrap_or_default();
        Ok(Key::Line(without_numbers(line).0))
    }

    /// The value that a line gives the constant; `None` if it is about something else.
    fn value(&self, line: &str) -> Option<String> {
        match self {
            Key::Name(name) => {
                let line = without_comment(line);
                let (before, after) = line.split_once(name.as_str())?;
                let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                if before.ends_with(word) || after.starts_with(word) || after.starts_with('(') {
                    return None;
                }
                let value = match after.trim_start().strip_prefix('=') {
                    Some(value) => value,
                    None if before.trim_start().starts_with('#') && before.contains("define") => after,
                    None => return None,
                };
                Some(value.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches([',', ';']).to_owned())
            }
            Key::Line(wanted) => {
                let (text, numbers) = without_numbers(line);
                (text == *wanted).then_some(numbers)
            }
        }
    }
}

fn without_comment(line: &str) -> &str {
    let end = ["/*", "//"].iter().filter_map(|mark| line.find(mark)).min();
    &line[..end.unwrap_or(line.len())]
}

/// A line with a mark for each number and its white space evened out, and the numbers.
fn without_numbers(line: &str) -> (String, String) {
    let line = without_comment(line);
    let (mut text, mut numbers, mut at) = (String::new(), Vec::new(), 0);
    for literal in literals(line) {
        text.push_str(&line[at..literal.range.start]);
        text.push('#');
        numbers.push(literal.value.to_string());
        at = literal.range.end;
    }
    text.push_str(&line[at..]);
    (text.split_whitespace().collect::<Vec<_>>().join(" "), numbers.join(" "))
}

/// The values that one commit takes away and gives, by candidate.
#[derive(Default)]
struct Commit {
    file: String,
    values: BTreeMap<usize, [BTreeSet<String>; 2]>,
}

impl Commit {
    fn line(&mut self, line: &str, by_file: &HashMap<&str, Vec<(usize, Key)>>) {
        if let Some(file) = line.strip_prefix("+++ b/").or_else(|| line.strip_prefix("--- a/")) {
            self.file = file.trim_end_matches('\t').to_owned();
            return;
        }
        let (side, text) = match line.as_bytes().first() {
            Some(b'-') => (0, &line[1..]),
            Some(b'+') => (1, &line[1..]),
            _ => return,
        };
        for (candidate, key) in by_file.get(self.file.as_str()).into_iter().flatten() {
            if let Some(value) = key.value(text) {
                self.values.entry(*candidate).or_default()[side].insert(value);
            }
        }
    }

    /// Adds what the commit changed, and begins the next one.
    fn count(&mut self, counts: &mut [u32]) {
        for (candidate, [old, new]) in std::mem::take(&mut self.values) {
            if !old.is_empty() && !new.is_empty() && old != new {
                counts[candidate] += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::candidates::Place;
    use crate::site::SiteKind;

    fn candidate(name: Option<&str>, line: u32) -> Candidate {
        let place = Place { file: "mm/a.c".into(), line };
        let (site, text, kind) = (String::new(), String::new(), SiteKind::Macro);
        let (uses, reasons) = (Vec::new(), Vec::new());
        Candidate {
            site,
            name: name.map(Into::into),
            place,
            kind,
            text,
            value: None,
            comment: None,
            uses,
            reasons,
            score: 0,
        }
    }

    fn run(tree: &Path, words: &[&str]) {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"];
        let done = git(tree).args(identity).args(words).stdout(Stdio::null()).status().unwrap();
        assert!(done.success(), "git {words:?}");
    }

    #[test]
    fn changes_of_the_value_are_counted_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path();
        std::fs::create_dir(tree.join("mm")).unwrap();
        std::fs::write(tree.join("Makefile"), "").unwrap();
        let versions = [
            "#define BATCH 16\nint f(int nr)\n{\n\treturn nr > 32;\n}\n",
            "#define BATCH 32 /* more */\nint f(int nr)\n{\n\treturn nr > 32;\n}\n",
            "#define BATCH\t32\nint f(int nr)\n{\n\treturn nr > 33;\n}\n",
            "#define BATCH\t(32 * 2)\n#define BATCHES 9\nint f(int nr)\n{\n\treturn nr > 33;\n}\n",
        ];
        run(tree, &["init", "-q"]);
        for text in versions {
            std::fs::write(tree.join("mm/a.c"), text).unwrap();
            run(tree, &["add", "."]);
            run(tree, &["commit", "-q", "-m", "a"]);
        }
        let candidates = [candidate(Some("BATCH"), 1), candidate(None, 5), candidate(Some("BATCHES"), 2)];
        assert_eq!(changes(tree, &candidates).unwrap(), Some(vec![2, 1, 0]));
    }

    #[test]
    fn a_tree_without_history_has_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Makefile"), "").unwrap();
        assert_eq!(changes(dir.path(), &[]).unwrap(), None);
        run(dir.path(), &["init", "-q"]);
        assert_eq!(changes(dir.path(), &[]).unwrap(), None, "nothing of it is known to git");
    }
}
