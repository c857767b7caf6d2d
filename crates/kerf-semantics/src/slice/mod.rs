//! Forward thin slices: which instructions of a function use a value, directly or through what was computed from it, and from where to
//! where something still carries it (Sridharan, Fink, Bodík: *Thin Slicing*). Data flow only: what a branch decides is not
//! followed. What is uncertain counts as flow.

mod carriers;
mod frame;
mod step;

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Instruction, InstructionInfoFactory, UsedMemory};

pub use carriers::Carriers;

use frame::Pointers;
use step::{Place, Step};

/// What an instruction is to the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An ordinary instruction, branches included.
    Plain,
    /// Does nothing: padding, a call of the tracer.
    Nothing,
    /// Calls a function and goes on behind it.
    Call,
    /// Leaves for another function, which returns to the caller.
    Leave,
    /// Returns.
    Return,
}

/// What a call passes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Registers, as in [`Carriers::registers`].
    pub registers: u16,
    /// Bytes on the stack, from the stack pointer on, if they were not pushed.
    pub stack: u32,
    /// It is only shown to people, and nothing else follows from it.
    pub shown: bool,
}

/// Bytes that an argument of a function points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointed {
    /// The argument's register, by its number in encodings.
    pub register: u8,
    /// How far behind where it points.
    pub offset: i64,
    /// How many.
    pub size: u32,
}

/// What follows from the value when a function returns.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outcome {
    /// Its result.
    pub result: bool,
    /// What its arguments point to.
    pub pointed: BTreeSet<Pointed>,
}

/// What becomes of a value in a called function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// The arguments are used.
    pub uses: bool,
    /// What follows from the value.
    pub outcome: Outcome,
    /// The function has a result, so that the register's old content is gone.
    pub clears_result: bool,
    /// Registers that the function may have changed for good.
    pub clobbers: u16,
    /// Objects that may be read, of those that carry the value.
    pub reads: BTreeSet<u32>,
    /// Objects that carry the value afterwards.
    pub objects: BTreeSet<u32>,
    /// Why the value cannot be followed.
    pub escapes: Vec<String>,
}

/// What is around a function: other functions and memory.
pub trait Surroundings {
    /// What an instruction is.
    fn role(&self, insn: &Instruction) -> Role;

    /// Whether the function that is sliced has a result.
    fn has_result(&self) -> bool;

    /// What a call or a leave passes on.
    fn passed(&self, insn: &Instruction) -> Passed;

    /// What becomes of these carriers in the called function. Its objects are all that carry the value at this point.
    fn call(&mut self, insn: &Instruction, passed: &Carriers) -> Effect;

    /// The object that a store outside the frame goes to, or why that cannot be told.
    ///
    /// # Errors
    /// Why it cannot be told.
    fn store(&mut self, insn: &Instruction, to: &UsedMemory) -> Result<u32, String>;

    /// The object that an argument of a call points to, which does not point into the frame, or why that cannot be told.
    ///
    /// # Errors
    /// Why it cannot be told.
    fn pointed(&mut self, insn: &Instruction, to: &Pointed) -> Result<u32, String>;

    /// Which of the objects a load may read.
    fn loads(&mut self, insn: &Instruction, from: &UsedMemory, objects: &BTreeSet<u32>) -> BTreeSet<u32>;
}

/// A function as the slicer needs it.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// Address of the first instruction.
    pub entry: u64,
    /// All instructions by their address.
    pub code: BTreeMap<u64, Instruction>,
    /// Where each of them can go on, inside the function.
    pub successors: BTreeMap<u64, Vec<u64>>,
}

/// Where a value comes from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Instructions that compute with it by themselves.
    pub sources: BTreeSet<u64>,
    /// Calls from which it comes out.
    pub calls: BTreeMap<u64, Outcome>,
    /// What carries it at the function's entry.
    pub entry: Carriers,
}

/// A slice of one function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// For each instruction that uses what carries the value: what it uses. Sources use nothing.
    pub used: BTreeMap<u64, Carriers>,
    /// Instructions before which something carries the value that will be used, and those that a call comes back to which uses it.
    pub inside: BTreeSet<u64>,
    /// Whether the function's result follows from it.
    pub returned: bool,
    /// What carries the value somewhere and is an object.
    pub objects: BTreeSet<u32>,
    /// Where and why the value cannot be followed.
    pub escapes: BTreeMap<u64, Vec<String>>,
    /// Leaves that pass the value on.
    pub leaves: BTreeSet<u64>,
}

impl Body {
    /// Offset of the stack pointer before each instruction, from where it was at the entry; missing where it is not always the same.
    pub fn stack_offsets(&self, surroundings: &dyn Surroundings) -> BTreeMap<u64, i64> {
        let pointers = self.pointers(surroundings);
        pointers.into_iter().filter_map(|(ip, known)| Some((ip, known[4]?))).collect()
    }

    fn pointers(&self, surroundings: &dyn Surroundings) -> BTreeMap<u64, Pointers> {
        let code: BTreeMap<u64, Instruction> = self.code.iter().map(|(ip, insn)| (*ip, *insn)).collect();
        frame::solve(&code, self.entry, &|ip| {
            let is_call = code.get(&ip).is_some_and(|insn| surroundings.role(insn) == Role::Call);
            (self.successors.get(&ip).cloned().unwrap_or_default(), is_call)
        })
    }
}

/// Slices a function.
pub fn slice(body: &Body, origin: &Origin, surroundings: &mut dyn Surroundings) -> Slice {
    let pointers = body.pointers(surroundings);
    let given_away = given_away(body, &pointers, surroundings);
    let settled = settled(&pointers);
    let (before, steps) = (BTreeMap::new(), BTreeMap::new());
    let mut slicer = Slicer { body, origin, pointers, settled, given_away, before, steps };
    slicer.forward(surroundings);
    slicer.finish(surroundings)
}

/// Where the stack pointer is for most of the function: between pushing what is to be saved and restoring it.
fn settled(pointers: &BTreeMap<u64, Pointers>) -> Option<i64> {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for offset in pointers.values().filter_map(|known| known[4]) {
        *counts.entry(offset).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(offset, _)| offset)
}

/// The lowest byte of the frame whose address leaves the registers; all above it may be reached through that.
fn given_away(body: &Body, pointers: &BTreeMap<u64, Pointers>, surroundings: &dyn Surroundings) -> Option<i64> {
    let lowest = |(ip, insn): (&u64, &Instruction)| {
        let pointers = pointers.get(ip)?;
        if !matches!(surroundings.role(insn), Role::Call | Role::Leave) {
            return step::gives_away(insn, pointers);
        }
        let passed = surroundings.passed(insn).registers;
        (0..16).filter(|n| passed & 1 << n != 0).filter_map(|n| pointers[n]).min()
    };
    body.code.iter().filter_map(lowest).min()
}

struct Slicer<'a> {
    body: &'a Body,
    origin: &'a Origin,
    pointers: BTreeMap<u64, Pointers>,
    settled: Option<i64>,
    given_away: Option<i64>,
    before: BTreeMap<u64, Carriers>,
    steps: BTreeMap<u64, Step>,
}

impl Slicer<'_> {
    fn successors(&self, ip: u64) -> &[u64] {
        self.body.successors.get(&ip).map_or(&[], Vec::as_slice)
    }

    fn starts(&self) -> Vec<(u64, Carriers)> {
        let inner = self.origin.sources.iter().chain(self.origin.calls.keys()).map(|ip| (*ip, Carriers::default()));
        let entry = (!self.origin.entry.is_empty()).then(|| (self.body.entry, self.origin.entry.clone()));
        inner.chain(entry).collect()
    }

    /// From the origin to the least fixed point of what carries the value.
    fn forward(&mut self, surroundings: &mut dyn Surroundings) {
        let mut factory = InstructionInfoFactory::new();
        let mut open = Vec::new();
        for (ip, carriers) in self.starts() {
            self.before.entry(ip).or_default().join(&carriers);
            open.push(ip);
        }
        while let Some(ip) = open.pop() {
            let Some(insn) = self.body.code.get(&ip) else { continue };
            let before = self.before.get(&ip).cloned().unwrap_or_default();
            let step = self.step(insn, &mut factory, &before, surroundings);
            let after = step.after.clone();
            let known = self.steps.insert(ip, step);
            if known.is_some_and(|known| known.after == after) {
                continue;
            }
            for successor in self.successors(ip).to_vec() {
                let fresh = !self.before.contains_key(&successor);
                let changed = self.before.entry(successor).or_default().join(&after);
                if changed || (fresh && !after.is_empty()) {
                    open.push(successor);
                }
            }
        }
    }

    fn step(
        &self,
        insn: &Instruction,
        factory: &mut InstructionInfoFactory,
        before: &Carriers,
        surroundings: &mut dyn Surroundings,
    ) -> Step {
        let ip = insn.ip();
        // Code that no known way leads to: nothing is known of its frame.
        let nowhere = [None; 16];
        let pointers = self.pointers.get(&ip).unwrap_or(&nowhere);
        let source = self.origin.sources.contains(&ip);
        let place = Place { pointers, settled: self.settled };
        let mut step = step::step(insn, factory, place, before, source, surroundings);
        if let Some(outcome) = self.origin.calls.get(&ip) {
            step.come_out(insn, pointers, outcome, surroundings);
        }
        let is_call = matches!(surroundings.role(insn), Role::Call | Role::Leave) && !surroundings.passed(insn).shown;
        if let Some(lowest) = self.given_away.filter(|_| is_call)
            && before.slots.range(lowest..).next().is_some()
        {
            step.used.slots.extend(before.slots.range(lowest..));
            if step.escapes.is_empty() {
                step.escapes.push("it is in a local variable that others have the address of".into());
            }
        }
        step
    }

    /// Backwards: where what carries the value is used later.
    fn needed(&self) -> BTreeMap<u64, Carriers> {
        let mut predecessors: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for ip in self.steps.keys() {
            self.successors(*ip).iter().for_each(|next| predecessors.entry(*next).or_default().push(*ip));
        }
        let mut needed: BTreeMap<u64, Carriers> = BTreeMap::new();
        let mut open: Vec<u64> = self.steps.keys().copied().collect();
        while let Some(ip) = open.pop() {
            let Some(step) = self.steps.get(&ip) else { continue };
            let mut wanted = Carriers::default();
            for next in self.successors(ip) {
                if let Some(later) = needed.get(next) {
                    wanted.join(later);
                }
            }
            wanted.remove(&step.cleared);
            wanted.join(&step.used);
            if needed.entry(ip).or_default().join(&wanted) {
                open.extend(predecessors.get(&ip).into_iter().flatten());
            }
        }
        needed
    }

    fn finish(mut self, surroundings: &mut dyn Surroundings) -> Slice {
        let mut slice = Slice::default();
        let returns: Vec<u64> = self
            .steps
            .keys()
            .copied()
            .filter(|ip| self.body.code.get(ip).is_some_and(|insn| surroundings.role(insn) == Role::Return))
            .collect();
        for ip in returns {
            let carries =
                surroundings.has_result() && self.before.get(&ip).is_some_and(|before| before.registers & 1 != 0);
            if let Some(step) = self.steps.get_mut(&ip).filter(|_| carries) {
                slice.returned = true;
                step.used.registers |= 1;
            }
        }
        let needed = self.needed();
        for (ip, step) in &self.steps {
            let before = self.before.get(ip).cloned().unwrap_or_default();
            if needed.get(ip).is_some_and(|wanted| wanted.meets(&before)) {
                slice.inside.insert(*ip);
            }
            let is_call = self.body.code.get(ip).is_some_and(|insn| surroundings.role(insn) == Role::Call);
            if is_call && !step.used.is_empty() {
                // While the called function uses it, only the address behind the call is on the stack.
                slice.inside.extend(self.successors(*ip));
            }
            let starts = self.origin.sources.contains(ip) || self.origin.calls.contains_key(ip);
            if starts || !step.used.is_empty() {
                slice.used.insert(*ip, step.used.clone());
            }
            slice.returned |= step.returned;
            slice.objects.extend(&step.after.objects);
            if !step.escapes.is_empty() {
                slice.escapes.insert(*ip, step.escapes.clone());
            }
            let leaves = self.body.code.get(ip).is_some_and(|insn| surroundings.role(insn) == Role::Leave);
            if leaves && !step.used.is_empty() {
                slice.leaves.insert(*ip);
            }
        }
        slice
    }
}
