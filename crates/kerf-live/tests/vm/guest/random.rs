//! Random operations from a seed, and after each of them the kernel held against a model: what is set, what the code does, what is left.

use std::error::Error;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use kerf_live::policy::Loaded;
use kerf_live::{Entry, Live, LiveError, Mode, Range, Transaction};

use super::executions::{OTHER_EACH_TIME, program, shared};
use super::tools::*;
use super::transitions::{FIRST, Place, Reach, SPANS, counted};
use super::{Outcome, kcore};

const ID: &str = "span";
const STOCK: i64 = 16;
const GROUP: &str = "/sys/fs/cgroup/kerf_tiny";

/// What should be in force.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Model {
    Stock,
    Value(i64),
    Policy(String),
}

/// xorshift64*: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }

    fn mode(&mut self) -> Mode {
        [Mode::Immediate, Mode::Task, Mode::Global][self.below(3) as usize]
    }
}

/// The kernel, what it should be, and what is needed to change it.
struct Run {
    live: Live,
    place: Place,
    model: Model,
    /// Keeps the maps of the policies.
    programs: Vec<Loaded>,
    random: Random,
    refused: u32,
}

/// Nobody may be between the two uses when both change at once.
fn between(place: &Place, mut entry: Entry) -> Entry {
    entry.between.push(Range::between(place.target.clone(), place.first, place.second + 5));
    entry
}

fn value_of(place: &Place, value: i64) -> Entry {
    between(place, place.entry(value))
}

impl Run {
    fn transaction(&mut self, mode: Mode) -> Result<Transaction, Box<dyn Error>> {
        let mut transaction = transaction(&mut self.live)?;
        (transaction.mode, transaction.timeout) = (mode, Duration::from_secs(30));
        Ok(transaction)
    }

    /// Carries a transaction out. It must succeed, or be refused because of another owner if the model says so.
    fn submit(&mut self, transaction: &Transaction, free: bool, then: Model) -> Outcome {
        match self.live.set(transaction) {
            Ok(_) if free => self.model = then,
            Err(LiveError::Owned(_)) if !free => self.refused += 1,
            other => {
                return Err(
                    format!("{other:?}, but it should have been {}", if free { "done" } else { "refused" }).into()
                );
            }
        }
        Ok(())
    }

    fn set(&mut self) -> Outcome {
        let (value, mode) = (20 + self.random.below(200) as i64, self.random.mode());
        let free = !matches!(self.model, Model::Policy(_));
        let mut transaction = self.transaction(mode)?;
        transaction.entries.push(value_of(&self.place, value));
        self.submit(&transaction, free, Model::Value(value))
    }

    fn load(&mut self, replace: bool) -> Outcome {
        let (name, mode) = (format!("policy{}", self.random.below(3)), self.random.mode());
        let mut transaction = self.transaction(mode)?;
        transaction.owner = name.clone();
        transaction.replace = replace;
        let free = match &self.model {
            Model::Policy(old) => {
                transaction.drop = replace.then(|| old.clone());
                replace
            }
            Model::Value(_) => replace,
            Model::Stock => true,
        };
        let loaded = program()?;
        transaction.entries.push(between(&self.place, shared(&self.place, loaded.program(OTHER_EACH_TIME)?)));
        self.programs.push(loaded);
        self.submit(&transaction, free, Model::Policy(name))
    }

    /// The stock value, however it is not.
    fn back(&mut self) -> Outcome {
        let mode = self.random.mode();
        let mut transaction = self.transaction(mode)?;
        match &self.model {
            Model::Stock => return Ok(()),
            Model::Policy(name) => transaction.drop = Some(name.clone()),
            Model::Value(_) if mode == Mode::Immediate => transaction.unset.push(ID.into()),
            Model::Value(_) => {}
        }
        if mode != Mode::Immediate {
            transaction.entries.push(value_of(&self.place, STOCK));
        }
        self.submit(&transaction, true, Model::Stock)
    }

    /// The writer of a new value dies at some moment: all of it is in force, or nothing.
    fn kill(&mut self) -> Outcome {
        let value = 20 + self.random.below(200) as i64;
        let mut child = writer(value, self.random.mode())?;
        thread::sleep(Duration::from_micros(self.random.below(60_000)));
        child.kill()?;
        child.wait()?;
        self.adopt(value)
    }

    fn adopt(&mut self, value: i64) -> Outcome {
        let set = self.live.status()?.entries.first().map(|entry| (entry.value, entry.policy.is_some()));
        if set == Some((value, false)) && !matches!(self.model, Model::Policy(_)) {
            self.model = Model::Value(value);
        }
        Ok(())
    }

    /// A CPU goes and comes while a writer writes.
    fn hotplug(&mut self) -> Outcome {
        let value = 20 + self.random.below(200) as i64;
        let mut child = writer(value, self.random.mode())?;
        for word in ["0", "1"] {
            write("/sys/devices/system/cpu/cpu1/online", word)?;
        }
        ensure(child.wait()?.success(), || "the writer failed".into())?;
        self.adopt(value)
    }

    /// The target goes, with all that is set in it, and comes back as stock.
    fn reload(&mut self) -> Outcome {
        write(SPANS, "stop")?;
        same("mixed values", counted("mixed")?, 0)?;
        run("rmmod", &["kerf_test"])?;
        run("insmod", &["/kerf_test.ko"])?;
        self.place = Place::find(Reach::Span)?;
        self.model = Model::Stock;
        write(SPANS, "workers 2 200 1")
    }

    /// A writer that has next to no memory.
    fn pressure(&mut self) -> Outcome {
        let value = 20 + self.random.below(200) as i64;
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(format!(
                "echo $$ > {GROUP}/cgroup.procs && exec {} guest random-writer-{value}-1",
                std::env::current_exe()?.display()
            ))
            .spawn()?;
        ensure(child.wait()?.success(), || "the writer failed".into())?;
        self.adopt(value)
    }

    /// Somebody else's probe on our code: we keep off it, in both directions.
    fn probe(&mut self) -> Outcome {
        let function = test_symbol("span")? - kcore::module_base("kerf_test")?;
        write(SPANS, &format!("probe {}", self.place.first - function))?;
        let mode = self.random.mode();
        let mut transaction = self.transaction(mode)?;
        transaction.entries.push(value_of(&self.place, 30));
        let model = self.model.clone();
        let result = self.submit(&transaction, false, model);
        write(SPANS, "unprobe")?;
        result
    }

    fn step(&mut self) -> Result<&'static str, Box<dyn Error>> {
        let (name, outcome) = match self.random.below(16) {
            0..4 => ("set", self.set()),
            4..6 => ("load", self.load(false)),
            6..8 => ("replace", self.load(true)),
            8..11 => ("back", self.back()),
            11..13 => ("kill", self.kill()),
            13 => match self.random.below(3) {
                0 => ("hotplug", self.hotplug()),
                1 => ("reload", self.reload()),
                _ => ("pressure", self.pressure()),
            },
            _ => ("probe", self.probe()),
        };
        outcome.map_err(|error| format!("{name}: {error}"))?;
        Ok(name)
    }

    /// What the module says, what the text holds, what the code does, and what is left of others.
    fn compare(&mut self) -> Outcome {
        let status = self.live.status()?;
        let found = match status.entries.as_slice() {
            [] => Model::Stock,
            [entry] => match &entry.policy {
                Some(policy) => Model::Policy(policy.owner.clone()),
                None => Model::Value(entry.value),
            },
            more => return Err(format!("{} entries", more.len()).into()),
        };
        same("what is set", &found, &self.model)?;
        ensure(status.entries.iter().all(|entry| entry.in_force()), || format!("not in force: {status:?}"))?;
        let slots = if matches!(found, Model::Policy(_)) { 2 } else { 0 };
        same("trampolines in use", status.pool.used, slots)?;
        let stock = kcore::find(test_symbol("span")?, 64, &FIRST).is_ok();
        same("stock text", stock, found == Model::Stock)?;
        let before = (counted("calls")?, seen(&found)?);
        write(SPANS, "call 1 0 0")?;
        ensure(counted("calls")? > before.0 && seen(&found)? > before.1, || format!("the code does not do {found:?}"))?;
        same("mixed values", counted("mixed")?, 0)?;
        let probes = std::fs::read_to_string("/sys/kernel/debug/kprobes/list")?;
        ensure(!probes.contains("kerf_test"), || format!("probes are left:\n{probes}"))
    }
}

/// How many calls had a value that the model allows.
fn seen(model: &Model) -> Result<i64, Box<dyn Error>> {
    match model {
        Model::Stock => counted("seen16"),
        Model::Value(value) => counted(&format!("seen{value}")),
        Model::Policy(_) => Ok(counted("calls")? - counted("seen16")?),
    }
}

fn writer(value: i64, mode: Mode) -> Result<Child, Box<dyn Error>> {
    Ok(Command::new(std::env::current_exe()?)
        .args(["guest", &format!("random-writer-{value}-{}", mode as u8)])
        .spawn()?)
}

/// A process that sets one value, as `random-writer-VALUE-MODE`. Another owner is no failure.
pub fn write_one(words: &str) -> Outcome {
    let (value, mode) = words.split_once('-').ok_or("VALUE-MODE is missing")?;
    let mode = [Mode::Immediate, Mode::Task, Mode::Global][mode.parse::<usize>()?.min(2)];
    let (mut live, place) = (Live::open()?, Place::remembered()?);
    let mut transaction = transaction(&mut live)?;
    (transaction.mode, transaction.timeout) = (mode, Duration::from_secs(30));
    transaction.entries.push(value_of(&place, value.parse()?));
    match live.set(&transaction) {
        Err(LiveError::Owned(_)) | Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn tiny_group() -> Outcome {
    std::fs::create_dir_all("/sys/fs/cgroup")?;
    if !std::fs::exists("/sys/fs/cgroup/cgroup.controllers")? {
        run("mount", &["-t", "cgroup2", "none", "/sys/fs/cgroup"])?;
    }
    write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")?;
    std::fs::create_dir_all(GROUP)?;
    write(&format!("{GROUP}/memory.high"), "2M")
}

/// `count` operations from `seed`.
pub fn operations(count: u32, seed: u64) -> Outcome {
    tiny_group()?;
    let place = Place::find(Reach::Span)?;
    place.remember()?;
    let random = Random(seed | 1);
    let mut run = Run { live: Live::open()?, place, model: Model::Stock, programs: Vec::new(), random, refused: 0 };
    write(SPANS, "workers 2 200 1")?;
    let mut done = std::collections::BTreeMap::new();
    for n in 0..count {
        let step = run.step().and_then(|name| run.compare().map(|()| name));
        let name = step.map_err(|error| format!("seed {seed}, operation {n}, model {:?}: {error}", run.model))?;
        *done.entry(name).or_insert(0) += 1;
        // A policy's maps go when nobody decides any more.
        if run.model == Model::Stock {
            run.programs.clear();
        }
    }
    println!("  seed {seed}: {done:?}, {} refused because of another owner", run.refused);
    run.back()?;
    run.compare()?;
    write(SPANS, "stop")
}
