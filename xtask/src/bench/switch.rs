//! Bench `switch`: a constant is set and unset again and again while I/O runs; what it costs, and what it leaves behind.

use super::{Measured, Row};
use crate::guest::Text;
use crate::machine;
use crate::setup::Setup;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, bail, ensure};
use clap::Args;
use kerf_const::apply::{self, Choice, Running, Setting};
use kerf_const::entry::Entry;
use kerf_const::table::Table;
use kerf_lab::FileSpec;
use kerf_live::{Live, Transaction};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const NAME: &str = "BLK_MAX_REQUEST_COUNT";
const DISK: &str = "null_blk bs=4096 gb=1";
const CYCLES: usize = 2000;
const CPUS: u32 = 4;

/// A value for the immediates and one that needs a detour.
const VALUES: [i128; 2] = [4, 128];

/// Boots the machine in which [`GuestSwitch`] measures.
pub fn run(workspace: &Workspace, cycles: Option<usize>) -> anyhow::Result<Measured> {
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    let kerf = steps.need("the kerf program", || workspace.build_kerf())?;
    let directory = workspace.directory("bench")?;
    let module = steps.need("kerf.ko", || {
        kerf_lab::module::build(&setup.kernel, &workspace.root.join("kernel"), &directory).context("build kerf.ko")
    })?;
    let table = directory.join("scope.db");
    steps.need(&format!("kerf const build {NAME}"), || {
        let mut command = Command::new(&kerf);
        command.args(["const", "build", NAME, "--table"]).arg(&table).stdin(Stdio::null());
        let status = command.status().context("run kerf const build")?;
        ensure!(status.success(), "build the entry of {NAME}: kerf ended with {status}");
        Ok(())
    })?;
    let mut machine = machine::with_this_program(workspace, &setup, &kerf)?;
    machine.files.push(FileSpec { host: table, guest: "/scope.db".into() });
    machine.modules = vec![DISK.into(), module.to_string_lossy().into_owned()];
    machine.cpus = CPUS;
    machine.append.push("preempt=full".into());
    machine.timeout = Duration::from_secs(1800);
    let cycles = cycles.unwrap_or(CYCLES).to_string();
    let command = ["xtask", "guest-switch", "/scope.db", &cycles].map(str::to_owned);
    let outcome = steps.need(&format!("{cycles} cycles on {CPUS} CPUs, preempt=full, I/O running"), || {
        machine.run(&command).context("switch in the machine")
    })?;
    let errors = String::from_utf8_lossy(&outcome.stderr);
    let rows = serde_json::from_slice(&outcome.stdout).unwrap_or_default();
    let complaints = if outcome.exit_code == 0 { Vec::new() } else { vec![errors.trim().to_owned()] };
    Ok(Measured { rows, complaints })
}

/// The part that runs in the machine.
#[derive(Args)]
pub struct GuestSwitch {
    table: PathBuf,
    cycles: usize,
}

/// What the switches took.
#[derive(Default)]
struct Stops {
    switches: u32,
    attempts: u32,
    stopped: Duration,
    longest: Duration,
    given_up: u32,
}

impl GuestSwitch {
    /// Switches, measures, compares, and prints the figures as JSON.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut live = Live::open().context("open kerf.ko")?;
        let status = live.status().context("read kerf.ko")?;
        let entry = Table::open(&self.table)?.find(&status.build_id.to_string(), NAME)?;
        let running = Running { slide: status.text_base.wrapping_sub(entry.image.text), module: None };
        let before = Text::read()?;
        let start = Instant::now();
        let (stops, requests) = under_load(|| self.switch(&mut live, &entry, &running))?;
        let seconds = start.elapsed().as_secs_f64();
        let differing = Text::read()?.differences(before.bytes());
        let status = live.status().context("read kerf.ko")?;
        let rows = self.rows(&stops, requests, seconds, differing.len());
        println!("{}", serde_json::to_string(&rows).context("write down the figures")?);
        ensure!(differing.is_empty(), "find stock text: {}", differing.join(", "));
        ensure!(status.entries.is_empty() && status.pool.used == 0, "find nothing set: {status:?}");
        Ok(ExitCode::SUCCESS)
    }

    fn switch(&self, live: &mut Live, entry: &Entry, running: &Running) -> anyhow::Result<Stops> {
        let mut stops = Stops::default();
        for _ in 0..self.cycles {
            for value in VALUES {
                let setting = Setting::Value(value);
                apply::check(entry, setting)?;
                let mut transaction = Transaction::new(live.status()?.build_id);
                transaction.entries.push(apply::live_entry(entry, setting, Choice::Cheapest, running)?);
                stops.add(|| live.set(&transaction))?;
            }
            stops.add(|| live.unset_all())?;
        }
        Ok(stops)
    }

    fn rows(&self, stops: &Stops, requests: u64, seconds: f64, differing: usize) -> Vec<Row> {
        let case = format!("{} cycles, {CPUS} CPUs, preempt=full, load", self.cycles);
        let row = |metric: &str, value: f64, unit: &str| Row::new(metric, &case, NAME, value, unit);
        let switches = f64::from(stops.switches.max(1));
        vec![
            row("switches", f64::from(stops.switches), "switches"),
            row("time in all", seconds, "s"),
            row("stops of the CPUs for a switch, mean", f64::from(stops.attempts) / switches, "stops"),
            row("last stop of a switch, mean", stops.stopped.as_secs_f64() * 1e6 / switches, "us"),
            row("last stop of a switch, longest", stops.longest.as_secs_f64() * 1e6, "us"),
            row("switches that gave up and were tried again", f64::from(stops.given_up), "switches"),
            row("4 MiB writes meanwhile", requests as f64, "writes"),
            row("bytes of text that differ at the end", differing as f64, "bytes"),
        ]
    }
}

impl Stops {
    /// Does a switch until it succeeds: tasks may be in the code for as long as the time limit.
    fn add(
        &mut self,
        mut switch: impl FnMut() -> Result<kerf_live::Outcome, kerf_live::LiveError>,
    ) -> anyhow::Result<()> {
        for _ in 0..10 {
            match switch() {
                Ok(outcome) => {
                    self.switches += 1;
                    self.attempts += outcome.attempts;
                    self.stopped += outcome.stop;
                    self.longest = self.longest.max(outcome.stop);
                    return Ok(());
                }
                Err(kerf_live::LiveError::Busy(_)) => self.given_up += 1,
                Err(error) => return Err(error).context("switch"),
            }
        }
        bail!("switch: tasks did not leave the code in ten attempts")
    }
}

/// Does `work` while two threads write to the disk; gives the number of their writes too.
fn under_load<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, u64)> {
    let (stop, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    let load = || -> anyhow::Result<()> {
        let block = vec![0; 4 << 20];
        while !stop.load(Ordering::Relaxed) {
            let mut disk = File::options().write(true).open("/dev/nullb0").context("open the disk")?;
            disk.write_all(&block).and_then(|()| disk.sync_all()).context("write to the disk")?;
            writes.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let result = std::thread::scope(|scope| {
        let threads = [scope.spawn(load), scope.spawn(load)];
        let result = work();
        stop.store(true, Ordering::Relaxed);
        let loads = threads.map(|thread| thread.join().unwrap_or_else(|_| bail!("run the load: it panicked")));
        loads.into_iter().collect::<anyhow::Result<Vec<()>>>().and(result)
    })?;
    Ok((result, writes.into_inner()))
}
