//! Gathering: what the plugin does at each of QEMU's calls, without QEMU.

mod counters;
mod flow;
mod marks;
#[cfg(test)]
mod tests;

pub use counters::Addition;

use crate::block::{Block, Branch, Instruction, Piece, pieces};
use crate::mark::Mark;
use crate::model::{Core, Footprint, Misses, Model, Pages};
use crate::profile::Profile;
use counters::Counters;
use flow::Flow;
use marks::Marks;
use std::collections::HashMap;

/// How much is gathered, each with all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Detail {
    /// Instructions and blocks, in sum.
    #[default]
    Sums,
    /// For each block.
    Blocks,
    /// Which branches are taken, and where to.
    Flow,
    /// Misses of the modelled caches.
    Caches,
}

/// What to gather.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// How much.
    pub detail: Detail,
    /// The caches.
    pub model: Model,
}

/// What must be called when an instruction is about to be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`Gatherer::pass`].
    Mark(Mark),
    /// [`Gatherer::enter`], of a block.
    Enter(usize),
    /// [`Gatherer::remap`].
    Remap,
}

/// What is to be done with a translation.
#[derive(Debug, Default)]
pub struct Plan {
    /// Additions when an instruction (its position) is executed.
    pub additions: Vec<Addition>,
    /// Calls when an instruction is executed.
    pub calls: Vec<(usize, Call)>,
    /// Instructions whose accesses to memory are to be told to [`Gatherer::access`], with their block.
    pub accesses: Vec<(usize, usize)>,
}

/// What is known of a block without its counts.
#[derive(Debug, Clone)]
struct Known {
    address: u64,
    size: u64,
    kernel: bool,
    ranges: Vec<(u64, u64)>,
    /// Instructions of its segments.
    lengths: Vec<u64>,
    /// The first of its counters, one for each segment.
    counter: usize,
    branch: Branch,
}

/// Which code is the same: patched code is not, nor is another process's at the same address.
type Identity = (u64, u64, Vec<u8>);

/// A profile while it is gathered. Its methods are called by one thread at a time.
#[derive(Debug)]
pub struct Gatherer {
    wanted: Wanted,
    counters: Counters,
    known: Vec<Known>,
    numbers: HashMap<Identity, usize>,
    footprints: Vec<Footprint>,
    pages: Pages,
    flow: Flow,
    misses: Vec<Misses>,
    cores: Vec<Core>,
    marks: Marks,
}

impl Gatherer {
    /// Nothing yet, in a machine with so many CPUs.
    pub fn new(wanted: Wanted, cpus: usize) -> Gatherer {
        let models = if wanted.detail == Detail::Caches { cpus } else { 0 };
        Gatherer {
            wanted,
            counters: Counters::new(),
            known: Vec::new(),
            numbers: HashMap::new(),
            footprints: Vec::new(),
            pages: Pages::default(),
            flow: Flow::new(cpus),
            misses: Vec::new(),
            cores: (0..models).map(|_| Core::new(&wanted.model)).collect(),
            marks: Marks::default(),
        }
    }

    /// Code has been translated.
    pub fn translate(&mut self, instructions: &[Instruction]) -> Plan {
        let mut plan = Plan::default();
        for piece in pieces(instructions) {
            match piece {
                Piece::Mark(position, mark) => plan.calls.push((position, Call::Mark(mark))),
                Piece::Block(block) => self.plan(block, &mut plan),
            }
        }
        plan
    }

    /// Counts a block.
    fn plan(&mut self, block: Block, plan: &mut Plan) {
        if self.wanted.detail == Detail::Sums {
            self.counters.sums(&block, &mut plan.additions);
            return;
        }
        let Some(first) = block.segments.first().map(|segment| segment.first) else { return };
        let starts: Vec<usize> = block.segments.iter().map(|segment| segment.first).collect();
        let (remaps, touches) = (block.remaps.clone(), block.touches.clone());
        let number = self.number(block);
        let Some(known) = self.known.get(number) else { return };
        self.counters.each(known.counter, &starts, &mut plan.additions);
        if self.wanted.detail >= Detail::Flow {
            plan.calls.push((first, Call::Enter(number)));
        }
        if self.wanted.detail == Detail::Caches {
            // The change comes with the instruction and the call before it: accesses in between are the page walk's.
            plan.calls.extend(remaps.into_iter().map(|position| (position, Call::Remap)));
            plan.accesses.extend(touches.into_iter().map(|position| (position, number)));
        }
    }

    /// The number of a block, a new one if it has not been seen.
    fn number(&mut self, block: Block) -> usize {
        let host = block.ranges.first().map_or(0, |(start, _)| *start);
        let identity = (block.address, host, block.bytes.clone());
        if let Some(number) = self.numbers.get(&identity) {
            return *number;
        }
        let number = self.known.len();
        self.numbers.insert(identity, number);
        let counter = self.counters.take(block.segments.len());
        if self.wanted.detail >= Detail::Flow {
            let last = block.segments.len().checked_sub(1).and_then(|last| self.counters.get(counter + last));
            self.flow.add(&block, last);
        }
        if self.wanted.detail == Detail::Caches {
            self.footprints.push(self.pages.footprint(&block));
            self.misses.push(Misses::default());
        }
        self.known.push(Known {
            address: block.address,
            size: block.size(),
            kernel: block.is_kernel(),
            lengths: block.segments.iter().map(|segment| segment.instructions).collect(),
            counter,
            branch: block.branch,
            ranges: block.ranges,
        });
        number
    }

    /// A CPU begins a block.
    pub fn enter(&mut self, cpu: usize, block: usize) {
        self.flow.enter(cpu, block);
        if let (Some(core), Some(footprint), Some(misses)) =
            (self.cores.get_mut(cpu), self.footprints.get(block), self.misses.get_mut(block))
        {
            core.fetch(footprint, misses);
        }
    }

    /// A CPU reads or writes `size` bytes, in a block; `physical` says where they lie.
    pub fn access(
        &mut self,
        cpu: usize,
        block: usize,
        address: u64,
        size: u64,
        physical: impl FnOnce() -> Option<u64>,
    ) {
        if let (Some(core), Some(misses)) = (self.cores.get_mut(cpu), self.misses.get_mut(block)) {
            core.access(address, size, physical, misses);
        }
    }

    /// A CPU changes how addresses are mapped.
    pub fn remap(&mut self, cpu: usize) {
        if let Some(core) = self.cores.get_mut(cpu) {
            core.remap();
        }
    }

    /// A mark is passed.
    pub fn pass(&mut self, mark: Mark) {
        let mut marks = std::mem::take(&mut self.marks);
        marks.pass(mark, self);
        self.marks = marks;
    }

    /// The whole, at the end of the run.
    pub fn finish(&mut self) -> Profile {
        let marks = std::mem::take(&mut self.marks);
        marks.finish(self)
    }
}
