//! Counters at addresses that never change: translated code adds to them by itself.

use crate::block::{Block, Branch};
use crate::profile::Counts;
use std::sync::atomic::{AtomicU64, Ordering};

/// An addition in front of an instruction.
#[derive(Debug, Clone, Copy)]
pub struct Addition {
    /// Position of the instruction.
    pub position: usize,
    /// What is added to.
    pub counter: &'static AtomicU64,
    /// What is added.
    pub amount: u64,
}

/// Counters of one piece of memory.
const CHUNK: usize = 1 << 15;

/// The first four count in sum: instructions and blocks, of the kernel and of the rest.
const SUMS: usize = 4;

/// All counters, by number. Their memory is never given back.
#[derive(Debug)]
pub(super) struct Counters {
    chunks: Vec<&'static [AtomicU64]>,
    used: usize,
}

impl Counters {
    /// Those that count in sum.
    pub(super) fn new() -> Counters {
        let mut counters = Counters { chunks: Vec::new(), used: 0 };
        counters.take(SUMS);
        counters
    }

    /// The first of so many new ones.
    pub(super) fn take(&mut self, count: usize) -> usize {
        let first = self.used;
        self.used += count;
        while self.chunks.len() * CHUNK < self.used {
            let chunk: Vec<AtomicU64> = (0..CHUNK).map(|_| AtomicU64::new(0)).collect();
            self.chunks.push(chunk.leak());
        }
        first
    }

    /// Additions that count a block in sum.
    pub(super) fn sums(&self, block: &Block, additions: &mut Vec<Addition>) {
        let first = if block.is_kernel() { 0 } else { 2 };
        let mut add = |number: usize, position: usize, amount: u64| {
            additions.extend(self.get(number).map(|counter| Addition { position, counter, amount }));
        };
        for segment in &block.segments {
            add(first, segment.first, segment.instructions);
        }
        if let Some(last) = block.segments.last()
            && block.branch != Branch::None
        {
            add(first + 1, last.first, 1);
        }
    }

    /// Additions that count each segment with a counter of its own.
    pub(super) fn each(&self, first: usize, positions: &[usize], additions: &mut Vec<Addition>) {
        let counters = (first..).map_while(|number| self.get(number));
        additions.extend(positions.iter().zip(counters).map(|(position, counter)| Addition {
            position: *position,
            counter,
            amount: 1,
        }));
    }

    /// Instructions and blocks in sum.
    pub(super) fn in_sum(&self) -> (Counts, Counts) {
        let value = |number: usize| self.get(number).map_or(0, |counter| counter.load(Ordering::Relaxed));
        (Counts { kernel: value(0), user: value(2) }, Counts { kernel: value(1), user: value(3) })
    }

    /// All values now.
    pub(super) fn values(&self) -> Vec<u64> {
        let all = self.chunks.iter().flat_map(|chunk| chunk.iter()).take(self.used);
        all.map(|counter| counter.load(Ordering::Relaxed)).collect()
    }

    /// One of them.
    pub(super) fn get(&self, number: usize) -> Option<&'static AtomicU64> {
        self.chunks.get(number / CHUNK)?.get(number % CHUNK)
    }
}
