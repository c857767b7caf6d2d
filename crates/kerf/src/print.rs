//! How results look: tables, JSON, colour where a person reads, and a sign of life while they wait.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// The widest a table gets, in columns.
const WIDTH: u16 = 100;

/// After how long a spinner shows.
const PATIENCE: Duration = Duration::from_secs(2);

/// Prints text with a line end.
pub fn text(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{}", text.trim_end()).context("print the result")
}

/// A moment in nanoseconds since 1970, as a person at this machine reads it.
pub fn time(ns: u64) -> String {
    let moment = jiff::Timestamp::from_nanosecond(ns.into()).unwrap_or_default();
    moment.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// Prints a value as JSON.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("write JSON")?;
    self::text(&text)
}

/// Rows under a header, as wide as they need to be and never wider than 100 columns.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    laid_out(header, rows).trim_fmt()
}

fn laid_out(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    for row in rows {
        table.add_row(row);
    }
    table
}

/// As [`table`], with the columns from `first` on to the right, as numbers are.
pub fn numbers(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, first: usize) -> String {
    let mut table = laid_out(header, rows);
    for column in table.column_iter_mut().skip(first) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// What a piece of text means; colours are chosen here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// What to look at.
    Mark,
    /// The title of something.
    Title,
}

/// Colours text if standard output is a terminal and `NO_COLOR` is not set.
pub fn paint(paint: Paint, text: &str) -> String {
    let wanted = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    if wanted { painted(paint, text) } else { text.to_owned() }
}

fn painted(paint: Paint, text: &str) -> String {
    let code = match paint {
        Paint::Good => "32",
        Paint::Bad => "31",
        Paint::Mark => "33;1",
        Paint::Title => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// A sign of life on a terminal, from when the work has taken two seconds until it is dropped: a spinner, or a bar where it is
/// known how much there is to do.
pub struct Spinner {
    bar: ProgressBar,
    done: Arc<AtomicBool>,
}

impl Spinner {
    /// Starts waiting. `what` says what is done.
    pub fn start(what: &str) -> Spinner {
        Spinner::show(what, None, "{spinner} {msg} ({elapsed})")
    }

    /// Starts waiting for so many steps.
    pub fn steps(what: &str, steps: usize) -> Spinner {
        Spinner::show(what, Some(steps as u64), "{msg} {bar:30} {pos} of {len} ({eta} left)")
    }

    /// One of the steps is done.
    pub fn step(&self) {
        self.bar.inc(1);
    }

    fn show(what: &str, steps: Option<u64>, template: &str) -> Spinner {
        let bar = ProgressBar::with_draw_target(steps, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        let done = Arc::new(AtomicBool::new(false));
        if io::stderr().is_terminal() {
            let (shown, finished) = (bar.clone(), done.clone());
            thread::spawn(move || {
                thread::sleep(PATIENCE);
                if !finished.load(Ordering::Acquire) {
                    shown.set_draw_target(ProgressDrawTarget::stderr());
                    shown.enable_steady_tick(Duration::from_millis(120));
                }
            });
        }
        Spinner { bar, done }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stay_within_their_width() {
        let long = "a word and another one ".repeat(12);
        let text = table(&["NAME", "REASON"], [vec!["X".into(), long], vec!["LONG_NAME".into(), "short".into()]]);
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(WIDTH)), "{text}");
        assert!(text.lines().count() > 3, "{text}");
        assert!(text.starts_with(" NAME"), "{text}");
    }

    #[test]
    fn tests_have_no_terminal_and_no_colour() {
        assert_eq!(painted(Paint::Bad, "x"), "\x1b[31mx\x1b[0m");
    }
}
