//! Steps of a long piece of work: a line and a time for each, and a summary.

use comfy_table::{CellAlignment, Table, presets};
use std::time::{Duration, Instant};

/// The steps done so far.
pub struct Steps {
    start: Instant,
    done: Vec<Done>,
}

struct Done {
    name: String,
    time: Duration,
    result: Result<String, String>,
}

impl Steps {
    /// None yet.
    pub fn new() -> Self {
        Steps { start: Instant::now(), done: Vec::new() }
    }

    /// Does a step that the following ones need.
    pub fn need<T>(&mut self, name: &str, step: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.take(name, step, |_| String::new())
    }

    /// Does a step; the result's text says more about it in the summary.
    pub fn check(&mut self, name: &str, step: impl FnOnce() -> anyhow::Result<String>) {
        // The failure is printed, and remembered for the summary.
        let _ = self.take(name, step, String::clone);
    }

    fn take<T>(
        &mut self,
        name: &str,
        step: impl FnOnce() -> anyhow::Result<T>,
        note: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<T> {
        println!("==> {name}");
        let start = Instant::now();
        let result = step();
        let time = start.elapsed();
        let shown = match &result {
            Ok(value) => Ok(note(value)),
            Err(error) => Err(format!("{error:#}")),
        };
        match &shown {
            Ok(note) if note.is_empty() => println!("    done in {:.1} s", time.as_secs_f64()),
            Ok(note) => println!("    done in {:.1} s: {note}", time.as_secs_f64()),
            Err(error) => println!("    FAILED after {:.1} s: failed to {error}", time.as_secs_f64()),
        }
        self.done.push(Done { name: name.to_owned(), time, result: shown });
        result
    }

    /// Whether no step has failed.
    pub fn all_good(&self) -> bool {
        self.done.iter().all(|done| done.result.is_ok())
    }

    /// Prints what was done, how long it took, and how it ended.
    pub fn summary(&self) {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for done in &self.done {
            let (word, note) = match &done.result {
                Ok(note) => ("ok", note.as_str()),
                Err(_) => ("FAILED", "see above"),
            };
            table.add_row([&done.name, word, &format!("{:.1} s", done.time.as_secs_f64()), note]);
        }
        if let Some(column) = table.column_mut(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let failed = self.done.iter().filter(|done| done.result.is_err()).count();
        let verdict =
            if failed == 0 { "all good".to_owned() } else { format!("{failed} of {} FAILED", self.done.len()) };
        println!("\n{table}\n{verdict} in {:.0} s", self.start.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_remembered() {
        let mut steps = Steps::new();
        steps.check("one", || Ok("3 passed".into()));
        assert!(steps.all_good());
        steps.check("two", || anyhow::bail!("reason"));
        assert_eq!(steps.need("three", || Ok(7)).unwrap(), 7);
        assert!(!steps.all_good());
        assert_eq!(steps.done.len(), 3);
    }

    #[test]
    fn a_needed_step_hands_its_failure_on() {
        let mut steps = Steps::new();
        assert!(steps.need("one", || anyhow::bail!("reason") as anyhow::Result<()>).is_err());
        assert!(!steps.all_good());
    }
}
