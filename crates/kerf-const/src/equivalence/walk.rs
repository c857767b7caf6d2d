//! The walk over both functions, from one branch or call to the next.

mod advance;
mod call;
mod frame;
mod opaque;
mod path;
mod solver;

use std::collections::{BTreeSet, VecDeque};

use kerf_semantics::{Arena, State, Term};
use rustc_hash::FxHashMap;

use super::Signatures;
use super::conditions::Assumptions;
use super::facts::{Facts, RSP, SlotKey, frame_offset, tainted};
use super::link::{Bundle, Linker};
use path::Path;
use solver::Solver;
pub use solver::Witnesses;

/// No pair of functions has more points.
const MOST_POINTS: usize = 6000;
/// No point has more paths that only one side tells apart.
const MOST_PATHS: usize = 100;

type Point = (u64, u64);

/// How the stack frames of both sides are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Frames {
    /// Both have the same layout: they are memory like any other, and equal in all at every point. Addresses in them may
    /// be used in any way.
    One,
    /// Each has its own: what their slots hold is known slot by slot.
    Two,
}

pub struct Walk<'a> {
    name: &'a str,
    sides: [&'a Bundle; 2],
    linker: &'a Linker,
    signatures: &'a Signatures,
    arena: Arena,
    facts: FxHashMap<Point, (usize, Facts)>,
    pending: VecDeque<Point>,
    frames: Frames,
    slots: BTreeSet<SlotKey>,
    /// The lowest frame offset whose address was given away on the path at hand.
    escaped: Option<i64>,
    points: usize,
    /// What the path at hand takes for granted.
    assumed: Assumptions,
    /// Addresses of truth values that the parameters point to, once they were needed.
    booleans: Option<Vec<Term>>,
    solver: Solver,
}

type Checked<T> = Result<T, String>;

impl<'a> Walk<'a> {
    /// The arena is the one that the bundles were linked with. The witnesses are from similar walks.
    pub fn new(
        name: &'a str,
        sides: [&'a Bundle; 2],
        arena: Arena,
        linker: &'a Linker,
        signatures: &'a Signatures,
        frames: Frames,
        witnesses: Witnesses,
    ) -> Walk<'a> {
        Walk {
            name,
            sides,
            linker,
            signatures,
            arena,
            facts: FxHashMap::default(),
            pending: VecDeque::new(),
            frames,
            slots: BTreeSet::new(),
            escaped: None,
            points: 0,
            assumed: Assumptions::default(),
            booleans: None,
            solver: Solver::knowing(witnesses),
        }
    }

    /// Walks, and once more as long as that shows stack slots that were not known from the beginning. What refuted claims comes with the result.
    pub fn run(mut self) -> (Checked<()>, Witnesses) {
        loop {
            let known = self.slots.len();
            match self.once() {
                Err(_) if self.slots.len() > known => {
                    self.facts.clear();
                    self.pending.clear();
                    self.escaped = None;
                    self.points = 0;
                }
                result => return (result, self.solver.witnesses()),
            }
        }
    }

    /// One walk, from the entries on.
    fn once(&mut self) -> Checked<()> {
        let start = (self.sides[0].entry, self.sides[1].entry);
        let facts = Facts::entry(&mut self.arena, self.frames, &self.slots);
        self.facts.insert(start, (0, facts));
        self.pending.push_back(start);
        while let Some(point) = self.pending.pop_front() {
            self.points += 1;
            if self.points > MOST_POINTS {
                return Err("the function is too large to compare".into());
            }
            self.visit(point).map_err(|why| format!("at {}+{:#x}: {why}", self.name, point.0 & 0xfffff))?;
        }
        Ok(())
    }

    fn visit(&mut self, point: Point) -> Checked<()> {
        let Some((version, facts)) = self.facts.get(&point).cloned() else { return Ok(()) };
        let tag = format!("{:x}.{:x}.{version}", point.0, point.1);
        let states = facts.states(&mut self.arena, self.frames, &tag);
        let assumed = facts.assumptions(&mut self.arena, &tag, states[0].memory);
        let mut open = vec![Path::new(states, point, assumed, facts.escaped)];
        for _ in 0..MOST_PATHS {
            let Some(path) = open.pop() else { return Ok(()) };
            self.follow(path, &mut open)?;
        }
        Err("too many paths go out from here".into())
    }

    /// Adds what two states know to what is known where they go.
    fn join(&mut self, point: Point, states: &[State; 2]) -> Checked<()> {
        let known = [point.0, point.1].iter().zip(self.sides).filter(|(p, s)| s.code.contains_key(p)).count();
        if known == 0 {
            // Behind a call that does not return there is nothing.
            return Ok(());
        }
        let stack_is_known = match self.frames {
            Frames::One => states[0].gpr[RSP] == states[1].gpr[RSP],
            Frames::Two => states.iter().all(|s| frame_offset(&mut self.arena, s, s.gpr[RSP]).is_some()),
        };
        if !stack_is_known {
            return Err("the stack pointer is not known".into());
        }
        if tainted(&self.arena, states[0].memory) {
            return Err("an address in the frame is stored".into());
        }
        let mut new = Facts::read(&mut self.arena, states, &self.slots, &self.assumed);
        new.escaped = self.escaped;
        match self.facts.get(&point) {
            None => {
                let new = new.with_conditions(&mut self.arena, states, &self.slots, &self.assumed);
                self.facts.insert(point, (0, new));
                self.pending.push_back(point);
            }
            Some((version, old)) => {
                let conditions = old.still_hold(&mut self.arena, states, &self.slots, &self.assumed);
                let met = old.meet(&new).only(conditions);
                if !met.same(old) {
                    self.facts.insert(point, (version + 1, met));
                    if !self.pending.contains(&point) {
                        self.pending.push_back(point);
                    }
                }
            }
        }
        Ok(())
    }
}
