//! `--min`, `--max`, `--step`, `--rate` and `--note`: what is permitted for a constant while it is set, and why it is set.

use std::time::Duration;

use clap::Args;
use kerf_const::ConstError;
use kerf_live::{Guard, Transaction};

use super::const_words::parse_value;

/// What the module keeps to as long as a value is set, whoever asks.
#[derive(Clone, Debug, Default, Args)]
pub struct GuardArgs {
    /// The least value that the constant may get while it is set.
    #[arg(long, value_name = "N", value_parser = number, allow_negative_numbers = true)]
    min: Option<i64>,
    /// The greatest one.
    #[arg(long, value_name = "N", value_parser = number, allow_negative_numbers = true)]
    max: Option<i64>,
    /// How far one change may go, from the value before or from the stock value.
    #[arg(long, value_name = "N", value_parser = number)]
    step: Option<i64>,
    /// How often a minute it may be changed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    rate: Option<u32>,
    /// Why, for `kerf status` and `kerf log`: up to 200 characters, ASCII.
    #[arg(long, value_name = "TEXT", value_parser = note)]
    note: Option<String>,
}

fn number(text: &str) -> Result<i64, String> {
    let value = parse_value(text).map_err(|error| error.to_string())?;
    i64::try_from(value).map_err(|_| "it does not fit 64 bits".into())
}

/// Reads a note.
///
/// # Errors
/// If it is longer or has other characters than the module keeps.
pub fn note(text: &str) -> Result<String, String> {
    let fits = text.len() <= 200 && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err("give up to 200 printable ASCII characters".into()) }
}

impl GuardArgs {
    /// Whether anything but a note is given.
    fn is_given(&self) -> bool {
        self.min.is_some() || self.max.is_some() || self.step.is_some() || self.rate.is_some()
    }

    /// The least and greatest value, as limits of what is decided.
    pub fn limits(&self) -> (Option<i128>, Option<i128>) {
        (self.min.map(Into::into), self.max.map(Into::into))
    }

    /// Adds the note, and a guard for each entry that is set; `stock` are the ids and stock values of these.
    ///
    /// # Errors
    /// [`ConstError::BadQuery`] where the options contradict each other.
    pub fn add(&self, transaction: &mut Transaction, stock: &[(String, i64)]) -> Result<(), ConstError> {
        transaction.note = self.note.clone().unwrap_or_default();
        if !self.is_given() {
            return Ok(());
        }
        let (min, max) = (self.min.unwrap_or(i64::MIN), self.max.unwrap_or(i64::MAX));
        let wrong = |query: String, why: &str| Err(ConstError::BadQuery { query, why: why.into() });
        if min > max {
            return wrong(format!("--min {min} --max {max}"), "the least value is above the greatest");
        }
        let step = match self.step {
            Some(step) if step < 1 => return wrong(format!("--step {step}"), "a step is at least 1"),
            step => step.unwrap_or(0) as u64,
        };
        let pause = self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs(60) / rate);
        let set = stock.iter().filter(|(id, _)| transaction.entries.iter().any(|entry| entry.id == *id));
        let guards = set.map(|(id, stock)| (id.clone(), Guard { stock: *stock, min, max, step, pause }));
        transaction.guards = guards.collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(args: &GuardArgs) -> Result<Transaction, ConstError> {
        let mut transaction = Transaction::new("764949bb".parse().unwrap());
        transaction.entries.push(kerf_live::Entry {
            id: "A".into(),
            value: 4,
            decider: None,
            locations: Vec::new(),
            gates: Vec::new(),
            spans: Vec::new(),
            between: Vec::new(),
        });
        let stock = [("A".to_owned(), 32), ("B".to_owned(), 1)];
        args.add(&mut transaction, &stock).map(|()| transaction)
    }

    #[test]
    fn what_is_set_gets_a_guard() {
        let note = Some("why".to_owned());
        let alone = transaction(&GuardArgs { note: note.clone(), ..Default::default() }).unwrap();
        assert_eq!((alone.note.as_str(), alone.guards.len()), ("why", 0));
        let given = GuardArgs { min: Some(1), step: Some(8), rate: Some(6), note, ..Default::default() };
        let guard = Guard { stock: 32, min: 1, max: i64::MAX, step: 8, pause: Duration::from_secs(10) };
        assert_eq!(transaction(&given).unwrap().guards, [("A".to_owned(), guard)]);
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(transaction(&GuardArgs { min: Some(2), max: Some(1), ..Default::default() }).is_err());
        assert!(transaction(&GuardArgs { step: Some(0), ..Default::default() }).is_err());
        assert!(note("zwei\nZeilen").is_err() && number("x").is_err());
    }
}
