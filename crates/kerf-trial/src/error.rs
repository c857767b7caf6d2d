//! What can go wrong with a trial, and what to do about it.

use thiserror::Error;

/// An error of a trial. Messages read well after "failed to …:".
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrialError {
    /// The pattern that picks the number does not fit.
    #[error("`{pattern}` picks no number: {why}")]
    BadPattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// Even the clearest effect would be put down to chance.
    #[error(
        "{rounds} rounds are too few: with {values} values and --alpha {alpha} no result could be told from chance; give --rounds {needed} or more"
    )]
    TooFewRounds {
        /// What was asked for.
        rounds: usize,
        /// What it takes.
        needed: usize,
        /// How many values are tried.
        values: usize,
        /// The level.
        alpha: f64,
    },
    /// The metric's output holds no number.
    #[error("the metric printed no number that could be read: {why}; it printed {}", quoted(printed))]
    NoNumber {
        /// What is missing.
        why: String,
        /// Its standard output.
        printed: String,
    },
    /// The metric did not end well.
    #[error("the metric `{command}` {how}; it printed {}", quoted(printed))]
    Metric {
        /// The command.
        command: String,
        /// How it ended, or that it did not.
        how: String,
        /// Its standard output and error.
        printed: String,
    },
    /// A value was not in force during a run, or another one was.
    #[error(
        "{id} did not keep its value during a run: {found}; somebody else changed it, or a probe or livepatch came"
    )]
    Disturbed {
        /// The constant.
        id: String,
        /// What was to be in force, and what was.
        found: String,
    },
    /// Somebody wants the trial to end.
    #[error("interrupted by {signal}")]
    Interrupted {
        /// The signal's name.
        signal: &'static str,
    },
}

/// The end of what a program printed, which is where it says what was wrong.
fn quoted(printed: &str) -> String {
    const LINES: usize = 6;
    const LENGTH: usize = 600;
    let printed = printed.trim();
    if printed.is_empty() {
        return "nothing".into();
    }
    let lines: Vec<&str> = printed.lines().collect();
    let end = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n");
    let skipped = end.chars().count().saturating_sub(LENGTH);
    let kept: String = end.chars().skip(skipped).collect();
    let dots = if kept.len() < printed.len() { "…" } else { "" };
    format!("`{dots}{kept}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_long_output_is_quoted() {
        assert_eq!(quoted(" \n"), "nothing");
        assert_eq!(quoted("a\nb\n"), "`a\nb`");
        let long: String = (0..20).map(|n| format!("line {n}\n")).collect();
        assert_eq!(quoted(&long), "`…line 14\nline 15\nline 16\nline 17\nline 18\nline 19`");
        assert_eq!(quoted(&"é".repeat(1000)).chars().count(), 603);
    }
}
