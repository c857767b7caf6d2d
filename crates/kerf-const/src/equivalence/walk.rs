//! The walk over both functions, from one branch or call to the next.

mod advance;
mod call;
mod frame;
mod opaque;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use kerf_semantics::{Arena, Prover, State, Term, Verdict};

use super::Signatures;
use super::facts::{Facts, RSP, SlotKey, frame_offset, tainted};
use super::link::{Bundle, Linker};
use advance::{Event, word};

/// No pair of functions has more points.
const MOST_POINTS: usize = 6000;
/// The solver is asked no more often than this, and for no longer each time.
const MOST_QUERIES: u32 = 24;
const QUERY_TIME: Duration = Duration::from_secs(1);

type Point = (u64, u64);

pub struct Walk<'a> {
    name: &'a str,
    sides: [&'a Bundle; 2],
    linker: &'a Linker,
    signatures: &'a Signatures,
    arena: Arena,
    facts: HashMap<Point, (usize, Facts)>,
    pending: VecDeque<Point>,
    slots: BTreeSet<SlotKey>,
    /// The lowest frame offset whose address was given away.
    escaped: Option<i64>,
    points: usize,
    prover: Option<Prover>,
    queries: u32,
}

type Checked<T> = Result<T, String>;

impl<'a> Walk<'a> {
    /// The arena is the one that the bundles were linked with.
    pub fn new(
        name: &'a str,
        sides: [&'a Bundle; 2],
        arena: Arena,
        linker: &'a Linker,
        signatures: &'a Signatures,
    ) -> Walk<'a> {
        Walk {
            name,
            sides,
            linker,
            signatures,
            arena,
            facts: HashMap::new(),
            pending: VecDeque::new(),
            slots: BTreeSet::new(),
            escaped: None,
            points: 0,
            prover: None,
            queries: 0,
        }
    }

    pub fn run(mut self) -> Checked<()> {
        let start = (self.sides[0].entry, self.sides[1].entry);
        let facts = Facts::entry(&mut self.arena);
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
        let mut states = facts.states(&mut self.arena, &tag);
        let mut ips = [point.0, point.1];
        let mut events = Vec::new();
        for side in 0..2 {
            events.push(self.advance(side, &mut states[side], &mut ips[side])?);
        }
        self.same_memory(&states)?;
        let [ours, theirs] = [events[0].clone(), events[1].clone()];
        match (ours, theirs) {
            (Event::Branch { taken: a, target: x, next: p }, Event::Branch { taken: b, target: y, next: q }) => {
                self.branch(states, (a, x, p), (b, y, q))
            }
            (Event::StaticKey { target: x, next: p }, Event::StaticKey { target: y, next: q }) => {
                self.join((x, y), &states)?;
                self.join((p, q), &states)
            }
            (Event::Call { at, callee: a, next: p }, Event::Call { callee: b, next: q, .. }) => {
                self.call(at, states, (a, p), (b, q))
            }
            (Event::Return, Event::Return) => self.returns(&states),
            (Event::Trap { next: p }, Event::Trap { next: q }) => {
                // A warning goes on behind it, anything worse does not: what follows is compared if there is something.
                if self.sides[0].code.contains_key(&p) && self.sides[1].code.contains_key(&q) {
                    return self.join((p, q), &states);
                }
                Ok(())
            }
            (Event::Opaque { insn: a, next: p }, Event::Opaque { insn: b, next: q }) => {
                self.opaque(states, (a, p), (b, q))
            }
            (a, b) => Err(format!("one side comes to {}, the other to {}", word(&a), word(&b))),
        }
    }

    /// Whether two terms are equal for all values of their variables: by form, else by the solver.
    fn equal(&mut self, a: Term, b: Term) -> bool {
        if a == b {
            return true;
        }
        if tainted(&self.arena, a) || tainted(&self.arena, b) || self.queries >= MOST_QUERIES {
            return false;
        }
        self.queries += 1;
        if self.prover.is_none() {
            let Ok(mut prover) = Prover::start() else { return false };
            let _ = prover.set_timeout(QUERY_TIME);
            self.prover = Some(prover);
        }
        let claim = self.arena.eq(a, b);
        let verdict = self.prover.as_mut().map(|p| p.valid(&self.arena, &[], claim));
        matches!(verdict, Some(Ok(Verdict::Proved)))
    }

    fn same_memory(&mut self, states: &[State; 2]) -> Checked<()> {
        if states[0].trap != states[1].trap {
            return Err("a division can trap on one side".into());
        }
        if self.equal(states[0].memory, states[1].memory) {
            return Ok(());
        }
        Err("common memory is written differently".into())
    }

    fn branch(&mut self, states: [State; 2], (a, x, p): (Term, u64, u64), (b, y, q): (Term, u64, u64)) -> Checked<()> {
        let opposite = self.arena.not(b);
        let (taken, fallen) = if self.equal(a, b) {
            ((x, y), (p, q))
        } else if self.equal(a, opposite) {
            ((x, q), (p, y))
        } else {
            return Err(format!("the conditions differ: {} and {}", self.shown(a), self.shown(b)));
        };
        self.join(taken, &states)?;
        self.join(fallen, &states)
    }

    fn shown(&self, term: Term) -> String {
        let text = self.arena.display(term);
        if text.len() > 120 { format!("{}…", text.chars().take(120).collect::<String>()) } else { text }
    }

    /// Adds what two states know to what is known where they go.
    fn join(&mut self, point: Point, states: &[State; 2]) -> Checked<()> {
        for state in states {
            if frame_offset(&mut self.arena, state, state.gpr[RSP]).is_none() {
                return Err("the stack pointer is not known".into());
            }
        }
        if tainted(&self.arena, states[0].memory) {
            return Err("an address in the frame is stored".into());
        }
        let new = Facts::read(&mut self.arena, states, &self.slots);
        match self.facts.get(&point) {
            None => {
                self.facts.insert(point, (0, new));
                self.pending.push_back(point);
            }
            Some((version, old)) => {
                let met = old.meet(&new);
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
