//! The part of bench `trigger` that runs in the machine: orders for the module that is measured, and what kerf.ko does with its
//! constant.

use anyhow::{Context, bail};
use clap::Subcommand;
use kerf_live::policy::{self, Object};
use kerf_live::{
    Argument, Change, Decider, DetourInstruction, Entry, Live, LoadedModule, Location, Mark, Number, Transaction,
};
use kerf_profile::mark;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// `mov $32, %eax`
pub const STOCK: [u8; 5] = [0xb8, 32, 0, 0, 0];
const ID: &str = "bench";

/// Numbers of operations whose counts are subtracted.
pub const OPERATIONS: [u32; 2] = [1000, 2000];
/// How often each is run.
pub const REPEATS: usize = 3;

/// How much an operation does, and how many of them it takes to pass the constant once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    work: u32,
    every: u32,
}

/// All of them; the first one has nothing but the constant.
pub fn cases() -> Vec<Case> {
    let every = [1, 10, 100];
    [0, 1000, 10_000].into_iter().flat_map(|work| every.map(|every| Case { work, every })).collect()
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "work of {} instructions, a trigger in {} operations", self.work, self.every)
    }
}

/// How the module's operations come to the constant. The numbers are the module's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// They pass it.
    Point = 1,
    /// They call a function that a BPF program may replace.
    Ask = 2,
    /// They call a BPF program through a struct of functions.
    Ops = 3,
}

impl Way {
    /// Its name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Way::Point => "point",
            Way::Ask => "ask",
            Way::Ops => "ops",
        }
    }

    fn read(text: &str) -> Result<Way, String> {
        let known = [Way::Point, Way::Ask, Way::Ops];
        known.into_iter().find(|way| way.word() == text).ok_or_else(|| format!("{text} is no way"))
    }
}

/// What to do in the machine.
#[derive(Subcommand)]
pub enum TriggerWord {
    /// Run all cases.
    Measure {
        #[arg(value_parser = Way::read)]
        way: Way,
    },
    /// Let kerf.ko set or decide on the module's constant: `detour`, `immediate`, or the name of a policy.
    Set { what: String, offset: u64 },
    /// The stock text again.
    Unset { what: String },
}

impl TriggerWord {
    /// Does it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            TriggerWord::Measure { way } => measure(way)?,
            TriggerWord::Set { what, offset } => set(&what, offset)?,
            TriggerWord::Unset { what } => unset(&what)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn measure(way: Way) -> anyhow::Result<()> {
    let mut device = File::options().write(true).open("/dev/kerf_bench").context("open the measured module")?;
    for case in cases() {
        for _ in 0..REPEATS {
            for operations in OPERATIONS {
                let order = [operations, case.work, case.every, way as u32].map(u32::to_le_bytes).concat();
                mark::begin();
                let result = device.write_all(&order);
                mark::end();
                result.context("give the module an order")?;
            }
        }
    }
    Ok(())
}

/// Where the module's function is.
fn function() -> anyhow::Result<u64> {
    let symbols = std::fs::read_to_string("/proc/kallsyms").context("read the symbols")?;
    let line = symbols.lines().find(|line| line.contains(&format!(" {}\t[kerf_bench]", super::FUNCTION)));
    let address = line.and_then(|line| u64::from_str_radix(line.split(' ').next()?, 16).ok());
    address.context("find the module's function")
}

fn set(what: &str, offset: u64) -> anyhow::Result<()> {
    let module = LoadedModule::find("kerf_bench").context("find the measured module")?;
    let image_offset = function()?.wrapping_sub(module.base) + offset;
    let mut live = Live::open().context("open kerf.ko")?;
    let mut transaction = Transaction::new(live.status().context("read kerf.ko")?.build_id);
    let instructions = |value: u8| vec![DetourInstruction { bytes: vec![0xb8, value, 0, 0, 0] }];
    let mut entry = Entry {
        id: ID.into(),
        value: 4,
        decider: None,
        locations: vec![],
        gates: vec![],
        spans: vec![],
        between: vec![],
    };
    let mut keep = None;
    let change = match what {
        "immediate" => Change::Immediate { field_offset: 1, bytes: vec![4, 0, 0, 0] },
        "detour" => Change::Detour { instructions: instructions(4) },
        name => {
            let object = Object::read(Path::new(&format!("/{name}.o"))).context("read the policy")?;
            let Some(tune) = object.tunes.first() else { bail!("find a program that decides in {name}") };
            let reads = policy::parameters_read(&tune.code).unwrap_or_default();
            let loaded = keep.insert(policy::load(&object, name).context("load the policy")?);
            let program = Some(loaded.program(&tune.program).context("find the program")?);
            let (ranges, forms) = (vec![(1, 100_000)], vec![Number::Affine { a: 1, b: 0 }]);
            entry.decider = Some(Decider { program, stock: 32, ranges, forms });
            entry.value = 32;
            transaction.owner = name.to_owned();
            let arguments = if reads.is_empty() { vec![] } else { vec![Argument::Register(7)] };
            let marks = vec![Mark { instruction: 0, part: 0, form: 0, bits: 32 }];
            Change::Decided { instructions: instructions(32), marks, arguments, execution: None }
        }
    };
    entry.locations.push(Location { target: module.target(), image_offset, expected: STOCK.to_vec(), change });
    transaction.entries.push(entry);
    live.set(&transaction).with_context(|| format!("set {what}"))?;
    Ok(())
}

/// After a policy that was never asked, or made other decisions than it should, the figures would mean nothing.
fn unset(what: &str) -> anyhow::Result<()> {
    let mut live = Live::open().context("open kerf.ko")?;
    let status = live.status().context("read kerf.ko")?;
    let counts = status.entries.first().and_then(|entry| entry.policy.as_ref());
    if let Some(counts) = counts {
        let expected = if what == "keeps" { counts.kept } else { counts.decided };
        if expected == 0 || expected != counts.hits {
            bail!("find {what} asked at each trigger: {counts:?}");
        }
        live.drop_policy(what, Duration::from_secs(2)).context("unload the policy")?;
    } else {
        live.unset_all().context("unset")?;
    }
    Ok(())
}
