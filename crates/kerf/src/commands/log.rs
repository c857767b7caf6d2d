//! `kerf log`: what was changed, when, by whom and why.

use anyhow::Context;
use clap::Args;

use crate::journal::{self, Changed, Line};
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
            chosen.iter().try_for_each(|line| print::text(&sentences(line)))?;
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

/// When, who and what, then why and what changed, each on a line of its own.
fn sentences(line: &Line) -> String {
    let from = if line.from.is_empty() { String::new() } else { format!(", from {}", line.from) };
    let policy = if line.policy.is_empty() { String::new() } else { format!(" {}", line.policy) };
    let mut text = format!("{}  {}{policy}, by {}{from}", print::time(line.time_ns), line.action, line.by);
    if !line.note.is_empty() {
        text += &format!("\n    because: {}", line.note);
    }
    for Changed { id, from, to } in &line.changed {
        text += &format!("\n    {id}: {from} → {to}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_change_is_told_with_all_of_it() {
        let told = sentences(&Line { note: "why".into(), ..line(0, "A", "plug") });
        assert!(told.ends_with("  set plug, by root, from sh\n    because: why\n    A: 1 → 2"), "{told}");
    }
}
