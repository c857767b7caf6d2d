//! Where control goes from block to block.

use crate::block::{Block, Branch};
use std::collections::HashMap;

/// Successors that a block remembers itself.
const NEAR: usize = 4;

/// No block, no edge.
const NONE: u32 = u32::MAX;

/// What decides where a block went.
#[derive(Debug, Clone)]
struct Hop {
    address: u64,
    end: u64,
    branch: Branch,
    /// Blocks that came next, and the edge to each.
    near: [(u32, u32); NEAR],
}

/// All edges, and for each block how often its conditional branch was taken.
#[derive(Debug)]
pub(super) struct Flow {
    hops: Vec<Hop>,
    taken: Vec<u64>,
    /// The block that each CPU is in.
    last: Vec<u32>,
    far: HashMap<(u32, u32), u32>,
    edges: Vec<(u32, u32)>,
    counts: Vec<u64>,
}

impl Flow {
    pub(super) fn new(cpus: usize) -> Flow {
        let (hops, taken, edges, counts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Flow { hops, taken, last: vec![NONE; cpus], far: HashMap::new(), edges, counts }
    }

    /// One more block.
    pub(super) fn add(&mut self, block: &Block) {
        self.hops.push(Hop {
            address: block.address,
            end: block.end,
            branch: block.branch,
            near: [(NONE, NONE); NEAR],
        });
        self.taken.push(0);
    }

    /// A CPU begins a block.
    #[inline]
    pub(super) fn enter(&mut self, cpu: usize, block: usize) {
        let (Some(last), Some(start)) = (self.last.get_mut(cpu), self.hops.get(block).map(|hop| hop.address)) else {
            return;
        };
        let from = std::mem::replace(last, block as u32);
        let Some(hop) = self.hops.get(from as usize) else { return };
        // Elsewhere: an interrupt or a fault came between.
        let went = match hop.branch {
            Branch::None => false,
            Branch::Indirect => true,
            Branch::Direct(target) => start == target,
            Branch::Conditional(target) => {
                let taken = start == target;
                if taken && let Some(count) = self.taken.get_mut(from as usize) {
                    *count += 1;
                }
                taken || start == hop.end
            }
        };
        if went {
            let edge = self.edge(from, block as u32);
            if let Some(count) = self.counts.get_mut(edge as usize) {
                *count += 1;
            }
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
