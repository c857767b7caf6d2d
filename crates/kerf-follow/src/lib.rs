//! A value followed through a running kernel: from the instructions that bring it in to all that use what follows from it.
//!
//! The kernel runs in a virtual machine under QEMU's debugger ([`kerf_lab::gdb`]). It stops at a source, and from there every
//! instruction is stepped and looked at: what it reads of what carries the value, and what carries it then. Only data counts: a
//! branch uses the flags that it tests, and what runs because of it does not follow from them. A pointer or an index that follows from
//! the value is used where memory is found by it, and what lies there does not follow from it: that makes the slice a thin one.
//!
//! A call that hands none of it over is not stepped but run to its return, with a watch on the memory that carries the value:
//! a called function gives rbx, rbp and r12 to r15 back as they were. Should it read that memory, the call is stepped the next time.
//!
//! Known limits: the guest has one CPU and takes no interrupts while it is stepped. What the value leaves in memory is followed
//! on the stack, and elsewhere as long as the code in question is on the stack. Flags across a fault are forgotten.

mod access;
mod frames;
mod orc;
mod origins;
mod over;
mod question;
mod session;
mod taint;

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Formatter, GasFormatter, Instruction};
use kerf_image::Image;
use kerf_lab::LabError;
use kerf_lab::gdb::{Debugger, Registers, Stop};

pub use frames::Frame;
pub use orc::Orc;
pub use question::Question;
pub use session::{Seen, Wanted, watch};
pub use taint::{Event, Flow};

use frames::Frames;
use origins::Origins;
use over::Over;
use taint::{Taint, Taken};

/// The longest instruction.
const LONGEST: usize = 15;

/// How many steps a printed path has.
const MOST_PATH: usize = 24;

/// Why an execution was followed no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing carries the value any more.
    Gone,
    /// The task gave up the CPU.
    Switched,
    /// The kernel was left; it does not keep registers of its own for a program.
    Left,
    /// A call that was not stepped has read memory that carries the value.
    Read,
    /// It took too many instructions.
    Steps,
    /// The machine went away.
    Machine,
}

/// An instruction that took what follows from the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Its address.
    pub address: u64,
    /// The instruction.
    pub text: String,
    /// What it did with it.
    pub flow: Flow,
    /// Whether it may: it lies in the code in question or was called from there, and that was not left since the value came in.
    pub inside: bool,
    /// Return addresses at that moment, the innermost first.
    pub callers: Vec<u64>,
    /// Addresses of the instructions that handed the value on, from the source to this one.
    pub path: Vec<u64>,
}

impl Use {
    /// Whether something follows from it; what is only moved may be forgotten.
    pub fn consumes(&self) -> bool {
        self.flow != Flow::Copied
    }

    /// All of it in one line, with the image's names.
    pub fn describe(&self, image: &Image) -> String {
        let place = |address: &u64| match image.function_at(*address) {
            Some(function) => format!("{}+{:#x}", function.name, address - function.address),
            None => format!("{address:#x}"),
        };
        let places = |addresses: &[u64]| addresses.iter().map(place).collect::<Vec<_>>();
        let word = match self.flow {
            Flow::Copied => "copies",
            Flow::Used => "uses",
            Flow::Stored => "stores",
        };
        let (at, path) = (place(&self.address), places(&self.path).join(" → "));
        format!("{at} `{}` {word} it, by {path}; called by {}", self.text, places(&self.callers).join(", "))
    }
}

/// One execution, from a source to where nothing is left of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The source.
    pub start: u64,
    /// How many instructions were stepped.
    pub steps: usize,
    /// How it ended.
    pub end: End,
    /// All uses in their order, each instruction once for each way of using.
    pub uses: Vec<Use>,
}

/// An instruction that handed the value on.
struct Handed {
    address: u64,
    from: Vec<Event>,
}

/// Follows one execution.
struct Follower<'a> {
    debugger: &'a mut Debugger,
    question: &'a Question,
    /// Calls that must be stepped, by their addresses.
    stepped: &'a mut BTreeSet<u64>,
    code: BTreeMap<u64, Instruction>,
    taint: Taint,
    frames: Frames,
    handed: Vec<Handed>,
    uses: Vec<Use>,
    known: BTreeSet<(u64, Flow, bool)>,
    origins: Origins,
    /// Where the outermost function of the code in question keeps its return address.
    outermost: Option<u64>,
}

/// Follows the execution that stands at a source.
fn follow(
    debugger: &mut Debugger,
    orc: &Orc,
    question: &Question,
    stepped: &mut BTreeSet<u64>,
    registers: Registers,
) -> Result<Execution, LabError> {
    let frames = Frames::new(orc.frames(debugger, &registers)?, registers.rsp());
    // The function that runs now, and its callers: the last of them that is in the code in question.
    let positions = std::iter::once(registers.rip).chain(frames.addresses());
    let depth = positions.zip(0..).filter(|(ip, _)| question.counts(*ip)).map(|(_, n)| n).last().unwrap_or(0);
    let outermost = frames.slot(depth);
    let mut follower = Follower {
        debugger,
        question,
        stepped,
        code: BTreeMap::new(),
        taint: Taint::default(),
        frames,
        handed: Vec::new(),
        uses: Vec::new(),
        known: BTreeSet::new(),
        origins: Origins::default(),
        outermost,
    };
    let (steps, end) = follower.run(registers)?;
    Ok(Execution { start: registers.rip, steps, end, uses: follower.uses })
}

impl Follower<'_> {
    fn run(&mut self, mut registers: Registers) -> Result<(usize, End), LabError> {
        for step in 0..self.question.most_steps {
            if !registers.in_kernel() {
                return Ok((step, End::Left));
            }
            if self.question.switch == Some(registers.rip) {
                return Ok((step, End::Switched));
            }
            let Some(insn) = self.instruction(registers.rip)? else { return Ok((step, End::Machine)) };
            if self.may_run_over(&insn) {
                match self.run_over(&insn, &registers)? {
                    Over::Returned(after) => registers = after,
                    Over::Ended(end) => return Ok((step, end)),
                }
                continue;
            }
            if self.debugger.step()? == Stop::Ended {
                return Ok((step, End::Machine));
            }
            let after = self.debugger.registers()?;
            if completed(&insn, after.rip) {
                self.take(&insn, &registers);
                if matches!(insn.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
                    self.frames.enter(after.rsp(), insn.next_ip());
                }
            } else {
                // A fault: the instruction comes again when its handler is done.
                self.frames.enter(after.rsp(), insn.ip());
            }
            self.move_on(&after);
            if self.is_over() {
                return Ok((step + 1, End::Gone));
            }
            registers = after;
        }
        Ok((self.question.most_steps, End::Steps))
    }

    /// The instruction at an address. The kernel patches its text seldom enough for one reading an execution.
    fn instruction(&mut self, address: u64) -> Result<Option<Instruction>, LabError> {
        if let Some(known) = self.code.get(&address) {
            return Ok(Some(*known));
        }
        let mut bytes = self.debugger.read(address, LONGEST)?;
        if bytes.is_none() {
            // At the end of a page that nothing follows.
            let left = 0x1000 - (address & 0xfff) as usize;
            bytes = self.debugger.read(address, left.min(LONGEST))?;
        }
        let Some(bytes) = bytes else { return Ok(None) };
        let insn = Decoder::with_ip(64, &bytes, address, DecoderOptions::NONE).decode();
        self.code.insert(address, insn);
        Ok(Some(insn))
    }

    /// What an instruction that was executed does to what carries the value.
    fn take(&mut self, insn: &Instruction, before: &Registers) {
        let source = self.question.sources.contains(&insn.ip());
        if !self.question.allows(insn.ip(), self.frames.addresses()) {
            self.origins.leave();
        }
        let frames = &self.frames;
        let event = self.handed.len();
        let taken = self.taint.step(insn, before, event, source, |address| frames.on_stack(address));
        if let Some(taken) = taken {
            self.note(insn, taken, event, source);
        }
    }

    fn note(&mut self, insn: &Instruction, taken: Taken, event: Event, source: bool) {
        let Taken { from, flow } = taken;
        let inside = self.origins.inside(&from);
        self.origins.hand_on(&from, source);
        // A source that takes nothing of the value is no use of it.
        let uses = !from.is_empty();
        self.handed.push(Handed { address: insn.ip(), from });
        if !uses || !self.known.insert((insn.ip(), flow, inside)) {
            return;
        }
        let mut text = String::new();
        GasFormatter::new().format(insn, &mut text);
        let callers = self.frames.addresses().collect();
        let path = self.path(event);
        self.uses.push(Use { address: insn.ip(), text, flow, inside, callers, path });
    }

    /// From a source to an event, along the latest of those that it took.
    fn path(&self, event: Event) -> Vec<u64> {
        let mut path = Vec::new();
        let mut next = self.handed.get(event);
        while let Some(handed) = next {
            path.push(handed.address);
            next = handed.from.last().and_then(|event| self.handed.get(*event));
        }
        path.reverse();
        if path.len() > MOST_PATH {
            path.drain(MOST_PATH / 2..path.len() - MOST_PATH / 2);
        }
        path
    }

    /// Forgets what a return has left behind.
    fn move_on(&mut self, after: &Registers) {
        let rsp = after.rsp();
        self.frames.now_at(rsp);
        self.taint.forget_memory(|address| address < rsp && rsp - address < frames::STACK);
        if self.origins.all_left() || !self.outermost.is_some_and(|slot| self.frames.holds(slot)) {
            let frames = &self.frames;
            self.taint.forget_memory(|address| !frames.on_stack(address));
        }
    }

    fn is_over(&self) -> bool {
        self.taint.is_empty()
    }
}

/// Whether the instruction pointer behind a step says that the instruction was executed, and not stopped by a fault.
fn completed(insn: &Instruction, rip: u64) -> bool {
    match insn.flow_control() {
        FlowControl::Next => rip == insn.next_ip() || rip == insn.ip() && insn.is_string_instruction(),
        FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend => {
            rip == insn.next_ip() || rip == insn.near_branch_target()
        }
        FlowControl::UnconditionalBranch => rip == insn.near_branch_target(),
        FlowControl::Call => rip == insn.near_branch_target() || !insn.is_call_near(),
        FlowControl::Exception | FlowControl::Interrupt => false,
        // Returns and indirect jumps go anywhere, and seldom fault.
        _ => true,
    }
}
