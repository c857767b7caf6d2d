//! Bench `redis`: what tuned constants on the path of a Redis benchmark cost, in instructions for each request.
//!
//! `xtask/data/redis-constants.tsv` lists constants that the benchmark passes, and for each another value that makes no difference to it.
//! Those that are proved are set to that value, the first of them, the first 8 and so on, and then decided by a policy that says the
//! stock value each time. What runs in kerf.ko and in the policies' programs is counted apart: it is exact, while the sum of all
//! instructions also has what a timer's interrupts do, which come by the clock.

mod counts;
mod list;
mod report;

use self::counts::{Counted, Said};
use self::list::Constant;
use super::{Measured, Row};
use crate::setup::{self, Setup};
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, ensure};
use kerf_lab::host::Need;
use kerf_lab::{FileSpec, Machine, Plugin};
use kerf_profile::plugin::{self, Settings};
use kerf_profile::{Detail, Model, Profile, Wanted};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What the guest runs.
const SCRIPT: &str = "xtask/data/redis.sh";

/// Numbers of constants. Where the last is more than there are, all that there are take its place.
const SIZES: [usize; 4] = [1, 8, 32, 128];

/// SETs in an interval, and as many GETs.
const REQUESTS: u32 = 5000;

/// Rounds, unless fewer are wanted.
const ROUNDS: usize = 3;

/// The longest that the machine may take.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// The most that constants may cost, in percent of the stock kernel's instructions for a request.
const SET_AT_MOST: f64 = 0.3;
const POLICY_AT_MOST: f64 = 2.0;
/// With so many of them.
const POLICY_SIZE: usize = 32;

/// Builds the entries, measures, and writes figures and a report.
pub fn run(workspace: &Workspace, rounds: Option<usize>) -> anyhow::Result<Measured> {
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    setup::install(&mut steps, &[Need::Stores])?;
    let kerf = steps.need("the kerf program", || workspace.build_kerf())?;
    let library = steps.need("the plugin that counts", || Ok(plugin::build(&workspace.root, &workspace.target)?))?;
    let directory = workspace.directory("bench/redis")?;
    let module = steps.need("kerf.ko", || {
        kerf_lab::module::build(&setup.kernel, &workspace.root.join("kernel"), &directory).context("build kerf.ko")
    })?;
    let table = directory.join("scope.db");
    let list = workspace.root.join(list::FILE);
    let constants = steps.need("the constants on the benchmark's path", || {
        build(&setup, &kerf, &list, &table)?;
        list::proved(&list, &table)
    })?;
    println!("    {} are proved", constants.len());
    let mut machine = machine(workspace, &setup, &kerf);
    for (host, guest) in [(&module, "/kerf.ko"), (&table, "/var/lib/kerf/scope.db")] {
        machine.files.push(FileSpec { host: host.clone(), guest: guest.into() });
    }
    let rounds = rounds.unwrap_or(ROUNDS).max(1);
    let counted = steps
        .need("requests to a Redis server, counted", || measure(machine, library, &directory, &constants, rounds))?;
    let (rows, complaints) = judge(&counted, constants.len());
    let file = workspace.directory("bench")?.join("redis.html");
    std::fs::write(&file, report::html(&setup.kernel.release, &counted))
        .with_context(|| format!("write {}", file.display()))?;
    println!("the report is {}", file.display());
    Ok(Measured { rows, complaints })
}

/// Goes on where it was; what cannot be built is no failure of the bench.
fn build(setup: &Setup, kerf: &Path, list: &Path, table: &Path) -> anyhow::Result<()> {
    let source = setup.kernel.source.as_deref().context("find the kernel's source")?;
    let mut command = Command::new(kerf);
    command.args(["const", "build", "--from"]).arg(list).arg("--table").arg(table).stdin(Stdio::null());
    // The cache may have other kernels.
    command.arg("--source").arg(source).arg("--image").arg(&setup.kernel.vmlinuz);
    let status = command.stdout(Stdio::null()).status().context("run kerf const build")?;
    ensure!(status.code().is_some(), "build the entries: kerf ended with {status}");
    Ok(())
}

/// One CPU, which the plugin counts exactly, and nothing but the server and its clients.
fn machine(workspace: &Workspace, setup: &Setup, kerf: &Path) -> Machine {
    let mut machine = Machine::new(&setup.cache, setup.kernel.clone(), kerf);
    (machine.cpus, machine.timeout) = (1, TIMEOUT);
    let file = |host: PathBuf, guest: &str| FileSpec { host, guest: guest.into() };
    machine.files = vec![
        file(workspace.root.join(SCRIPT), "/redis.sh"),
        file("/usr/bin/redis-check-rdb".into(), "/usr/bin/redis-server"),
        file("/usr/bin/redis-benchmark".into(), "/usr/bin/redis-benchmark"),
        file("/usr/bin/redis-cli".into(), "/usr/bin/redis-cli"),
    ];
    machine
}

fn measure(
    mut machine: Machine,
    library: PathBuf,
    directory: &Path,
    constants: &[Constant],
    rounds: usize,
) -> anyhow::Result<Counted> {
    let (list, output) = (directory.join("redis.list"), directory.join("profile.json"));
    let lines: String = constants.iter().map(Constant::line).collect();
    std::fs::write(&list, lines).with_context(|| format!("write {}", list.display()))?;
    machine.files.push(FileSpec { host: list, guest: "/redis.list".into() });
    let wanted = Wanted { detail: Detail::Blocks, model: Model::default() };
    let settings = Settings { output: output.clone(), wanted, turns: false };
    machine.plugin = Some(Plugin { file: library, arguments: settings.arguments() });
    let mut command = vec!["sh".to_owned(), "/redis.sh".into(), REQUESTS.to_string(), rounds.to_string()];
    command.extend(SIZES.map(|size| size.to_string()));
    let outcome = machine.run(&command).context("run the benchmark in the machine")?;
    let (said, errors) = (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    let log = directory.join("guest.log");
    std::fs::write(&log, &outcome.stdout).with_context(|| format!("write {}", log.display()))?;
    ensure!(outcome.exit_code == 0, "run the benchmark: it ended with {}:\n{said}{errors}", outcome.exit_code);
    let said = Said::parse(&said)?;
    for refusal in &said.refused {
        println!("    not used: {refusal}");
    }
    Counted::new(&Profile::read(&output)?, said, f64::from(2 * REQUESTS))
}

/// Figures as rows, and what is not as it must be.
fn judge(counted: &Counted, proved: usize) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut complaints) = (Vec::new(), Vec::new());
    let (stock, spread) = (counted.stock, counted.spread);
    rows.push(Row::new("constants", "proved", "all", proved as f64, "constants"));
    rows.push(Row::new("constants", "passed by the benchmark", "all", counted.usable as f64, "constants"));
    rows.push(Row::new("instructions_per_request", "stock", "0", stock, "instructions"));
    rows.push(Row::new("spread", "stock", "0", spread, "% between the least and the most"));
    for case in &counted.cases {
        let (way, size) = (case.way.word(), case.size.to_string());
        let mut row = |metric, value, unit| rows.push(Row::new(metric, way, &size, value, unit));
        row("instructions_per_request", case.instructions, "instructions");
        row("passes_per_request", case.passes, "passes");
        row("kerf_per_request", case.kerf, "instructions in kerf.ko and policies");
        row("overhead", counted.overhead(case), "% of stock");
        row("difference", counted.difference(case), "% of stock, with what came by the clock");
    }
    for (function, instructions) in &counted.profile {
        rows.push(Row::new("instructions_per_pass", "policy", function, *instructions, "instructions"));
    }
    for size in SIZES {
        if size > counted.usable {
            complaints.push(format!(
                "{} constants are on the benchmark's path and can be set, fewer than {size}",
                counted.usable
            ));
        }
    }
    for case in &counted.cases {
        let (overhead, size, way) = (counted.overhead(case), case.size, case.way.word());
        let most = match case.way {
            counts::Way::Set => SET_AT_MOST,
            counts::Way::Policy if size <= POLICY_SIZE => POLICY_AT_MOST,
            counts::Way::Policy => continue,
        };
        if overhead > most || overhead.is_nan() {
            complaints.push(format!(
                "{size} constants, {way}: {overhead:.2} % more instructions a request, more than {most}"
            ));
        }
    }
    (rows, complaints)
}
