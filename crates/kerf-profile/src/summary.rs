//! An interval summed up: for the kernel and the rest, and function by function.

use crate::block::PAGE;
use crate::cache::Geometry;
use crate::model::{Misses, units};
use crate::profile::{Interval, Place, Profile, Row};
use crate::symbols::Symbols;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::ops::AddAssign;

/// Counts of some code in an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// Executed instructions.
    pub instructions: u64,
    /// Straight runs of them that came to their end, see [`Interval::blocks`].
    pub blocks: u64,
    /// How often such an end led elsewhere than to what follows.
    pub taken: u64,
    /// Ways from an end to a beginning that were gone at least once.
    pub edges: u64,
    /// Lines of 64 bytes that executed code lies in.
    pub lines: u64,
    /// Pages of 4 KiB that it lies in.
    pub pages: u64,
    /// Misses of the modelled caches.
    #[serde(flatten)]
    pub misses: Misses,
}

impl AddAssign for Misses {
    fn add_assign(&mut self, more: Misses) {
        self.l1i += more.l1i;
        self.l1d += more.l1d;
        self.l2 += more.l2;
        self.itlb += more.itlb;
    }
}

/// A function and its counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Function {
    /// Its name; `[user]` stands for all that is not the kernel, `[unknown]` for kernel code that has no name.
    pub name: String,
    /// The module that it belongs to.
    pub module: Option<String>,
    /// Where it began in this run; 0 for what stands for many.
    pub address: u64,
    /// Whether it is the kernel's.
    pub kernel: bool,
    /// What it did itself, without what it called.
    #[serde(flatten)]
    pub sum: Sum,
    /// Its blocks, as positions in [`Interval::rows`].
    #[serde(skip)]
    pub rows: Vec<usize>,
}

/// Collects rows.
#[derive(Debug, Default)]
struct Collector {
    sum: Sum,
    lines: HashSet<u64>,
    pages: HashSet<u64>,
}

impl Collector {
    fn add(&mut self, row: &Row, place: &Place) {
        self.sum.instructions += row.instructions;
        self.sum.blocks += row.ends;
        self.sum.taken += row.taken;
        self.sum.misses += row.misses;
        if row.instructions > 0 {
            for range in &place.ranges {
                self.lines.extend(units(*range, Geometry::LINE));
                self.pages.extend(units(*range, PAGE));
            }
        }
    }

    fn finish(self) -> Sum {
        Sum { lines: self.lines.len() as u64, pages: self.pages.len() as u64, ..self.sum }
    }
}

/// Positions of blocks by the address of their end and of their beginning: a block that was translated twice is the same.
fn way(profile: &Profile, from: u64, to: u64) -> (u64, u64) {
    let place = |block: u64| profile.blocks.get(block as usize);
    let end = place(from).map_or(0, |place| place.address.wrapping_add(place.size));
    (end, place(to).map_or(0, |place| place.address))
}

/// The kernel's counts, and the others'.
pub fn sums(profile: &Profile, interval: &Interval) -> (Sum, Sum) {
    let (mut kernel, mut user) = (Collector::default(), Collector::default());
    let none = Place::default();
    for row in &interval.rows {
        let place = profile.blocks.get(row.block as usize).unwrap_or(&none);
        if place.is_kernel() { &mut kernel } else { &mut user }.add(row, place);
    }
    let ways = interval.edges.iter().map(|edge| way(profile, edge.from, edge.to)).collect::<HashSet<_>>();
    kernel.sum.edges = ways.iter().filter(|(from, _)| from >> 63 != 0).count() as u64;
    user.sum.edges = ways.len() as u64 - kernel.sum.edges;
    let (mut kernel, mut user) = (kernel.finish(), user.finish());
    // Where blocks were not kept apart, there are no rows.
    (kernel.instructions, user.instructions) = (interval.instructions.kernel, interval.instructions.user);
    (kernel.blocks, user.blocks) = (interval.blocks.kernel, interval.blocks.user);
    (kernel, user)
}

/// Function by function, the one with the most instructions first.
pub fn functions(profile: &Profile, interval: &Interval, symbols: &Symbols) -> Vec<Function> {
    let mut functions: BTreeMap<(bool, u64), (Function, Collector)> = BTreeMap::new();
    let mut owners = vec![None; profile.blocks.len()];
    for (position, row) in interval.rows.iter().enumerate() {
        let Some(place) = profile.blocks.get(row.block as usize) else { continue };
        let function = name(place, symbols);
        let key = (function.kernel, function.address);
        let (function, collector) = functions.entry(key).or_insert_with(|| (function, Collector::default()));
        collector.add(row, place);
        function.rows.push(position);
        if let Some(owner) = owners.get_mut(row.block as usize) {
            *owner = Some(key);
        }
    }
    let mut ways = HashSet::new();
    for edge in &interval.edges {
        let Some(key) = owners.get(edge.from as usize).copied().flatten() else { continue };
        if ways.insert(way(profile, edge.from, edge.to))
            && let Some((_, collector)) = functions.get_mut(&key)
        {
            collector.sum.edges += 1;
        }
    }
    let mut functions: Vec<Function> =
        functions.into_values().map(|(function, collector)| Function { sum: collector.finish(), ..function }).collect();
    functions.sort_by_key(|function| std::cmp::Reverse(function.sum.instructions));
    functions
}

/// A block's function, without counts.
fn name(place: &Place, symbols: &Symbols) -> Function {
    let kernel = place.is_kernel();
    let symbol = if kernel { symbols.at(place.address) } else { None };
    let (name, module, address) = match symbol {
        Some(symbol) => (symbol.name, symbol.module, symbol.address),
        None => (if kernel { "[unknown]" } else { "[user]" }.to_owned(), None, 0),
    };
    Function { name, module, address, kernel, sum: Sum::default(), rows: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Counts, Edge};

    const FIRST: u64 = 0xffff_ffff_9a00_0000;

    fn place(address: u64, size: u64, host: u64) -> Place {
        Place { address, size, ranges: vec![(host, host + size)] }
    }

    fn row(block: u64, instructions: u64, ends: u64, taken: u64) -> Row {
        Row { block, instructions, ends, taken, misses: Misses { l1i: 1, ..Misses::default() } }
    }

    /// Two blocks of one function, the second one translated twice, one of another function, and one outside the kernel.
    fn profile() -> Profile {
        let blocks = vec![
            place(FIRST, 0x20, 0x1000),
            place(FIRST + 0x20, 0x20, 0x1020),
            place(FIRST + 0x20, 0x20, 0x1020),
            place(FIRST + 0x100, 0x10, 0x2000),
            place(0x40_0000, 0x50, 0x7f30),
        ];
        let rows = vec![row(0, 80, 10, 4), row(1, 30, 3, 3), row(2, 10, 1, 1), row(3, 500, 50, 50), row(4, 7, 1, 0)];
        let edges = [(0, 1, 5), (0, 2, 1), (1, 3, 3), (2, 3, 1), (3, 3, 50), (4, 4, 1)];
        let interval = Interval {
            name: "x".into(),
            instructions: Counts { kernel: 620, user: 7 },
            blocks: Counts { kernel: 64, user: 1 },
            rows,
            edges: edges.into_iter().map(|(from, to, count)| Edge { from, to, count }).collect(),
        };
        Profile { intervals: vec![interval], blocks, ..Profile::default() }
    }

    #[test]
    fn kernel_and_user_are_apart() {
        let profile = profile();
        let (kernel, user) = sums(&profile, &profile.intervals[0]);
        assert_eq!((kernel.instructions, kernel.blocks, kernel.taken), (620, 64, 58));
        assert_eq!((kernel.lines, kernel.pages, kernel.misses.l1i), (2, 2, 4));
        assert_eq!(kernel.edges, 3, "a block translated twice has its edges once");
        assert_eq!((user.instructions, user.lines, user.pages, user.edges), (7, 2, 1, 1));
    }

    #[test]
    fn functions_have_their_own() {
        let profile = profile();
        let text = format!("{FIRST:x} T one\n{:x} t two [mod]\n", FIRST + 0x100);
        let found = functions(&profile, &profile.intervals[0], &Symbols::parse(&text));
        let short: Vec<_> =
            found.iter().map(|f| (f.name.as_str(), f.sum.instructions, f.sum.edges, f.sum.lines)).collect();
        assert_eq!(short, [("two", 500, 1, 1), ("one", 120, 2, 1), ("[user]", 7, 1, 2)]);
        assert_eq!((found[0].module.as_deref(), found[1].rows.as_slice()), (Some("mod"), &[0, 1, 2][..]));
        let unnamed = functions(&profile, &profile.intervals[0], &Symbols::default());
        assert_eq!((unnamed[0].name.as_str(), unnamed[0].sum.instructions), ("[unknown]", 620));
    }
}
