//! `--mode` and `--timeout`: when a new value comes for whom, and what is said about it afterwards.

use std::time::Duration;

use clap::{Args, ValueEnum};
use kerf_const::apply::{self, Choice, Setting};
use kerf_const::entry::Entry;
use kerf_const::{ConstError, table::Table};
use kerf_live::{Mode, Outcome, Status};
use serde_json::{Value, json};

use super::const_words::find_running;
use crate::running;
use crate::running_text::with_running;

/// When a change comes for whom.
#[derive(Debug, Args)]
pub struct ModeArgs {
    /// When the change comes for whom [default: immediate where that is proved not to matter, else task].
    #[arg(long, value_name = "MODE")]
    mode: Option<ModeWord>,
    /// Seconds to wait for threads to leave the code.
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=60))]
    timeout: u64,
}

/// The modes by their words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeWord {
    /// For everybody in the same moment.
    Immediate,
    /// For each thread when it is outside the safe spans.
    Task,
    /// For everybody in the same moment, when nobody is inside a safe span.
    Global,
}

impl ModeArgs {
    /// How long to wait.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// Whether the caller named a mode that needs the scope table's safe spans.
    pub fn wants_transition(&self) -> bool {
        matches!(self.mode, Some(ModeWord::Task | ModeWord::Global))
    }

    /// The mode in which these constants change together.
    ///
    /// # Errors
    /// [`ConstError::NotIndependent`] when immediate mode was asked for and is not proved to be safe.
    pub fn choose<'a>(&self, entries: impl IntoIterator<Item = &'a Entry>) -> Result<Mode, ConstError> {
        let independent = entries.into_iter().try_for_each(apply::check_independent);
        match self.mode {
            Some(ModeWord::Immediate) => independent.map(|()| Mode::Immediate),
            Some(ModeWord::Task) => Ok(Mode::Task),
            Some(ModeWord::Global) => Ok(Mode::Global),
            None if independent.is_ok() => Ok(Mode::Immediate),
            None => Ok(Mode::Task),
        }
    }
}

/// The rows of constants that are set now, by the ids that the module knows them by.
pub fn active_rows(table: anyhow::Result<Table>, ids: &[String]) -> anyhow::Result<Vec<(Entry, Setting)>> {
    let (table, build) = (table?, running::build_id()?);
    let row = |id: &String| {
        let (name, index) = match id.rsplit_once('@').map(|(name, n)| (name, n.parse::<usize>())) {
            Some((name, Ok(index))) => (name, Some(index)),
            _ => (id.as_str(), None),
        };
        let entry = find_running(&table, &build, name)?;
        apply::has_safe_spans(&entry)?;
        let setting = apply::stock(&entry, index)?;
        Ok((entry, setting))
    };
    ids.iter().map(row).collect()
}

/// What the module is asked to give constants their stock values back in a transition.
pub fn stock_entries(rows: &[(Entry, Setting)], status: &Status) -> anyhow::Result<Vec<kerf_live::Entry>> {
    let make = |(entry, setting): &(Entry, Setting)| {
        with_running(entry, status, |running| apply::transition_entry(entry, *setting, Choice::Cheapest, running))
    };
    rows.iter().map(make).collect()
}

/// How a change went, for a person.
pub fn sentence(mode: Mode, outcome: &Outcome) -> String {
    let time = format!("{:.1} ms", outcome.total.as_secs_f64() * 1e3);
    let inside = match outcome.inside {
        0 => "no thread was inside".to_string(),
        1 => "1 thread was inside".to_string(),
        n => format!("{n} threads were inside"),
    };
    let looks = match outcome.looks {
        0 => String::new(),
        1 => ", their stacks were looked at once more".to_string(),
        n => format!(", their stacks were looked at {n} more times"),
    };
    match mode {
        Mode::Immediate => format!("switched for everybody at once in {time}"),
        Mode::Task => format!("switched task by task in {time}; {inside}{looks}"),
        Mode::Global => format!("switched globally in {time}; {inside}{looks}"),
    }
}

/// How a change went, for programs: members that are added to an object.
pub fn add_members(object: &mut Value, mode: Mode, outcome: &Outcome) {
    let own = json!({
        "mode": mode, "attempts": outcome.attempts, "stop_ns": outcome.stop.as_nanos() as u64,
        "total_ns": outcome.total.as_nanos() as u64, "inside": outcome.inside, "looks": outcome.looks,
    });
    if let (Value::Object(object), Value::Object(own)) = (object, own) {
        object.extend(own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(inside: u32, looks: u32) -> Outcome {
        Outcome { inside, looks, total: Duration::from_micros(1500), ..Outcome::default() }
    }

    #[test]
    fn sentences_count() {
        assert_eq!(sentence(Mode::Immediate, &outcome(0, 0)), "switched for everybody at once in 1.5 ms");
        assert_eq!(sentence(Mode::Task, &outcome(0, 0)), "switched task by task in 1.5 ms; no thread was inside");
        let two = "switched globally in 1.5 ms; 2 threads were inside, their stacks were looked at 3 more times";
        assert_eq!(sentence(Mode::Global, &outcome(2, 3)), two);
    }

    #[test]
    fn members_are_added() {
        let mut object = json!({ "unset": ["A"] });
        add_members(&mut object, Mode::Task, &outcome(1, 2));
        assert_eq!((&object["mode"], &object["inside"], &object["looks"]), (&json!("task"), &json!(1), &json!(2)));
        assert_eq!(object["unset"], json!(["A"]));
    }
}
