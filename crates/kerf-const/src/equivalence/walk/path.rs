//! Paths from a point to what both sides do next. Where only one side branches, each way is a path of its own.

use kerf_semantics::{REGISTER_NAMES, State, Term};

use super::super::conditions::Assumptions;
use super::super::facts::entry_half;
use super::advance::{Event, word};
use super::call::ARGUMENTS;
use super::{Checked, Point, Walk};

/// One side goes no further alone: so many branches that the other does not have, decided or not.
const MOST_FORKS: u32 = 8;
const MOST_DECIDED: u32 = 40;

/// Both sides on their way, and what is taken for granted on it.
#[derive(Clone)]
pub struct Path {
    states: [State; 2],
    ips: [u64; 2],
    /// Common memory where the path begins.
    memory: Term,
    /// What a side has come to, until it goes on.
    events: [Option<Event>; 2],
    assumed: Assumptions,
    escaped: Option<i64>,
    forks: u32,
    decided: u32,
    /// Why the sides were told apart first.
    why: Option<String>,
}

impl Path {
    pub fn new(states: [State; 2], point: Point, assumed: Assumptions, escaped: Option<i64>) -> Path {
        let (ips, memory) = ([point.0, point.1], states[0].memory);
        Path { states, ips, memory, events: [None, None], assumed, escaped, forks: 0, decided: 0, why: None }
    }

    /// The condition and the ways of the branch that a side has come to.
    fn branch(&self, side: usize) -> Option<(Term, u64, u64)> {
        match self.events[side] {
            Some(Event::Branch { taken, target, next }) => Some((taken, target, next)),
            _ => None,
        }
    }
}

impl Walk<'_> {
    /// Follows a path to what both sides do next, compares that, and adds the ways that only one side tells apart to
    /// those that are still open.
    pub(super) fn follow(&mut self, mut path: Path, open: &mut Vec<Path>) -> Checked<()> {
        self.assumed = path.assumed.clone();
        self.escaped = path.escaped;
        let why = path.why.clone();
        let result = self.advance_both(&mut path).and_then(|()| self.meet_events(path, open));
        result.map_err(|error| match why {
            Some(why) if why != error => format!("{why}; there {error}"),
            _ => error,
        })
    }

    fn advance_both(&mut self, path: &mut Path) -> Checked<()> {
        for side in 0..2 {
            if path.events[side].is_none() {
                path.events[side] = Some(self.advance(side, &mut path.states[side], &mut path.ips[side])?);
            }
        }
        Ok(())
    }

    fn meet_events(&mut self, path: Path, open: &mut Vec<Path>) -> Checked<()> {
        if let (Some(a), Some(b)) = (path.branch(0), path.branch(1)) {
            return self.branches(path, a, b, open);
        }
        let [Some(ours), Some(theirs)] = path.events.clone() else { return Err("a side has not gone on".into()) };
        let differ = format!("one side comes to {}, the other to {}", word(&ours), word(&theirs));
        for side in 0..2 {
            if path.branch(side).is_some() {
                return self.fork(path, side, differ, open);
            }
        }
        let states = path.states;
        self.same_memory(&states)?;
        match (ours, theirs) {
            (Event::StaticKey { key: a, target: x, next: p }, Event::StaticKey { key: b, target: y, next: q }) => {
                if a != b {
                    return Err("different static keys are asked".into());
                }
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
            _ => Err(differ),
        }
    }

    /// Both sides branch: together if on the same condition or its opposite, else one after the other.
    fn branches(
        &mut self,
        mut path: Path,
        (a, x, p): (Term, u64, u64),
        (b, y, q): (Term, u64, u64),
        open: &mut Vec<Path>,
    ) -> Checked<()> {
        let opposite = self.arena.not(b);
        self.know_booleans(&mut path, a, b);
        let (taken, fallen) = if self.equal(a, b) {
            ((x, y), (p, q))
        } else if self.equal(a, opposite) {
            ((x, q), (p, y))
        } else {
            let differ = format!("the conditions differ: {} and {}", self.shown(a), self.shown(b));
            let first = if self.decided(a).is_none() && self.decided(b).is_some() { 1 } else { 0 };
            return self.fork(path, first, differ, open);
        };
        if let Err(differ) = self.same_memory(&path.states) {
            // One side may write before the branch what the other writes behind it.
            return self.fork(path, 0, differ, open);
        }
        let not = self.arena.not(a);
        for (condition, point) in [(a, taken), (not, fallen)] {
            self.assumed = path.assumed.clone();
            self.assumed.add(&mut self.arena, condition);
            self.join(point, &path.states)?;
        }
        Ok(())
    }

    /// Takes for granted that a truth value that both conditions read from memory is 0 or 1, as compilers do.
    ///
    /// The parameter's type says where there is one. Both sides have read it as such: it is there.
    fn know_booleans(&mut self, path: &mut Path, a: Term, b: Term) {
        if a == b {
            return;
        }
        if self.booleans.is_none() {
            let mut addresses = Vec::new();
            for (parameter, offset) in self.signatures.booleans(self.name) {
                let Some(&register) = ARGUMENTS.get(parameter) else { continue };
                let halves = [0, 1].map(|half| entry_half(&mut self.arena, REGISTER_NAMES[register], half));
                let pointer = self.arena.concat(halves[1], halves[0]);
                addresses.push(self.arena.add_constant(pointer, u128::from(offset)));
            }
            self.booleans = Some(addresses);
        }
        let read = [a, b].map(|condition| self.arena.reachable(&[condition]));
        let memories = [path.memory, path.states[0].memory, path.states[1].memory];
        for address in self.booleans.clone().unwrap_or_default() {
            for memory in memories {
                let value = self.arena.select(memory, address);
                if read.iter().all(|terms| terms.contains(&value)) {
                    let two = self.arena.constant(2, 8);
                    let truth = self.arena.ult(value, two);
                    path.assumed.add(&mut self.arena, truth);
                    self.assumed.add(&mut self.arena, truth);
                }
            }
        }
    }

    /// Lets one side go on alone behind its branch: on the way that is decided, else on both, each under its condition.
    fn fork(&mut self, path: Path, side: usize, why: String, open: &mut Vec<Path>) -> Checked<()> {
        let Some((condition, target, next)) = path.branch(side) else { return Err(why) };
        let decided = self.decided(condition);
        let (forks, known) = if decided.is_none() { (1, 0) } else { (0, 1) };
        if path.forks + forks > MOST_FORKS || path.decided + known > MOST_DECIDED {
            return Err(path.why.unwrap_or(why));
        }
        for (way, ip) in [(true, target), (false, next)] {
            if decided == Some(!way) {
                continue;
            }
            let mut alone = path.clone();
            let holds = if way { condition } else { self.arena.not(condition) };
            alone.assumed.add(&mut self.arena, holds);
            alone.ips[side] = ip;
            alone.events[side] = None;
            alone.forks += forks;
            alone.decided += known;
            alone.why.get_or_insert_with(|| why.clone());
            open.push(alone);
        }
        Ok(())
    }
}
