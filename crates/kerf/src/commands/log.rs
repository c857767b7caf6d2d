//! `kerf log`: what was changed, when, by whom and why.

use anyhow::Context;
use clap::Args;

use crate::journal::{self, Line};
use crate::print;

pub const EXAMPLES: &str = "\
Examples:
  kerf log
  kerf log BLK_MAX_REQUEST_COUNT --last 5
  kerf log --json

The lines are in /var/log/kerf.jsonl; KERF_LOG_FILE names another file. A machine that boots is stock: what was set before does not count
any more.";

/// Which changes, and how to report.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Only changes of this constant or policy.
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Only the last N.
    #[arg(long, short = 'n', value_name = "N")]
    last: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl LogArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        let file = journal::file();
        let (lines, damaged) = journal::read(&file).with_context(|| format!("read {}", file.display()))?;
        if damaged > 0 {
            eprintln!("kerf: warning: {}: {damaged} lines are no changes and are left out", file.display());
        }
        let chosen = self.chosen(&lines);
        if self.json {
            print::json(&chosen)?;
        } else if chosen.is_empty() {
            print::text("nothing was changed")?;
        } else {
            print::text(&print::table(&["WHEN", "WHO", "WHAT", "WHY"], chosen.iter().map(|line| row(line))))?;
        }
        Ok(0)
    }

    fn chosen<'a>(&self, lines: &'a [Line]) -> Vec<&'a Line> {
        let of = |line: &Line, id: &str| line.policy == id || line.changed.iter().any(|changed| changed.id == id);
        let mut chosen: Vec<&Line> =
            lines.iter().filter(|line| self.id.as_deref().is_none_or(|id| of(line, id))).collect();
        let skip = chosen.len().saturating_sub(self.last.unwrap_or(usize::MAX));
        chosen.split_off(skip)
    }
}

fn row(line: &Line) -> Vec<String> {
    let changes: Vec<String> = line.changed.iter().map(|c| format!("{}: {} → {}", c.id, c.from, c.to)).collect();
    let action = match line.policy.as_str() {
        "" => line.action.clone(),
        policy => format!("{} {policy}", line.action),
    };
    let what = if changes.is_empty() { action } else { format!("{action}\n{}", changes.join("\n")) };
    let who = if line.from.is_empty() { line.by.clone() } else { format!("{}, from {}", line.by, line.from) };
    vec![print::time(line.time_ns), who, what, line.note.clone()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Changed;

    fn line(time_ns: u64, id: &str, policy: &str) -> Line {
        let changed = vec![Changed { id: id.into(), from: "1".into(), to: "2".into() }];
        let (action, by, from) = ("set".into(), "root".into(), "sh".into());
        Line { time_ns, action, changed, policy: policy.into(), by, from, note: String::new() }
    }

    #[test]
    fn some_can_be_asked_for() {
        let lines = [line(1, "A", ""), line(2, "B", "plug"), line(3, "A", "")];
        let times = |id: Option<&str>, last| {
            let args = LogArgs { id: id.map(str::to_owned), last, json: false };
            args.chosen(&lines).iter().map(|line| line.time_ns).collect::<Vec<_>>()
        };
        assert_eq!(times(None, None), [1, 2, 3]);
        assert_eq!(times(Some("A"), None), [1, 3]);
        assert_eq!(times(Some("plug"), Some(5)), [2]);
        assert_eq!(times(None, Some(2)), [2, 3]);
    }

    #[test]
    fn a_row_says_all_of_it() {
        let row = row(&line(0, "A", "plug"));
        assert_eq!((row[1].as_str(), row[2].as_str()), ("root, from sh", "set plug\nA: 1 → 2"));
    }
}
