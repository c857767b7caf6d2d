//! `cargo xtask demo`: a constant of the distribution's kernel changes while I/O runs, and the I/O follows.

mod constant;
mod plot;
mod report;
mod trace;
mod verdict;

use crate::machine;
use crate::setup::Setup;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};
use constant::Built;
use kerf_lab::{FileSpec, Machine, Outcome, Sink};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use verdict::Row;

/// The limit of requests that the block layer gathers before it hands them over.
const NAME: &str = "BLK_MAX_REQUEST_COUNT";

/// One that fits the instruction's own field, one that does not, one more that does.
const VALUES: [u32; 3] = [4, 128, 16];

/// A disk without a disk: it completes requests at once, so only the limit decides how large batches are.
const DISK: &str = "null_blk bs=4096 gb=1 submit_queues=1 hw_queue_depth=1024 irqmode=0";

/// Sets everything up, plays the demo, prints its table and writes its report.
pub fn run() -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let workspace = Workspace::find()?;
    let directory = workspace.directory("demo")?;
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    let kerf = steps.need("the kerf program", || workspace.build_kerf())?;
    let module = steps.need("kerf.ko", || {
        kerf_lab::module::build(&setup.kernel, &workspace.root.join("kernel"), &directory).context("build kerf.ko")
    })?;
    let table = directory.join("scope.db");
    let built = steps.need(&format!("kerf const build {NAME}"), || {
        let built = constant::build(&kerf, NAME, &table)?;
        describe(&built);
        Ok(built)
    })?;
    let machine = machine(&workspace, &setup, &kerf, &module, &table)?;
    let accelerator = machine.accelerator()?;
    let play = format!("stock {} in a virtual machine ({accelerator}), I/O running", setup.kernel.release);
    let (outcome, seen) = steps.need(&play, || play_in(&machine))?;
    let file = directory.join("report.html");
    let good = conclude(&setup, &built, &outcome, &seen, &file)?;
    let shown = file.strip_prefix(&workspace.root).unwrap_or(&file).display();
    println!("\nreport: {shown}\n{:.0} s in all", start.elapsed().as_secs_f64());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe(built: &Built) {
    println!("    {} = {} at {}: {}", built.name, built.value, built.place, built.reason);
    println!("    values that may be set: {}", built.domain);
    for span in &built.spans {
        println!("    {}: {}", span.place, span.expression);
    }
}

fn machine(workspace: &Workspace, setup: &Setup, kerf: &Path, module: &Path, table: &Path) -> anyhow::Result<Machine> {
    let mut machine = machine::with_this_program(workspace, setup, kerf)?;
    let script: PathBuf = workspace.root.join("xtask/data/demo.sh");
    machine.files.push(FileSpec { host: script, guest: "/demo.sh".into() });
    machine.files.push(FileSpec { host: table.to_owned(), guest: "/scope.db".into() });
    machine.modules = vec![DISK.into(), module.to_string_lossy().into_owned()];
    Ok(machine)
}

fn play_in(machine: &Machine) -> anyhow::Result<(Outcome, Seen)> {
    let values = VALUES.iter().map(u32::to_string);
    let command: Vec<String> = ["sh", "/demo.sh", NAME].map(str::to_owned).into_iter().chain(values).collect();
    let mut seen = Seen::default();
    let outcome = machine.run_streaming(&command, &mut seen).context("play the demo in the machine")?;
    if outcome.exit_code != 0 {
        bail!("play the demo in the machine: its script ended with {}", outcome.exit_code);
    }
    Ok((outcome, seen))
}

/// The guest's output: the trace is kept, what a person would see is shown as it comes and kept too.
#[derive(Default)]
struct Seen {
    trace: Vec<u8>,
    transcript: Vec<u8>,
}

impl Sink for Seen {
    fn stdout(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.trace.extend_from_slice(bytes);
        Ok(())
    }

    fn stderr(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.transcript.extend_from_slice(bytes);
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }
}

/// Prints the table, writes the report and says whether everything was as it should be.
fn conclude(setup: &Setup, built: &Built, outcome: &Outcome, seen: &Seen, file: &Path) -> anyhow::Result<bool> {
    let (trace, placements) = verdict::read(&String::from_utf8_lossy(&seen.trace));
    let rows = verdict::rows(&trace, &placements);
    let complaints = verdict::complaints(&rows, &VALUES, built.value);
    println!("\n{}", table(&rows));
    let report = report::Report {
        release: &setup.kernel.release,
        accelerator: &outcome.accelerator.to_string(),
        built,
        rows: &rows,
        trace: &trace,
        transcript: &String::from_utf8_lossy(&seen.transcript),
        complaints: &complaints,
    };
    std::fs::write(file, report.html()).with_context(|| format!("write {}", file.display()))?;
    for complaint in &complaints {
        println!("NOT AS IT SHOULD BE: {complaint}");
    }
    if complaints.is_empty() {
        // The lab ends a run at the first warning or fault, the script at a difference.
        println!("the batches followed; the kernel's text is stock again, byte for byte, and its log is clean");
    }
    Ok(complaints.is_empty())
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["value set", "placement", "median batch", "largest batch", "batches", "requests"]);
    for row in rows {
        let numbers = [u64::from(row.median), row.largest.into(), row.batches as u64, row.requests];
        let cells = [row.value.to_string(), row.placement.clone()].into_iter();
        table.add_row(cells.chain(numbers.map(|number| number.to_string())));
    }
    for column in 2..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
