//! Intervals: what had been counted at one mark and at the other, and the difference.

use super::{Detail, Gatherer};
use crate::block::Branch;
use crate::mark::{LONGEST_NAME, Mark};
use crate::model::Misses;
use crate::profile::{Counts, Edge, Interval, Place, Profile, Row};
use std::collections::BTreeMap;

/// All that had been counted at a moment.
#[derive(Debug, Default)]
struct Moment {
    instructions: Counts,
    blocks: Counts,
    counters: Vec<u64>,
    taken: Vec<u64>,
    edges: Vec<u64>,
    misses: Vec<Misses>,
}

impl Moment {
    fn now(gatherer: &Gatherer) -> Moment {
        let (instructions, blocks) = gatherer.counters.in_sum();
        let mut moment = Moment { instructions, blocks, ..Moment::default() };
        if gatherer.wanted.detail >= Detail::Blocks {
            moment.counters = gatherer.counters.values();
            moment.taken = gatherer.flow.taken().to_vec();
            moment.edges = gatherer.flow.counts().to_vec();
            moment.misses = gatherer.misses.clone();
        }
        moment
    }

    /// What has happened since an earlier moment.
    fn since(&self, earlier: &Moment, gatherer: &Gatherer, name: String) -> Interval {
        let mut interval = Interval {
            name,
            instructions: self.instructions - earlier.instructions,
            blocks: self.blocks - earlier.blocks,
            ..Interval::default()
        };
        let at = |values: &[u64], index: usize| values.get(index).copied().unwrap_or(0);
        let more = |now: &[u64], before: &[u64], index: usize| at(now, index) - at(before, index);
        for (number, known) in gatherer.known.iter().enumerate() {
            let passed = |segment: usize| more(&self.counters, &earlier.counters, known.counter + segment);
            let instructions = known.lengths.iter().enumerate().map(|(n, length)| passed(n) * length).sum();
            let misses = subtract(self.misses.get(number), earlier.misses.get(number));
            if instructions == 0 && misses == Misses::default() {
                continue;
            }
            let end = known.lengths.len().checked_sub(1).map_or(0, passed);
            let ends = if known.branch == Branch::None { 0 } else { end };
            let taken = match known.branch {
                Branch::None => 0,
                Branch::Conditional(_) => more(&self.taken, &earlier.taken, number),
                Branch::Direct(_) | Branch::Indirect | Branch::Back => ends,
            };
            let kernel = known.kernel;
            *interval.instructions.of_mut(kernel) += instructions;
            *interval.blocks.of_mut(kernel) += ends;
            interval.rows.push(Row { block: number as u64, instructions, ends, taken, misses });
        }
        for (number, (from, to)) in gatherer.flow.edges().iter().enumerate() {
            match more(&self.edges, &earlier.edges, number) {
                0 => {}
                count => interval.edges.push(Edge { from: (*from).into(), to: (*to).into(), count }),
            }
        }
        interval
    }
}

fn subtract(now: Option<&Misses>, earlier: Option<&Misses>) -> Misses {
    let (now, earlier) = (now.copied().unwrap_or_default(), earlier.copied().unwrap_or_default());
    Misses {
        l1i: now.l1i - earlier.l1i,
        l1d: now.l1d - earlier.l1d,
        l2: now.l2 - earlier.l2,
        itlb: now.itlb - earlier.itlb,
    }
}

/// The intervals so far, and those that are open.
#[derive(Debug, Default)]
pub(super) struct Marks {
    open: Option<(String, Moment)>,
    run: Option<Moment>,
    /// Half bytes of the next name.
    spelt: Vec<u8>,
    intervals: Vec<Interval>,
    whole: Option<Interval>,
    stray: u64,
}

impl Marks {
    pub(super) fn pass(&mut self, mark: Mark, gatherer: &Gatherer) {
        match mark {
            Mark::Spell(half) if self.spelt.len() < 2 * LONGEST_NAME => self.spelt.push(half),
            Mark::Spell(_) => {}
            Mark::Begin if self.open.is_none() => {
                let name = self.name();
                self.open = Some((name, Moment::now(gatherer)));
            }
            Mark::End => match self.open.take() {
                Some((name, start)) => {
                    self.spelt.clear();
                    self.intervals.push(Moment::now(gatherer).since(&start, gatherer, name));
                }
                None => self.stray += 1,
            },
            Mark::Start if self.run.is_none() && self.whole.is_none() => self.run = Some(Moment::now(gatherer)),
            Mark::Stop => match self.run.take() {
                Some(start) => self.whole = Some(Moment::now(gatherer).since(&start, gatherer, String::new())),
                None => self.stray += 1,
            },
            Mark::Begin | Mark::Start => self.stray += 1,
        }
    }

    fn name(&mut self) -> String {
        let bytes: Vec<u8> = self.spelt.chunks_exact(2).map(|half| half[0] << 4 | half[1]).collect();
        self.spelt.clear();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(super) fn finish(self, gatherer: &Gatherer) -> Profile {
        let open = u64::from(self.open.is_some()) + u64::from(self.run.is_some());
        let total = Moment::now(gatherer).since(&Moment::default(), gatherer, String::new()).instructions;
        let mut profile = Profile {
            intervals: self.intervals,
            whole: self.whole,
            total,
            stray: self.stray + open,
            blocks: Vec::new(),
        };
        renumber(&mut profile, gatherer);
        profile
    }
}

/// Leaves only those blocks in that something is said of.
fn renumber(profile: &mut Profile, gatherer: &Gatherer) {
    let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
    let mut intervals: Vec<&mut Interval> = profile.intervals.iter_mut().chain(&mut profile.whole).collect();
    for interval in &intervals {
        numbers.extend(interval.rows.iter().map(|row| (row.block, 0)));
        numbers.extend(interval.edges.iter().flat_map(|edge| [(edge.from, 0), (edge.to, 0)]));
    }
    for (new, (old, number)) in numbers.iter_mut().enumerate() {
        *number = new as u64;
        let place = gatherer.known.get(*old as usize).map(|known| Place {
            address: known.address,
            size: known.size,
            ranges: known.ranges.clone(),
        });
        profile.blocks.push(place.unwrap_or_default());
    }
    let new = |old: u64| numbers.get(&old).copied().unwrap_or(0);
    for interval in &mut intervals {
        interval.rows.iter_mut().for_each(|row| row.block = new(row.block));
        interval.edges.iter_mut().for_each(|edge| (edge.from, edge.to) = (new(edge.from), new(edge.to)));
    }
}
