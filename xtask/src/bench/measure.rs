//! Bench `measure`: what counting costs, and how closely counts repeat themselves.
//!
//! The same work in a machine without the plugin and with each detail of counting, in turns. What is compared is the time that
//! QEMU has the host's processors, less that of a machine that only boots: others on the host disturb it less than a clock.

use super::{Measured, Row, median};
use crate::setup::Setup;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, ensure};
use kerf_lab::{Accelerator, FileSpec, Machine, Plugin};
use kerf_profile::plugin::{self, Settings};
use kerf_profile::{Detail, Model, Profile, Wanted};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How the work is counted: the row's case, the detail, and the most that it may cost.
const WAYS: [(&str, Option<Detail>, Option<f64>); 5] = [
    ("nothing", None, None),
    ("sums", Some(Detail::Sums), Some(1.3)),
    ("blocks", Some(Detail::Blocks), None),
    ("flow", Some(Detail::Flow), None),
    ("caches", Some(Detail::Caches), Some(6.0)),
];

/// Rounds, unless fewer are wanted.
const ROUNDS: usize = 3;

/// By how much two runs of the same may differ, in percent.
const REPEATS_WITHIN: f64 = 1.0;

/// Everything that a run needs.
struct Bench {
    machine: Machine,
    library: PathBuf,
    output: PathBuf,
}

/// What a run took, in hundredths of a second of processor time, and what it did.
struct Run {
    ticks: u64,
    profile: Option<Profile>,
}

impl Bench {
    fn run(&self, detail: Option<Detail>, word: &str) -> anyhow::Result<Run> {
        let mut machine = self.machine.clone();
        machine.plugin = detail.map(|detail| {
            let wanted = Wanted { detail, model: Model::default() };
            let settings = Settings { output: self.output.clone(), wanted, turns: false };
            Plugin { file: self.library.clone(), arguments: settings.arguments() }
        });
        let before = children()?;
        let command = format!("kerf measure mark begin; sh {word}; kerf measure mark end");
        let outcome = machine.run(&["sh".into(), "-c".into(), command]).context("run the machine")?;
        ensure!(outcome.exit_code == 0, "do the work: {}", String::from_utf8_lossy(&outcome.stderr).trim());
        let profile = detail.map(|_| Profile::read(&self.output)).transpose()?;
        Ok(Run { ticks: children()? - before, profile })
    }
}

/// Processor time of all programs that this one has started and that have ended.
fn children() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    ended(&text).context("find the processor time in /proc/self/stat")
}

/// Members 16 and 17; the second one, in parentheses, is a name that may hold anything.
fn ended(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| words.get(index)?.parse::<u64>().ok();
    Some(number(13)? + number(14)?)
}

/// Builds what is needed and measures.
pub fn run(workspace: &Workspace, rounds: Option<usize>) -> anyhow::Result<Measured> {
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    let kerf = steps.need("the kerf program", || workspace.build_kerf())?;
    let library = steps.need("the plugin that counts", || Ok(plugin::build(&workspace.root, &workspace.target)?))?;
    let bench = bench(workspace, &setup, &kerf, library)?;
    let mut ticks = vec![Vec::new(); WAYS.len()];
    let mut counts = Vec::new();
    for round in 0..rounds.unwrap_or(ROUNDS).max(1) {
        for (way, (name, detail, _)) in WAYS.iter().enumerate() {
            steps.need(&format!("round {}: {name}", round + 1), || {
                let idle = bench.run(*detail, "-c true")?.ticks;
                let work = bench.run(*detail, "/work.sh")?;
                ticks[way].push(work.ticks.saturating_sub(idle) as f64);
                if let (Some(Detail::Sums), Some(profile)) = (detail, work.profile) {
                    let interval = profile.intervals.first().context("find the interval")?;
                    counts.push(interval.instructions.sum() as f64);
                }
                Ok(())
            })?;
        }
    }
    Ok(rows(&ticks, &counts))
}

fn bench(workspace: &Workspace, setup: &Setup, kerf: &Path, library: PathBuf) -> anyhow::Result<Bench> {
    let mut machine = Machine::new(&setup.cache, setup.kernel.clone(), kerf);
    machine.cpus = 1;
    machine.accelerator = Some(Accelerator::Tcg);
    machine.timeout = Duration::from_secs(900);
    machine.silence = Duration::from_secs(180);
    let host = workspace.root.join("xtask/data/measure/work.sh");
    machine.files.push(FileSpec { host, guest: "/work.sh".into() });
    let output = workspace.directory("bench/measure")?.join("profile.json");
    Ok(Bench { machine, library, output })
}

fn rows(ticks: &[Vec<f64>], counts: &[f64]) -> Measured {
    let (mut rows, mut complaints) = (Vec::new(), Vec::new());
    let nothing = ticks.first().and_then(|ticks| median(ticks)).unwrap_or(f64::NAN);
    rows.push(Row::new("processor_time", "one CPU, TCG", "nothing", nothing / 100.0, "s"));
    for ((name, _, most), ticks) in WAYS.iter().zip(ticks).skip(1) {
        let ratio = median(ticks).unwrap_or(f64::NAN) / nothing;
        rows.push(Row::new("overhead", "one CPU, TCG", name, ratio, "ratio to nothing"));
        if most.is_some_and(|most| ratio > most || ratio.is_nan()) {
            complaints.push(format!("{name}: {ratio:.2} times as long, more than {}", most.unwrap_or_default()));
        }
    }
    let (least, most) =
        (counts.iter().copied().fold(f64::NAN, f64::min), counts.iter().copied().fold(f64::NAN, f64::max));
    let spread = 100.0 * (most - least) / least;
    rows.push(Row::new("instructions", "one CPU, TCG", "work", median(counts).unwrap_or(f64::NAN), "instructions"));
    rows.push(Row::new("spread", "one CPU, TCG", "work", spread, "% between the least and the most"));
    if spread > REPEATS_WITHIN || spread.is_nan() {
        complaints.push(format!("counts of the same work differ by {spread:.2} %, more than {REPEATS_WITHIN}"));
    }
    Measured { rows, complaints }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 2 3 4 5 10 20 300 44 20 0 1 0 99";
        assert_eq!(ended(stat), Some(344));
        assert_eq!(ended("7 (a) S 1"), None);
    }

    #[test]
    fn what_costs_too_much_is_named() {
        let ticks = [&[100.0, 110.0, 90.0][..], &[120.0], &[150.0], &[300.0], &[700.0]].map(<[f64]>::to_vec);
        let measured = rows(&ticks, &[1000.0, 1002.0]);
        assert_eq!(measured.complaints.len(), 1, "{:?}", measured.complaints);
        assert!(measured.complaints[0].starts_with("caches: 7.00"));
        assert_eq!(measured.rows[1].value, 1.2);
        assert_eq!(rows(&ticks, &[1000.0, 1020.0]).complaints.len(), 2);
    }
}
