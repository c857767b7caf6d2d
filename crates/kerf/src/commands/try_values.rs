//! `kerf try`: is it better? Measures with values in turn, and says what the measurements say.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use kerf_const::ConstError;
use kerf_live::LiveError;
use kerf_trial::{Direction, Log, Plan, Question, Reader, Run, TrialError, analyse, fewest_rounds};

use super::const_build::FromArgs;
use super::const_words::{TableArgs, parse_value};
use super::mode_words::ModeArgs;
use super::try_metric::{Metric, Signals};
use super::try_told::Told;
use super::try_turns::Turns;
use crate::print::{self, Spinner};
use crate::{journal, running};

pub const EXAMPLES: &str = "\
Examples:
  kerf try 'BLK_MAX_REQUEST_COUNT=4,16,128' --metric './read-random'
  kerf try 'SHRINK_BATCH=64,1K' 'MAX_SOFTIRQ_RESTART=20' --metric 'make bench' --pattern 'rate: ([0-9.]+)' --higher-is-better
  kerf try 'BLK_MAX_REQUEST_COUNT=128' --rounds 30 --metric 'fio job.fio --output-format=terse | cut -d\\; -f 40' --html trial.html
  kerf try 'MAX_SOFTIRQ_RESTART=3,30' --metric './latency' --keep

The metric is run by `sh -c`; its result is the last number on its standard output (digits in words such as p99 are none).
Every round runs it once with each value and twice with what is in force now, the baseline, in an order drawn anew; each value
is tried by itself, not with the others. A value is better or worse if the permutation test, corrected for the number of
values, stays below --alpha and the confidence interval does not hold 0. Nothing is kept without --keep: whatever happens, what
was in force before is put back (after `kill -9` alone it is not: `kerf status`, `kerf const unset --all`).";

/// What to try, and how to measure.
#[derive(Debug, Args)]
pub struct TryArgs {
    /// Constants, each with the values to try. Values may be hexadecimal, and end in K, M or G.
    #[arg(required = true, value_name = "ID=V1,V2,…", value_parser = asked)]
    ids: Vec<(String, Vec<i128>)>,
    /// The command that measures, for `sh -c`.
    #[arg(long, value_name = "COMMAND")]
    metric: String,
    /// A regular expression whose only group is the number; of several matches the last one counts.
    #[arg(long, value_name = "REGEX", value_parser = pattern)]
    pattern: Option<String>,
    /// Small numbers are good ones (the default).
    #[arg(long, conflicts_with = "higher_is_better")]
    lower_is_better: bool,
    /// Large numbers are good ones.
    #[arg(long)]
    higher_is_better: bool,
    /// How many rounds to measure.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    rounds: u32,
    /// Runs before the first round that are thrown away.
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup: u32,
    /// Seconds that a run of the metric may take [default: as long as it needs].
    #[arg(long, value_name = "S", value_parser = seconds)]
    timeout_metric: Option<Duration>,
    /// How often a value that makes no difference may be called better or worse.
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = alpha)]
    alpha: f64,
    /// An effect in percent that matters: where no difference is seen, the rounds that would show it are said.
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0, value_parser = percent)]
    effect: f64,
    /// Gives the same order again [default: another one each time].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Set the best value for good if it is better.
    #[arg(long)]
    keep: bool,
    /// Write a report with a plot.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    mode: ModeArgs,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    from: FromArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl TryArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        let shown: Vec<&str> = self.ids.iter().map(|(id, _)| id.as_str()).collect();
        let shown = shown.join(" ");
        self.execute().with_context(|| format!("try {shown}"))
    }

    fn execute(&self) -> anyhow::Result<u8> {
        if !rustix::process::geteuid().is_root() {
            return Err(LiveError::NotPermitted.into());
        }
        let reader = Reader::new(self.pattern.as_deref())?;
        let metric = Metric { command: self.metric.clone(), reader, limit: self.timeout_metric };
        let (table, build) = (self.table.open()?, running::build_id()?);
        let mut turns = Turns::prepare(&self.ids, &self.from, &table, &build, &self.mode)?;
        let question = self.question(turns.candidates.len());
        self.check_rounds(&question)?;
        // From here on a signal ends the trial in good order.
        let signals = Signals::catch()?;
        let measured = self.measure(&mut turns, &question, &metric, &signals);
        let log = put_back(&mut turns, measured)?;
        let answer = analyse(&log, &question)?;
        let kept = answer.best.filter(|_| self.keep);
        if let Some(best) = kept {
            turns.keep(best)?;
            journal::record("set", "", "kerf try", turns.change(best).into_iter().collect());
        }
        let told = Told { turns: &turns, question: &question, answer: &answer, log: &log, metric: &self.metric, kept };
        self.tell(&told)?;
        Ok(0)
    }

    fn question(&self, values: usize) -> Question {
        let direction = if self.higher_is_better { Direction::Higher } else { Direction::Lower };
        Question { values, direction, alpha: self.alpha, effect: self.effect, seed: self.seed.unwrap_or_else(any_seed) }
    }

    /// Says before the first run that there would be no answer after the last one.
    fn check_rounds(&self, question: &Question) -> Result<(), TrialError> {
        let Question { values, alpha, .. } = *question;
        let (rounds, needed) = (self.rounds as usize, fewest_rounds(values, alpha));
        if rounds < needed {
            return Err(TrialError::TooFewRounds { rounds, needed, values, alpha });
        }
        Ok(())
    }

    /// Makes all runs of the plan.
    fn measure(
        &self,
        turns: &mut Turns,
        question: &Question,
        metric: &Metric,
        signals: &Signals,
    ) -> anyhow::Result<Log> {
        let plan = Plan::new(question.values, self.rounds as usize, question.seed);
        let progress = Spinner::steps("measuring", plan.runs().count() + self.warmup as usize);
        for _ in 0..self.warmup {
            metric.run(signals).context("warm up")?;
            turns.check()?;
            progress.step();
        }
        let mut log = Log::default();
        for (round, value) in plan.runs() {
            signals.check()?;
            let switched = turns.switch(value.value());
            // A signal also ends the wait for threads to leave the code.
            signals.check()?;
            switched?;
            let number = metric.run(signals).with_context(|| turns.measured())?;
            turns.check()?;
            log.push(Run { round, value, number });
            progress.step();
        }
        Ok(log)
    }

    fn tell(&self, told: &Told) -> anyhow::Result<()> {
        let typed = self.table.typed();
        if let Some(file) = &self.html {
            let page = told.page(&running::release(), &typed);
            std::fs::write(file, page).with_context(|| format!("write the report {}", file.display()))?;
        }
        if self.json { print::json(&told.object(self.warmup, &typed)) } else { print::text(&told.text(&typed)) }
    }
}

/// Puts back what was in force before; where the trial failed, says that it was done.
fn put_back(turns: &mut Turns, measured: anyhow::Result<Log>) -> anyhow::Result<Log> {
    match (turns.put_back(), measured) {
        (Ok(()), Err(error)) => {
            eprintln!("kerf: everything is as before: {}", turns.baseline());
            Err(error)
        }
        (Err(worse), Err(error)) => Err(worse.context(format!("{error:#}; then"))),
        (back, measured) => back.and(measured),
    }
}

/// A seed that can be typed.
fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.subsec_nanos().into()
}

fn asked(text: &str) -> Result<(String, Vec<i128>), ConstError> {
    let bad = || ConstError::BadQuery { query: text.into(), why: "give ID=V1,V2,… with one value or more".into() };
    let (id, values) =
        text.split_once('=').filter(|(id, values)| !id.is_empty() && !values.is_empty()).ok_or_else(bad)?;
    let values = values.split(',').map(|value| parse_value(value.trim())).collect::<Result<_, _>>()?;
    Ok((id.to_owned(), values))
}

fn pattern(text: &str) -> Result<String, TrialError> {
    Reader::new(Some(text)).map(|_| text.to_owned())
}

fn positive(text: &str, most: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "give a number".to_string())?;
    if number > 0.0 && number <= most { Ok(number) } else { Err(format!("give a number above 0, up to {most}")) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    positive(text, 1e6).map(Duration::from_secs_f64)
}

fn alpha(text: &str) -> Result<f64, String> {
    positive(text, 0.5)
}

fn percent(text: &str) -> Result<f64, String> {
    positive(text, 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_come_with_their_values() {
        assert_eq!(asked("A=4,1K").unwrap(), ("A".to_string(), vec![4, 1024]));
        assert_eq!(asked("b/c.c:L1:2:0=-7, 0x10").unwrap(), ("b/c.c:L1:2:0".to_string(), vec![-7, 16]));
        for bad in ["A", "A=", "=4", "A=4,,5", "A=x", "A=4,"] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_of_options_have_bounds() {
        assert_eq!(alpha("0.01"), Ok(0.01));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "0.6", "nan", "x"] {
            assert!(alpha(bad).is_err(), "{bad}");
        }
        assert!(pattern("(a)").is_ok() && pattern("a").is_err());
    }
}
