//! Bench `transitions`: how long a switch by task or globally takes while threads run through the safe span, beside a livepatch of the
//! same function in the same machine; and how long a policy takes to load, by the number of its places.

use super::{Measured, Row, median};
use crate::machine;
use crate::setup::Setup;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, bail, ensure};
use clap::Args;
use kerf_image::Image;
use kerf_lab::FileSpec;
use kerf_live::policy::{self, Object};
use kerf_live::{
    Change, Decider, DetourInstruction, Entry, Live, LoadedModule, Location, Mark, Mode, Number, SafeSpan, Target,
    Transaction, module,
};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CPUS: u32 = 4;
const THREADS: [u32; 5] = [1, 2, 4, 8, 16];
/// Functions between the safe span's own and the one that uses the value.
const DEPTHS: [u32; 3] = [0, 8, 32];
const PLACES: [usize; 5] = [1, 2, 4, 8, 15];
const REPEATS: usize = 3;
/// How long a call stays inside, in microseconds, and how long its thread rests then.
const INSIDE: u32 = 300;
const REST: Duration = Duration::from_millis(1);

const SPANS: &str = "/sys/kernel/debug/kerf_test_spans";
const LIVEPATCH: &str = "/sys/kernel/livepatch/kerf_test_livepatch_top";

/// Boots the machine in which [`GuestTransitions`] measures.
pub fn run(workspace: &Workspace, repeats: Option<usize>) -> anyhow::Result<Measured> {
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    let kerf = steps.need("the kerf program", || workspace.build_kerf())?;
    let directory = workspace.directory("bench")?;
    let mut machine = machine::with_this_program(workspace, &setup, &kerf)?;
    let mut modules = Vec::new();
    for source in ["kernel", "kernel/test", "kernel/test/livepatch_top"] {
        modules.push(steps.need(source, || {
            kerf_lab::module::build(&setup.kernel, &workspace.root.join(source), &directory).context("build a module")
        })?);
    }
    let object = directory.join("values.bpf.o");
    steps.need("a policy", || {
        let source = workspace.root.join("crates/kerf-live/tests/fixtures/values.bpf.c");
        let mut clang = Command::new("clang");
        clang.args(["-O2", "-target", "bpf", "-mcpu=v3", "-c"]).arg(source).arg("-o").arg(&object);
        ensure!(clang.status().context("run clang")?.success(), "compile a policy");
        Ok(())
    })?;
    if let Some(livepatch) = modules.pop() {
        machine.files.push(FileSpec { host: livepatch, guest: "/livepatch_top.ko".into() });
    }
    machine.files.push(FileSpec { host: object, guest: "/values.bpf.o".into() });
    machine.modules = modules.iter().map(|module| module.to_string_lossy().into_owned()).collect();
    machine.cpus = CPUS;
    machine.in_turns = true;
    machine.append.push("preempt=full".into());
    machine.timeout = Duration::from_secs(1800);
    let repeats = repeats.unwrap_or(REPEATS).to_string();
    let outcome = steps.need(&format!("switches and livepatches on {CPUS} CPUs, preempt=full"), || {
        machine.run(&["xtask", "guest-transitions", &repeats].map(str::to_owned)).context("switch in the machine")
    })?;
    let errors = String::from_utf8_lossy(&outcome.stderr);
    let rows: Vec<Row> = serde_json::from_slice(&outcome.stdout).unwrap_or_default();
    let slow = rows.iter().filter(|row| row.metric == "ratio_to_livepatch" && row.value >= 1.0);
    let slow = slow.map(|row| format!("{}, {}: {:.2} of a livepatch's time", row.subject, row.case, row.value));
    let failed = (outcome.exit_code != 0).then(|| errors.trim().to_owned());
    let complaints = slow.chain(failed).collect();
    Ok(Measured { rows, complaints })
}

/// The part that runs in the machine.
#[derive(Args)]
pub struct GuestTransitions {
    repeats: usize,
}

impl GuestTransitions {
    /// Measures, and prints the figures as JSON.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut live = Live::open().context("open kerf.ko")?;
        let image = Image::running().context("read the running kernel")?;
        let mut rows = Vec::new();
        let place = Place::find(&image)?;
        for depth in DEPTHS {
            for threads in THREADS {
                let times = under_load(threads, depth, || self.measure(&mut live, &place))?;
                rows.extend(times.rows(threads, depth));
            }
        }
        for places in PLACES {
            rows.extend(load(&mut live, &image, places, self.repeats)?);
        }
        println!("{}", serde_json::to_string(&rows).context("write down the figures")?);
        Ok(ExitCode::SUCCESS)
    }

    /// All of one circumstance in turns, so that the machine's moods are shared.
    fn measure(&self, live: &mut Live, place: &Place) -> anyhow::Result<Times> {
        let mut times = Times::default();
        for _ in 0..self.repeats {
            for value in [7, 16] {
                times.task.push(switch(live, place, Mode::Task, value)?);
            }
            for value in [7, 16] {
                times.global.push(switch(live, place, Mode::Global, value)?);
            }
            let (on, off) = livepatch()?;
            times.livepatch.push(on);
            times.livepatch_off.push(off);
        }
        Ok(times)
    }
}

/// Milliseconds.
#[derive(Default)]
struct Times {
    task: Vec<f64>,
    global: Vec<f64>,
    livepatch: Vec<f64>,
    livepatch_off: Vec<f64>,
}

impl Times {
    fn rows(&self, threads: u32, depth: u32) -> Vec<Row> {
        let count = if threads == 1 { "1 thread".to_string() } else { format!("{threads} threads") };
        let case = if depth == DEPTHS[0] { count } else { format!("{count}, call depth {depth}") };
        let middle = |values: &[f64]| median(values).unwrap_or(f64::NAN);
        let (on, off) = (middle(&self.livepatch), middle(&self.livepatch_off));
        let time = |subject: &str, value: f64| Row::new("switch_time", &case, subject, value, "ms");
        let mut rows = Vec::new();
        for (subject, own) in [("task", middle(&self.task)), ("global", middle(&self.global))] {
            rows.push(Row::new("ratio_to_livepatch", &case, subject, own / on, "ratio"));
            rows.push(Row::new("ratio_to_livepatch_leaving", &case, subject, own / off, "ratio"));
            rows.push(time(subject, own));
        }
        rows.extend([time("livepatch", on), time("livepatch leaving", off)]);
        rows
    }
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Does `work` while threads call through the safe span, each returning to user mode after every call.
fn under_load<T>(threads: u32, depth: u32, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let stop = AtomicBool::new(false);
    let order = format!("call 1 {INSIDE} {depth}");
    let call = || -> anyhow::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            std::fs::write(SPANS, &order).context("call through the safe span")?;
            std::thread::sleep(REST);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..threads).map(|_| scope.spawn(call)).collect();
        let result = work();
        stop.store(true, Ordering::Relaxed);
        let ends = callers.into_iter().map(|caller| caller.join().unwrap_or_else(|_| bail!("call: it panicked")));
        ends.collect::<anyhow::Result<Vec<()>>>().and(result)
    })
}

/// Offsets in kerf_test.ko.
struct Place {
    target: Target,
    uses: [(u64, [u8; 5]); 2],
    span: SafeSpan,
}

impl Place {
    fn find(image: &Image) -> anyhow::Result<Place> {
        let module = LoadedModule::find("kerf_test").context("find kerf_test.ko")?;
        let target = module.target();
        let (first, second) = ([0xbb, 0x10, 0, 0, 0], [0xb8, 0x10, 0, 0, 0]);
        let (span, code) = function(image, "kerf_test_span")?;
        let (top, body) = function(image, "kerf_test_top")?;
        let at = |pattern: &[u8]| code.windows(5).position(|w| w == pattern).context("find the constant");
        let uses = [(span + at(&first)? as u64, first), (span + at(&second)? as u64, second)];
        let uses = uses.map(|(address, bytes)| (address - module.base, bytes));
        // A return, or the jump to the kernel's own.
        let ret = body.windows(5).rposition(|w| w == [0xc3, 0xcc, 0xcc, 0xcc, 0xcc] || w.first() == Some(&0xe9));
        let entry = top - module.base;
        let ranges = vec![(entry + 1, entry + body.len() as u64)];
        let exits = ret.map(|ret| entry + ret as u64).into_iter().collect();
        Ok(Place { target: target.clone(), uses, span: SafeSpan { target, entry, ranges, exits } })
    }

    fn entry(&self, value: i64) -> Entry {
        let at = |change: &dyn Fn(&[u8; 5]) -> Change| -> Vec<Location> {
            let location = |(image_offset, stock): &(u64, [u8; 5])| Location {
                target: self.target.clone(),
                image_offset: *image_offset,
                expected: stock.to_vec(),
                change: change(stock),
            };
            self.uses.iter().map(location).collect()
        };
        let new = |_: &[u8; 5]| Change::Immediate { field_offset: 1, bytes: (value as u32).to_le_bytes().to_vec() };
        Entry {
            id: "span".into(),
            value,
            decider: Some(decider(None)),
            locations: if value == 16 { Vec::new() } else { at(&new) },
            gates: at(&|stock| decided(stock)),
            spans: vec![self.span.clone()],
            between: Vec::new(),
        }
    }
}

/// Address and bytes.
fn function(image: &Image, name: &str) -> anyhow::Result<(u64, Vec<u8>)> {
    let symbol = image.symbols_named(name).next().with_context(|| format!("find {name} in /proc/kallsyms"))?;
    let size = symbol.size.filter(|size| *size > 0).with_context(|| format!("find the end of {name}"))?;
    let bytes = image.bytes(symbol.address, size as usize).with_context(|| format!("read {name}"))?;
    Ok((symbol.address, bytes.into_owned()))
}

fn decider(program: Option<i32>) -> Decider {
    let ranges = if program.is_some() { vec![(1, 255)] } else { Vec::new() };
    Decider { program, stock: 16, ranges, forms: vec![Number::Affine { a: 1, b: 0 }] }
}

fn decided(stock: &[u8]) -> Change {
    Change::Decided {
        instructions: vec![DetourInstruction { bytes: stock.to_vec() }],
        marks: vec![Mark { instruction: 0, part: 0, form: 0, bits: 32 }],
        arguments: Vec::new(),
        execution: None,
    }
}

/// A switch, from before the request to after the answer.
fn switch(live: &mut Live, place: &Place, mode: Mode, value: i64) -> anyhow::Result<f64> {
    let mut transaction = Transaction::new(live.status()?.build_id);
    (transaction.mode, transaction.timeout) = (mode, Duration::from_secs(60));
    transaction.entries.push(place.entry(value));
    let start = Instant::now();
    live.set(&transaction).context("switch")?;
    Ok(milliseconds(start))
}

/// A livepatch from before it is loaded to the end of its transition, and from the order to leave to its end.
fn livepatch() -> anyhow::Result<(f64, f64)> {
    let start = Instant::now();
    module::load(Path::new("/livepatch_top.ko")).context("load the livepatch")?;
    while std::fs::read_to_string(format!("{LIVEPATCH}/transition")).context("look at the livepatch")?.trim() != "0" {
        std::thread::sleep(Duration::from_millis(1));
    }
    let on = milliseconds(start);
    let start = Instant::now();
    std::fs::write(format!("{LIVEPATCH}/enabled"), "0").context("disable the livepatch")?;
    while Path::new(LIVEPATCH).exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let off = milliseconds(start);
    for _ in 0..100 {
        let gone = Command::new("rmmod").arg("kerf_test_livepatch_top").output().context("run rmmod")?;
        if gone.status.success() {
            return Ok((on, off));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("unload the livepatch: it stays in use")
}

/// Loads a policy that decides at some places of one function, again and again.
fn load(live: &mut Live, image: &Image, places: usize, repeats: usize) -> anyhow::Result<Vec<Row>> {
    const STOCK: [u8; 5] = [0xb8, 0x10, 0, 0, 0];
    let module = LoadedModule::find("kerf_test").context("find kerf_test.ko")?;
    let (start, code) = function(image, "kerf_test_many")?;
    let first = start - module.base + code.windows(5).position(|w| w == STOCK).context("find the constant")? as u64;
    let location = |n: usize| Location {
        target: module.target(),
        image_offset: first + 5 * n as u64,
        expected: STOCK.to_vec(),
        change: decided(&STOCK),
    };
    let object = Object::read(Path::new("/values.bpf.o"))?;
    let (mut verified, mut written, mut stopped) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..repeats {
        let begin = Instant::now();
        let loaded = policy::load(&object, "load-time")?;
        verified.push(milliseconds(begin));
        let mut transaction = Transaction::new(live.status()?.build_id);
        transaction.owner = "values".into();
        transaction.entries.push(Entry {
            id: "many".into(),
            value: 16,
            decider: Some(decider(Some(loaded.program("other_each_time")?))),
            locations: (0..places).map(location).collect(),
            gates: Vec::new(),
            spans: Vec::new(),
            between: Vec::new(),
        });
        let begin = Instant::now();
        let outcome = live.set(&transaction).context("load a policy")?;
        written.push(milliseconds(begin));
        stopped.push(outcome.stop.as_secs_f64() * 1e3);
        live.drop_policy("values", Duration::from_secs(60)).context("unload a policy")?;
    }
    let case = if places == 1 { "1 place".to_string() } else { format!("{places} places") };
    let parts = [("verifier", verified), ("module", written), ("module, CPUs stopped", stopped)];
    let row = |(subject, values): (&str, Vec<f64>)| {
        Row::new("load_time", &case, subject, median(&values).unwrap_or(f64::NAN), "ms")
    };
    Ok(parts.map(row).into())
}
