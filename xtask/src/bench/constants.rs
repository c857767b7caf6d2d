//! Bench `constants`: does every constant of the list land in its class, and how long does that take?

use super::{Measured, Row, median};
use crate::setup::Setup;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::Context;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Name or place, class, and why, one constant a line.
pub const LIST: &str = include_str!("../../data/constants.tsv");

/// A line of the list.
#[derive(Debug, PartialEq)]
pub struct Expected<'a> {
    /// The name, or `FILE~TEXT~VALUE`.
    pub query: &'a str,
    /// The class it belongs in.
    pub class: &'a str,
}

/// What became of it.
struct Found {
    class: String,
    spans: usize,
    seconds: f64,
    reason: String,
}

/// Builds the first `count` constants of the list, or all.
pub fn run(workspace: &Workspace, count: Option<usize>) -> anyhow::Result<Measured> {
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    let kerf = steps.need("the kerf program", || workspace.build_kerf())?;
    let source = setup.kernel.source.as_deref().context("find the kernel's source")?;
    let (mut rows, mut complaints, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for expected in list(LIST).take(count.unwrap_or(usize::MAX)) {
        let found = measure(&kerf, source, expected.query)?;
        println!("    {}: {} in {:.1} s", expected.query, found.class, found.seconds);
        let right = found.class == expected.class;
        if !right {
            complaints.push(format!("{} is {}, not {}: {}", expected.query, found.class, expected.class, found.reason));
        }
        rows.push(Row::new("time to build", &found.class, expected.query, found.seconds, "s"));
        rows.push(Row::new("spans", &found.class, expected.query, found.spans as f64, "spans"));
        rows.push(Row::new(
            "in the expected class",
            expected.class,
            expected.query,
            f64::from(u8::from(right)),
            "of 1",
        ));
        times.push(found.seconds);
    }
    if let Some(median) = median(&times) {
        rows.push(Row::new("time to build", "median", "all", median, "s"));
    }
    let right = times.len() - complaints.len();
    rows.push(Row::new("in the expected class", &format!("of {}", times.len()), "all", right as f64, "constants"));
    Ok(Measured { rows, complaints })
}

/// The constants of a list.
pub fn list(text: &str) -> impl Iterator<Item = Expected<'_>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let mut fields = line.split('\t');
        Some(Expected { query: fields.next()?, class: fields.next()? })
    })
}

/// `FILE~TEXT~VALUE` as `FILE:Lline:VALUE:0`, for the line that has the text; a name stays a name.
pub fn resolve(source: &Path, query: &str) -> anyhow::Result<String> {
    let fields: Vec<&str> = query.split('~').collect();
    let [file, text, value] = fields.as_slice() else { return Ok(query.to_owned()) };
    let path = source.join(file);
    let content = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let line = content.lines().position(|line| line.contains(text));
    let line = line.with_context(|| format!("find `{text}` in {}", path.display()))?;
    Ok(format!("{file}:L{}:{value}:0", line + 1))
}

fn measure(kerf: &Path, source: &Path, query: &str) -> anyhow::Result<Found> {
    let place = resolve(source, query)?;
    let start = Instant::now();
    let mut command = Command::new(kerf);
    command.args(["const", "build", &place, "--anew", "--dry-run", "--json"]).stdin(Stdio::null());
    let output = command.output().context("run kerf const build")?;
    let seconds = start.elapsed().as_secs_f64();
    let mut found = read(&String::from_utf8_lossy(&output.stdout), seconds);
    if found.class == FAILED {
        found.reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    }
    Ok(found)
}

/// No class: the command gave no entry.
const FAILED: &str = "failed";

/// Several sites may bear one name: the class they share, or all their classes.
fn read(json: &str, seconds: f64) -> Found {
    let entries: Vec<Value> = serde_json::from_str(json).unwrap_or_default();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let mut classes: Vec<String> = entries.iter().map(|entry| text(entry, "class")).collect();
    classes.sort();
    classes.dedup();
    let spans = entries.iter().filter_map(|entry| entry["spans"].as_array()).map(Vec::len).sum();
    let reason = entries.iter().map(|entry| text(entry, "reason")).collect::<Vec<_>>().join("; ");
    let class = if classes.is_empty() { FAILED.to_owned() } else { classes.join("+") };
    Found { class, spans, seconds, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_known_classes() {
        let classes = ["proved", "layout", "data", "shadowed", "absent", "sensitive", "shape", "foreign"];
        let all: Vec<Expected> = list(LIST).collect();
        assert_eq!(all.len(), 21);
        for line in all {
            assert!(classes.contains(&line.class), "{line:?}");
        }
    }

    #[test]
    fn a_text_becomes_a_line() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.c"), "int a;\n\tx = y >> 3;\n").unwrap();
        assert_eq!(resolve(dir.path(), "a.c~y >> 3~3").unwrap(), "a.c:L2:3:0");
        assert_eq!(resolve(dir.path(), "NAME").unwrap(), "NAME");
        assert!(resolve(dir.path(), "a.c~y >> 4~4").is_err());
    }

    #[test]
    fn several_classes_are_no_class() {
        let found =
            read(r#"[{"class":"proved","reason":"a","spans":[1,2]},{"class":"data","reason":"b","spans":[]}]"#, 1.0);
        assert_eq!((found.class.as_str(), found.spans, found.reason.as_str()), ("data+proved", 2, "a; b"));
        assert_eq!(read("", 1.0).class, FAILED);
    }
}
