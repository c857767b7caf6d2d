//! The demo's constant, as `kerf const build --json` describes it.

use anyhow::{Context, bail};
use serde::Deserialize;
use std::path::Path;
use std::process::{Command, Stdio};

/// What the demo tells of a constant.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// Its name.
    pub name: String,
    /// Its value in the source.
    pub value: u32,
    /// File and line.
    pub place: String,
    /// What was checked.
    pub reason: String,
    /// The values that may be set.
    pub domain: String,
    /// How long it took.
    pub seconds: f64,
    /// Where it is in the machine code.
    pub spans: Vec<Place>,
}

/// A span, in words.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Function and offsets.
    pub place: String,
    /// What the code computes.
    pub expression: String,
}

/// The fields that are read of an entry; docs/json.md has them all.
#[derive(Deserialize)]
struct Entry {
    id: String,
    name: Option<String>,
    file: String,
    line: u32,
    value: i64,
    class: String,
    reason: String,
    domain: Vec<Interval>,
    spans: Vec<Span>,
    seconds: f64,
}

#[derive(Deserialize)]
struct Interval {
    min: i64,
    max: i64,
}

#[derive(Deserialize)]
struct Span {
    function: String,
    start: u64,
    end: u64,
    expression: String,
}

/// Builds the constant's entry from source, into `table`.
pub fn build(kerf: &Path, name: &str, table: &Path) -> anyhow::Result<Built> {
    if table.exists() {
        std::fs::remove_file(table).with_context(|| format!("remove the old {}", table.display()))?;
    }
    let mut command = Command::new(kerf);
    command.args(["const", "build", name, "--json", "--table"]).arg(table);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("run kerf const build")?;
    if !output.status.success() {
        bail!("build the entry of {name}: kerf ended with {}", output.status);
    }
    read(&String::from_utf8_lossy(&output.stdout), name)
}

fn read(json: &str, name: &str) -> anyhow::Result<Built> {
    let entries: Vec<Entry> = serde_json::from_str(json).context("read what kerf const build prints")?;
    let Some(entry) = entries.into_iter().find(|entry| entry.class == "proved") else {
        bail!("use {name}: kerf const build has not proved it");
    };
    let intervals: Vec<String> = entry.domain.iter().map(|part| format!("{} to {}", part.min, part.max)).collect();
    let place = |span: Span| Place {
        place: format!("{}+{:#x}..{:#x}", span.function, span.start, span.end),
        expression: span.expression,
    };
    Ok(Built {
        name: entry.name.unwrap_or(entry.id),
        value: entry.value.try_into().context("use a negative limit")?,
        place: format!("{}:{}", entry.file, entry.line),
        reason: brief(&entry.reason).to_owned(),
        domain: intervals.join(", "),
        seconds: entry.seconds,
        spans: entry.spans.into_iter().map(place).collect(),
    })
}

/// The parts of a reason that are short; what is said of single values can be long.
fn brief(reason: &str) -> &str {
    const ENOUGH: usize = 80;
    let ends = reason.match_indices("; ").map(|(at, _)| at);
    let end = ends.take_while(|&at| at <= ENOUGH).last().filter(|_| reason.len() > ENOUGH);
    end.map_or(reason, |end| reason.get(..end).unwrap_or(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"[{"id": "a.h:L3:32:0", "name": "LIMIT", "file": "a.h", "line": 3, "value": 32, "kind": "macro",
        "class": "proved", "reason": "1 span", "domain": [{"min": 2, "max": 63}, {"min": 70, "max": 80}], "seconds": 1.5,
        "spans": [{"function": "f", "start": 40, "end": 46, "expression": "eax ← V", "iv": []}]}]"#;

    #[test]
    fn an_entry_is_read() {
        let built = read(JSON, "LIMIT").unwrap();
        assert_eq!((built.value, built.place.as_str(), built.domain.as_str()), (32, "a.h:3", "2 to 63, 70 to 80"));
        assert_eq!(built.spans, [Place { place: "f+0x28..0x2e".into(), expression: "eax ← V".into() }]);
    }

    #[test]
    fn an_entry_that_is_not_proved_is_no_use() {
        let error = read(&JSON.replace("proved", "shape"), "LIMIT").unwrap_err();
        assert!(error.to_string().contains("has not proved it"), "{error}");
        assert!(read("[]", "LIMIT").is_err() && read("{}", "LIMIT").is_err());
    }

    #[test]
    fn long_reasons_are_cut_between_their_parts() {
        let long = format!("2 spans; 13 values agree; not certified: {}", "x".repeat(100));
        assert_eq!(brief(&long), "2 spans; 13 values agree");
        assert_eq!(brief("2 spans; 3 values"), "2 spans; 3 values");
        assert_eq!(brief(&"é".repeat(100)).len(), 200);
    }
}
