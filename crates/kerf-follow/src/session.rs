//! A machine whose workload reaches a source, and the executions that are followed in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use kerf_image::Image;
use kerf_lab::gdb::{Debugger, Desk, Stop};
use kerf_lab::{LabError, Machine, Outcome, Sink};

use crate::{End, Execution, Orc, Question, follow};

/// How long a machine may take to start, which is seconds, on a host that does other work too.
const START: Duration = Duration::from_secs(120);

/// Addresses are those of the image, and a kernel that is kept waiting finds no fault with that.
const QUIET: [&str; 4] = ["nokaslr", "nowatchdog", "rcupdate.rcu_cpu_stall_suppress=1", "tsc=reliable"];

/// The guest's time is the number of its instructions, 8 ns each, and what it sleeps: to be stopped and stepped costs it little
/// of it.
const CLOCK: [&str; 2] = ["-icount", "shift=3"];

/// What to watch, in which machine.
pub struct Wanted<'a> {
    /// The machine; it gets a debugger, one CPU, and its kernel where it was linked.
    pub machine: Machine,
    /// The workload. It is watched from its first line of output on.
    pub command: Vec<String>,
    /// The kernel.
    pub image: &'a Image,
    /// What to follow.
    pub question: Question,
    /// So many executions from each source. Then the machine is left to end by itself.
    pub executions: usize,
}

/// What was seen.
pub struct Seen {
    /// The executions, fewer than wanted where the workload ended before.
    pub executions: Vec<Execution>,
    /// How the workload ended; its output goes nowhere.
    pub outcome: Outcome,
}

/// Runs the workload and follows what comes to a source.
///
/// # Errors
/// When the machine cannot be built, started or debugged, and when its kernel reports a fault.
pub fn watch(wanted: Wanted) -> Result<Seen, LabError> {
    let Wanted { mut machine, command, image, mut question, executions } = wanted;
    let desk = Desk::open()?;
    machine.debugger = Some(desk.path().to_owned());
    machine.cpus = 1;
    machine.in_turns = true;
    machine.qemu_args.extend(CLOCK.map(Into::into));
    machine.append.extend(QUIET.map(str::to_owned));
    question.switch = image.symbols_named("__switch_to_asm").next().map(|symbol| symbol.address);
    let orc = Orc::read(image);
    let (sender, started) = channel();
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| machine.run_streaming(&command, &mut First(sender)));
        let followed = desk.wait(START).and_then(|debugger| {
            let session = Session { debugger, orc: &orc, question: &question, started, wanted: BTreeMap::new() };
            session.run(executions)
        });
        let outcome =
            runner.join().map_err(|_| LabError::Debugger { reason: "the thread that runs it panicked".into() })?;
        // A machine that failed says more than a debugger that has lost it.
        let outcome = outcome?;
        Ok(Seen { executions: followed?, outcome })
    })
}

/// Tells of the first line.
struct First(Sender<()>);

impl Sink for First {
    fn stdout(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if !bytes.is_empty() {
            // Nobody listens any more after the first.
            let _ = self.0.send(());
        }
        Ok(())
    }
}

struct Session<'a> {
    debugger: Debugger,
    orc: &'a Orc,
    question: &'a Question,
    started: Receiver<()>,
    /// How many executions are still wanted, by their sources.
    wanted: BTreeMap<u64, usize>,
}

impl Session<'_> {
    fn run(mut self, executions: usize) -> Result<Vec<Execution>, LabError> {
        self.debugger.resume()?;
        if !self.workload_starts()? {
            return Ok(Vec::new());
        }
        if self.debugger.interrupt()? == Stop::Ended {
            return Ok(Vec::new());
        }
        for address in &self.question.sources {
            self.debugger.set_breakpoint(*address)?;
        }
        self.wanted = self.question.sources.iter().map(|address| (*address, executions)).collect();
        let (mut seen, mut stepped) = (Vec::new(), BTreeSet::new());
        while !self.wanted.is_empty() {
            if self.next_source()? == Stop::Ended {
                return Ok(seen);
            }
            let registers = self.debugger.registers()?;
            let execution = follow(&mut self.debugger, self.orc, self.question, &mut stepped, registers)?;
            tracing::debug!(steps = execution.steps, end = ?execution.end, uses = execution.uses.len(), "followed");
            match execution.end {
                End::Machine => return Ok(seen),
                // One that was cut for want of stepping tells nothing that the next one does not.
                End::Read => {}
                _ => {
                    self.count(execution.start)?;
                    seen.push(execution);
                }
            }
        }
        self.debugger.detach()?;
        Ok(seen)
    }

    /// Takes a source's breakpoint away when enough executions have come from it.
    fn count(&mut self, source: u64) -> Result<(), LabError> {
        let Some(left) = self.wanted.get_mut(&source) else { return Ok(()) };
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.wanted.remove(&source);
            self.debugger.clear_breakpoint(source)?;
        }
        Ok(())
    }

    /// Waits for the workload's first line; false if the machine ends before.
    fn workload_starts(&mut self) -> Result<bool, LabError> {
        let limit = Instant::now() + START;
        loop {
            if self.started.recv_timeout(Duration::from_millis(10)).is_ok() {
                return Ok(true);
            }
            if self.debugger.wait(Duration::from_millis(1))? == Some(Stop::Ended) || Instant::now() >= limit {
                return Ok(false);
            }
        }
    }

    /// Runs to the next source, at least one instruction further unless the guest stands at one.
    fn next_source(&mut self) -> Result<Stop, LabError> {
        loop {
            let here = self.debugger.registers()?;
            if self.wanted.contains_key(&here.rip) {
                return Ok(Stop::Halted);
            }
            self.debugger.resume()?;
            loop {
                match self.debugger.wait(Duration::from_secs(5))? {
                    Some(Stop::Ended) => return Ok(Stop::Ended),
                    Some(_) => break,
                    None => {}
                }
            }
        }
    }
}
