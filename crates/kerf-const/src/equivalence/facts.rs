//! What is known at a point of both functions: which of their registers, flags and stack slots hold equal values.

use std::collections::{BTreeMap, BTreeSet};

use kerf_semantics::{Arena, Flag, Frame, REGISTER_NAMES, State, Term};
use rustc_hash::FxHashMap;

use super::conditions::{self, Assumptions, everywhere};
use super::walk::Frames;

/// Number of the stack pointer.
pub const RSP: usize = 4;

/// A place that holds a value, on one side (0: template, 1: variant).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Location {
    /// A register's half: low (0) or high (1) 32 bits.
    Register(u8, u8, u8),
    /// A flag, by its position in [`Flag::ALL`].
    Flag(u8, u8),
    /// Bytes of the frame: offset from the stack pointer at the function's entry, size (1, 2 or 4).
    Slot(u8, i64, u8),
}

impl Location {
    /// How wide it is.
    pub fn bits(self) -> u32 {
        match self {
            Location::Register(..) => 32,
            Location::Flag(..) => 1,
            Location::Slot(_, _, size) => u32::from(size) * 8,
        }
    }
}

/// What is known of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// This term, which means the same everywhere: a constant, or made of what registers held at the entry.
    Fixed(Term),
    /// Part of an address in the frame, at this offset.
    Frame(i64),
    /// Computed from an address in the frame: must not be used as one.
    Tainted,
    /// What a call left behind: no compiler reads it again.
    Garbage,
    /// The same as all other places of the class.
    Class(u32),
}

/// All that is known at a point.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Facts {
    values: BTreeMap<Location, Value>,
    /// 1-bit terms over what the places hold, all of which are 1.
    conditions: Vec<Term>,
    /// The lowest frame offset whose address was given away on some way here.
    pub escaped: Option<i64>,
}

/// No term that means the same everywhere is kept as such beyond this size.
const MOST_FIXED: usize = 8;

/// A slot of a frame: side, offset and size in bytes.
pub type SlotKey = (u8, i64, u8);

impl Facts {
    /// At the entry both functions get the same registers and find the same below the stack pointer.
    pub fn entry(arena: &mut Arena, frames: Frames, slots: &BTreeSet<SlotKey>) -> Facts {
        let mut values = BTreeMap::new();
        for side in 0..2 {
            for (number, name) in REGISTER_NAMES.iter().enumerate() {
                for half in 0..2u8 {
                    let value = match frames {
                        Frames::Two if number == RSP => Value::Frame(0),
                        _ => Value::Fixed(entry_half(arena, name, half)),
                    };
                    values.insert(Location::Register(side, number as u8, half), value);
                }
            }
        }
        let mut classes: FxHashMap<(i64, u8), u32> = FxHashMap::default();
        for (side, offset, size) in slots {
            let next = classes.len() as u32;
            let class = *classes.entry((*offset, *size)).or_insert(next);
            values.insert(Location::Slot(*side, *offset, *size), Value::Class(class));
        }
        Facts { values, ..Facts::default() }
    }

    /// Both machine states at a point: equal places share a variable. `tag` names the point.
    pub fn states(&self, arena: &mut Arena, frames: Frames, tag: &str) -> [State; 2] {
        let base = arena.var("frame", 64);
        let memory = arena.memory(&format!("mem.{tag}"));
        [0u8, 1].map(|side| {
            let mut state = State::symbolic(arena);
            state.memory = memory;
            let mut frame = arena.memory(&format!("frame.{tag}.{side}"));
            for number in 0..16u8 {
                let halves = [0, 1].map(|half| self.term(arena, tag, Location::Register(side, number, half), 32));
                state.gpr[number as usize] = match self.values.get(&Location::Register(side, number, 0)) {
                    Some(Value::Frame(offset)) => arena.add_constant(base, *offset as u64 as u128),
                    _ => arena.concat(halves[1], halves[0]),
                };
            }
            for (n, flag) in Flag::ALL.into_iter().enumerate() {
                let term = self.term(arena, tag, Location::Flag(side, n as u8), 1);
                state.flags.set(flag, term);
            }
            if frames == Frames::One {
                return state;
            }
            // Larger slots first, so that a smaller one inside keeps what is known of it.
            let mut slots: Vec<(i64, u8)> = self
                .values
                .keys()
                .filter_map(|l| match l {
                    Location::Slot(s, offset, size) if *s == side => Some((*offset, *size)),
                    _ => None,
                })
                .collect();
            slots.sort_by_key(|(offset, size)| (std::cmp::Reverse(*size), *offset));
            for (offset, size) in slots {
                let term = self.term(arena, tag, Location::Slot(side, offset, size), u32::from(size) * 8);
                let address = arena.add_constant(base, offset as u64 as u128);
                frame = arena.store_bytes(frame, address, term);
            }
            state.frame = Some(Frame { base, memory: frame });
            state
        })
    }

    /// What is taken for granted at the point, over the states of the same `tag`.
    pub fn assumptions(&self, arena: &mut Arena, tag: &str, memory: Term) -> Assumptions {
        let mut assumed = Assumptions::default();
        if self.conditions.is_empty() {
            return assumed;
        }
        let held = self.values.keys().map(|l| (*l, self.term(arena, tag, *l, l.bits()))).collect();
        for condition in conditions::instantiate(arena, &self.conditions, &held, memory).into_iter().flatten() {
            assumed.add(arena, condition);
        }
        assumed
    }

    fn term(&self, arena: &mut Arena, tag: &str, location: Location, width: u32) -> Term {
        match self.values.get(&location) {
            Some(Value::Fixed(term)) => *term,
            Some(Value::Class(class)) => arena.var(&format!("c.{tag}.{class}.{width}"), width),
            Some(Value::Garbage) => arena.var(&format!("garbage.{tag}.{location:?}"), width),
            Some(Value::Tainted) => arena.var(&format!("tainted.{tag}.{location:?}"), width),
            _ => arena.var(&format!("u.{tag}.{location:?}"), width),
        }
    }

    /// What two states at the end of a path know, for the slots given.
    pub fn read(arena: &mut Arena, states: &[State; 2], slots: &BTreeSet<SlotKey>, assumed: &Assumptions) -> Facts {
        let simple = assumed.simplify_states(arena, states);
        let (held, frames) = held(arena, &simple, slots);
        let mut values: BTreeMap<Location, Value> = frames.into_iter().map(|(l, o)| (l, Value::Frame(o))).collect();
        let mut classes: FxHashMap<Term, u32> = FxHashMap::default();
        for (location, term) in held {
            let next = classes.len() as u32;
            let value = if everywhere(arena, term) && arena.reachable(&[term]).len() <= MOST_FIXED {
                Value::Fixed(term)
            } else if tainted(arena, term) {
                Value::Tainted
            } else if garbage(arena, term) {
                Value::Garbage
            } else {
                Value::Class(*classes.entry(term).or_insert(next))
            };
            values.insert(location, value);
        }
        Facts { values, ..Facts::default() }
    }

    /// Adds the conditions of a path that can be told in terms of its end.
    pub fn with_conditions(
        mut self,
        arena: &mut Arena,
        states: &[State; 2],
        slots: &BTreeSet<SlotKey>,
        assumed: &Assumptions,
    ) -> Facts {
        let (held, _) = held(arena, states, slots);
        let memory = states.each_ref().map(|s| s.memory);
        self.conditions = assumed.carried(arena, &held, memory);
        self.conditions.extend(conditions::loaded(arena, &held, memory));
        self
    }

    /// Those of the conditions here that hold at the end of another path, too.
    pub fn still_hold(
        &self,
        arena: &mut Arena,
        states: &[State; 2],
        slots: &BTreeSet<SlotKey>,
        assumed: &Assumptions,
    ) -> Vec<Term> {
        if self.conditions.is_empty() {
            return Vec::new();
        }
        let (held, _) = held(arena, states, slots);
        let said = conditions::instantiate(arena, &self.conditions, &held, states[0].memory);
        let mut kept = Vec::new();
        for (condition, said) in self.conditions.iter().zip(said) {
            let holds = said.is_some_and(|said| {
                let simple = assumed.simplify(arena, said);
                arena.as_constant(simple) == Some(1)
            });
            if holds {
                kept.push(*condition);
            }
        }
        kept
    }

    /// The same without all conditions but these.
    pub fn only(mut self, conditions: Vec<Term>) -> Facts {
        self.conditions = conditions;
        self
    }

    /// What both know: places are equal only if they are so in both. A slot that one of them does not know was never
    /// written there: what it holds means nothing.
    pub fn meet(&self, other: &Facts) -> Facts {
        let mut classes: FxHashMap<(Option<Value>, Option<Value>), u32> = FxHashMap::default();
        let mut next = 0;
        let mut values = BTreeMap::new();
        let all: BTreeSet<Location> = self.values.keys().chain(other.values.keys()).copied().collect();
        for location in all {
            let (mine, theirs) = (self.values.get(&location).copied(), other.values.get(&location).copied());
            if mine.is_none() && self.covers(location) || theirs.is_none() && other.covers(location) {
                continue;
            }
            let value = match (mine, theirs) {
                (Some(Value::Fixed(a)), Some(Value::Fixed(b))) if a == b => Value::Fixed(a),
                (Some(Value::Frame(a)), Some(Value::Frame(b))) if a == b => Value::Frame(a),
                (Some(Value::Tainted | Value::Frame(_)), _) | (_, Some(Value::Tainted | Value::Frame(_))) => {
                    Value::Tainted
                }
                (Some(Value::Garbage), Some(Value::Garbage)) => Value::Garbage,
                (Some(Value::Garbage), _) | (_, Some(Value::Garbage)) => {
                    next += 1;
                    Value::Class(next)
                }
                pair => Value::Class(*classes.entry(pair).or_insert_with(|| {
                    next += 1;
                    next
                })),
            };
            values.insert(location, value);
        }
        let escaped = [self.escaped, other.escaped].into_iter().flatten().min();
        Facts { values, conditions: Vec::new(), escaped }
    }

    /// Whether a slot is part of a larger one that is known.
    fn covers(&self, location: Location) -> bool {
        let Location::Slot(side, offset, size) = location else { return false };
        let end = offset + i64::from(size);
        self.values.keys().any(|known| match known {
            Location::Slot(s, o, n) => *s == side && *n > size && *o <= offset && end <= o + i64::from(*n),
            _ => false,
        })
    }

    /// Whether two facts differ only in the names of their classes.
    pub fn same(&self, other: &Facts) -> bool {
        let (mut there, mut back) = (FxHashMap::default(), FxHashMap::default());
        self.conditions == other.conditions
            && self.escaped == other.escaped
            && self.values.len() == other.values.len()
            && self.values.iter().zip(&other.values).all(|((l, a), (m, b))| {
                l == m
                    && match (a, b) {
                        (Value::Class(x), Value::Class(y)) => {
                            *there.entry(*x).or_insert(*y) == *y && *back.entry(*y).or_insert(*x) == *x
                        }
                        _ => a == b,
                    }
            })
    }
}

/// What the places of two states hold, and those that hold an address in the frame, with its offset.
fn held(
    arena: &mut Arena,
    states: &[State; 2],
    slots: &BTreeSet<SlotKey>,
) -> (BTreeMap<Location, Term>, BTreeMap<Location, i64>) {
    let (mut terms, mut frames) = (BTreeMap::new(), BTreeMap::new());
    for (side, state) in (0u8..).zip(states) {
        for number in 0..16u8 {
            let term = state.gpr[number as usize];
            if let Some(offset) = frame_offset(arena, state, term) {
                frames.extend((0..2).map(|half| (Location::Register(side, number, half), offset)));
                continue;
            }
            let (low, high) = (arena.extract(term, 31, 0), arena.extract(term, 63, 32));
            terms.insert(Location::Register(side, number, 0), low);
            terms.insert(Location::Register(side, number, 1), high);
        }
        for (n, flag) in Flag::ALL.into_iter().enumerate() {
            terms.insert(Location::Flag(side, n as u8), state.flags.get(flag));
        }
        let Some(frame) = state.frame else { continue };
        for (_, offset, size) in slots.iter().filter(|(s, ..)| *s == side) {
            let address = arena.add_constant(frame.base, *offset as u64 as u128);
            let term = arena.load_bytes(frame.memory, address, u32::from(*size));
            terms.insert(Location::Slot(side, *offset, *size), term);
        }
    }
    (terms, frames)
}

/// Whether a term is computed from an address in the frame.
pub fn tainted(arena: &Arena, term: Term) -> bool {
    let of_frame = |v: &Term| arena.as_variable(*v).is_some_and(|n| n == "frame" || n.starts_with("tainted."));
    arena.variables(&[term]).iter().any(of_frame)
}

/// Whether a term is made of nothing but what a call left behind.
pub fn garbage(arena: &Arena, term: Term) -> bool {
    let variables = arena.variables(&[term]);
    !variables.is_empty() && variables.iter().all(|v| arena.as_variable(*v).is_some_and(|n| n.starts_with("garbage.")))
}

/// The variable for half of what a register held at the entry.
pub fn entry_half(arena: &mut Arena, name: &str, half: u8) -> Term {
    arena.var(&format!("entry.{name}.{half}"), 32)
}

/// The offset of a term from the frame's base, if it is an address in the frame.
pub fn frame_offset(arena: &mut Arena, state: &State, term: Term) -> Option<i64> {
    let frame = state.frame?;
    let distance = arena.sub(term, frame.base);
    arena.as_constant(distance).map(|c| c as u64 as i64)
}
