//! `cargo xtask bench NAME`: figures as a table and as `target/bench/NAME.json`.

mod atlas;
mod cases;
mod constants;
mod domain;
mod headers;
mod live;
mod measure;
mod placement;
mod redis;
mod scan;
mod spans;
pub mod switch;
pub mod transitions;
pub mod trigger;

use crate::workspace::Workspace;
use anyhow::Context;
use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};
use std::process::ExitCode;

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What is measured.
    pub metric: String,
    /// Under which circumstances.
    pub case: String,
    /// Of what.
    pub subject: String,
    /// The figure.
    pub value: f64,
    /// What it counts.
    pub unit: String,
}

impl Row {
    /// A figure.
    pub fn new(metric: &str, case: &str, subject: &str, value: f64, unit: &str) -> Self {
        let [metric, case, subject, unit] = [metric, case, subject, unit].map(str::to_owned);
        Row { metric, case, subject, value, unit }
    }
}

/// What there is to measure.
#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// The constants of xtask/data/perf-consts.tsv: class and time of each, and ten random values of each that is proved.
    Atlas,
    /// The case studies of policies/: stock and tuned in turns, each in a machine of its own.
    Cases,
    /// Time and class of `kerf const build`, for the constants of xtask/data/constants.tsv.
    Constants,
    /// Compile fifty random values of each proved constant and compare them with its entry.
    Domain,
    /// Units that use a header's constant: what kerf says against all units of the kernel.
    Headers,
    /// Constants of the atlas, drawn by a seed, set live to two values each under a workload.
    Live,
    /// Where the numbers of each span of the atlas go: immediates, detours, or nowhere for some value.
    Placement,
    /// What `kerf const find --scan` lists: how much of it is right, and how much of a list it finds.
    Scan,
    /// What counting costs with each detail, and how closely counts repeat themselves.
    Measure,
    /// Requests to a Redis server with 1 to 128 constants of its path set, and decided by a policy.
    Redis,
    /// Safe spans of the proved constants: their sizes, and whether a running kernel uses a value outside of them.
    Spans,
    /// Set and unset a constant two thousand times in a virtual machine, under load.
    Switch,
    /// Switch by task and globally while threads are inside, beside a livepatch of the same function.
    Transitions,
    /// Instructions that passing a constant costs more, by who decides on it.
    Trigger,
}

/// What to measure.
#[derive(Args)]
pub struct BenchArgs {
    name: Name,
    /// Measure less: this many constants, or this many cycles.
    #[arg(long, value_name = "N")]
    first: Option<usize>,
    /// Values for each constant of `domain` (50 unless said otherwise) and `atlas` (10; 0 leaves the check out).
    #[arg(long, value_name = "N")]
    values: Option<usize>,
    /// Go on with what an interrupted `atlas` has left.
    #[arg(long)]
    resume: bool,
    /// Where the random numbers of `domain` and `atlas` begin; another number draws other values.
    #[arg(long, value_name = "N", default_value_t = domain::SEED)]
    seed: u64,
    /// Only this constant of the list, for `atlas`, `domain` and `spans`; only this folder, for `cases`.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Units that `headers` compiles with two values.
    #[arg(long, value_name = "N", default_value_t = headers::SAMPLE)]
    sample: usize,
}

impl BenchArgs {
    /// Does it; fails when a figure is not as it must be.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let workspace = Workspace::find()?;
        let (name, result) = match self.name {
            Name::Atlas => {
                let (constants, only, values) = (self.first, self.only, self.values.unwrap_or(10));
                let (seed, resume) = (self.seed, self.resume);
                ("atlas", atlas::run(&workspace, &atlas::Wanted { constants, only, values, seed, resume })?)
            }
            Name::Cases => ("cases", cases::run(&workspace, self.only.as_deref())?),
            Name::Constants => ("constants", constants::run(&workspace, self.first)?),
            Name::Domain => {
                let (constants, only, values) = (self.first, self.only, self.values.unwrap_or(50));
                let seed = self.seed;
                ("domain", domain::run(&domain::Wanted { constants, only, values, seed })?)
            }
            Name::Headers => ("headers", headers::run(&workspace, self.first, self.sample)?),
            Name::Live => ("live", live::run(&workspace, self.seed, self.first)?),
            Name::Placement => ("placement", placement::run(&workspace)?),
            Name::Scan => ("scan", scan::run()?),
            Name::Measure => ("measure", measure::run(&workspace, self.first)?),
            Name::Redis => ("redis", redis::run(&workspace, self.first)?),
            Name::Transitions => ("transitions", transitions::run(&workspace, self.first)?),
            Name::Spans => {
                let (constants, only) = (self.first, self.only);
                ("spans", spans::run(&workspace, &spans::Wanted { constants, only })?)
            }
            Name::Switch => ("switch", switch::run(&workspace, self.first)?),
            Name::Trigger => ("trigger", trigger::run(&workspace)?),
        };
        println!("\n{}", table(&result.rows));
        let file = workspace.directory("bench")?.join(format!("{name}.json"));
        let json = serde_json::to_string_pretty(&result.rows).context("write down the figures")?;
        std::fs::write(&file, json + "\n").with_context(|| format!("write {}", file.display()))?;
        println!("written to {}", file.display());
        for complaint in &result.complaints {
            println!("NOT AS IT SHOULD BE: {complaint}");
        }
        Ok(if result.complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Figures, and what is wrong with them.
pub struct Measured {
    /// The figures.
    pub rows: Vec<Row>,
    /// What is not as it must be.
    pub complaints: Vec<String>,
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["metric", "case", "subject", "value", "unit"]);
    for row in rows {
        let value = if row.value.fract() == 0.0 { format!("{:.0}", row.value) } else { format!("{:.2}", row.value) };
        table.add_row([&row.metric, &row.case, &row.subject, &value, &row.unit]);
    }
    if let Some(column) = table.column_mut(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The figure in the middle, or the mean of the two that are.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2)?;
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_five_members() {
        let row = Row::new("time", "proved", "A", 1.5, "s");
        let json = serde_json::to_string(&row).unwrap();
        assert_eq!(json, r#"{"metric":"time","case":"proved","subject":"A","value":1.5,"unit":"s"}"#);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
