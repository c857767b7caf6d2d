//! Where control goes from block to block.

use crate::block::{Block, Branch};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Successors that a block remembers itself.
const NEAR: usize = 4;

/// Branches that an interrupt has cut off from where they lead, for each CPU; older ones are forgotten.
const CUT_OFF: usize = 64;

/// No block, no edge.
const NONE: u32 = u32::MAX;

/// What decides where a block went.
#[derive(Debug, Clone)]
struct Hop {
    address: u64,
    end: u64,
    branch: Branch,
    /// Counts how often its last instructions were executed.
    ended: Option<&'static AtomicU64>,
    /// Blocks that came next, and the edge to each.
    near: [(u32, u32); NEAR],
}

impl Hop {
    fn times_ended(&self) -> u64 {
        self.ended.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

/// All edges, and for each block how often its conditional branch was taken.
#[derive(Debug)]
pub(super) struct Flow {
    hops: Vec<Hop>,
    taken: Vec<u64>,
    /// The block that each CPU is in, and how often that had come to its end before.
    last: Vec<(u32, u64)>,
    /// Blocks of each CPU that came to their end and that an interrupt came behind.
    cut_off: Vec<Vec<u32>>,
    far: HashMap<(u32, u32), u32>,
    edges: Vec<(u32, u32)>,
    counts: Vec<u64>,
}

impl Flow {
    pub(super) fn new(cpus: usize) -> Flow {
        let (hops, taken, edges, counts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (last, cut_off) = (vec![(NONE, 0); cpus], vec![Vec::new(); cpus]);
        Flow { hops, taken, last, cut_off, far: HashMap::new(), edges, counts }
    }

    /// One more block; `ended` counts its last instructions.
    pub(super) fn add(&mut self, block: &Block, ended: Option<&'static AtomicU64>) {
        self.hops.push(Hop {
            address: block.address,
            end: block.end,
            branch: block.branch,
            ended,
            near: [(NONE, NONE); NEAR],
        });
        self.taken.push(0);
    }

    /// A CPU begins a block.
    #[inline]
    pub(super) fn enter(&mut self, cpu: usize, block: usize) {
        let (Some(last), Some(hop)) = (self.last.get_mut(cpu), self.hops.get(block)) else { return };
        let start = hop.address;
        let (from, before) = std::mem::replace(last, (block as u32, hop.times_ended()));
        let Some(hop) = self.hops.get(from as usize) else { return };
        let (branch, end) = (hop.branch, hop.end);
        // A fault within it: it has not branched at all, and its rest comes later as another block.
        if branch == Branch::None || hop.times_ended() == before {
            return;
        }
        match branch {
            Branch::Back => self.back(cpu, start, block as u32),
            Branch::Indirect => self.go(from, block as u32),
            _ if leads(branch, end, start) => {
                self.take(from, start);
                self.go(from, block as u32);
            }
            _ => self.cut(cpu, from),
        }
    }

    /// A return from what came between, which is no way of its own: the branch that was cut off arrives after all.
    fn back(&mut self, cpu: usize, start: u64, block: u32) {
        let Some(cut_off) = self.cut_off.get_mut(cpu).filter(|cut_off| !cut_off.is_empty()) else { return };
        let hops = &self.hops;
        let arrives = |from: &u32| hops.get(*from as usize).is_some_and(|hop| leads(hop.branch, hop.end, start));
        let Some(from) = cut_off.iter().rposition(arrives).map(|position| cut_off.remove(position)) else {
            return;
        };
        self.take(from, start);
        self.go(from, block);
    }

    fn cut(&mut self, cpu: usize, from: u32) {
        if let Some(cut_off) = self.cut_off.get_mut(cpu) {
            if cut_off.len() == CUT_OFF {
                cut_off.remove(0);
            }
            cut_off.push(from);
        }
    }

    #[inline]
    fn take(&mut self, from: u32, start: u64) {
        if let Some(Hop { branch: Branch::Conditional(target), .. }) = self.hops.get(from as usize)
            && *target == start
            && let Some(count) = self.taken.get_mut(from as usize)
        {
            *count += 1;
        }
    }

    #[inline]
    fn go(&mut self, from: u32, to: u32) {
        let edge = self.edge(from, to);
        if let Some(count) = self.counts.get_mut(edge as usize) {
            *count += 1;
        }
    }

    #[inline]
    fn edge(&mut self, from: u32, to: u32) -> u32 {
        if let Some(hop) = self.hops.get(from as usize)
            && let Some((_, edge)) = hop.near.iter().find(|(block, _)| *block == to)
        {
            return *edge;
        }
        self.far_edge(from, to)
    }

    fn far_edge(&mut self, from: u32, to: u32) -> u32 {
        let next = self.edges.len() as u32;
        let edge = *self.far.entry((from, to)).or_insert(next);
        if edge == next {
            self.edges.push((from, to));
            self.counts.push(0);
            if let Some(hop) = self.hops.get_mut(from as usize)
                && let Some(free) = hop.near.iter_mut().find(|(block, _)| *block == NONE)
            {
                *free = (to, edge);
            }
        }
        edge
    }

    /// How often each block's conditional branch was taken so far.
    pub(super) fn taken(&self) -> &[u64] {
        &self.taken
    }

    /// How often each edge was gone so far.
    pub(super) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The edges, as blocks.
    pub(super) fn edges(&self) -> &[(u32, u32)] {
        &self.edges
    }
}

/// Whether a branch with this address behind it can lead there.
#[inline]
fn leads(branch: Branch, end: u64, start: u64) -> bool {
    match branch {
        Branch::None | Branch::Indirect | Branch::Back => false,
        Branch::Direct(target) => start == target,
        Branch::Conditional(target) => start == target || start == end,
    }
}
