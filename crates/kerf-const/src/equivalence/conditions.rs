//! What a path takes for granted: the conditions of the branches on its way.

use std::collections::BTreeMap;

use kerf_semantics::{Arena, State, Term};
use rustc_hash::FxHashMap;

use super::facts::Location;

/// No more conditions go on from one point to the next, and none of them is larger.
const MOST_CARRIED: usize = 12;
const MOST_TERMS: usize = 60;

/// Conditions that hold on a path, as 1-bit terms over its first state.
#[derive(Clone, Debug, Default)]
pub struct Assumptions {
    terms: Vec<Term>,
    /// What they say in so many words: the condition is 1, its negation 0, and `x = 3` that `x` is 3.
    rewrites: FxHashMap<Term, Term>,
}

impl Assumptions {
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Takes a condition for granted.
    pub fn add(&mut self, arena: &mut Arena, condition: Term) {
        let condition = self.simplify(arena, condition);
        for part in arena.conjuncts(condition) {
            if arena.as_constant(part) == Some(1) || self.terms.contains(&part) {
                continue;
            }
            self.terms.push(part);
            let (opposite, yes, no) = (arena.not(part), arena.bool(true), arena.bool(false));
            self.rewrites.insert(part, yes);
            self.rewrites.insert(opposite, no);
            if let Some((a, b)) = arena.as_equality(part)
                && arena.width(a) > 1
            {
                self.rewrite(arena, a, b);
            }
        }
    }

    /// Has an equality put in wherever one side of it stands: a constant for a term, what a variable holds for it.
    fn rewrite(&mut self, arena: &Arena, a: Term, b: Term) {
        let holds = |v: Term, t: Term| arena.as_variable(v).is_some() && !arena.reachable(&[t]).contains(&v);
        if arena.as_constant(b).is_some() || holds(a, b) {
            self.rewrites.insert(a, b);
        } else if holds(b, a) {
            self.rewrites.insert(b, a);
        }
    }

    /// The same term on this path, simpler where the conditions say so.
    pub fn simplify(&self, arena: &mut Arena, term: Term) -> Term {
        if self.rewrites.is_empty() { term } else { arena.substitute(term, &self.rewrites) }
    }

    /// Both states with what is known put in.
    pub fn simplify_states(&self, arena: &mut Arena, states: &[State; 2]) -> [State; 2] {
        states.each_ref().map(|state| {
            let mut simple = state.clone();
            if self.rewrites.is_empty() {
                return simple;
            }
            for register in &mut simple.gpr {
                *register = self.simplify(arena, *register);
            }
            for flag in kerf_semantics::Flag::ALL {
                let value = self.simplify(arena, state.flags.get(flag));
                simple.flags.set(flag, value);
            }
            simple.memory = self.simplify(arena, state.memory);
            simple.trap = self.simplify(arena, state.trap);
            if let Some(frame) = &mut simple.frame {
                frame.memory = self.simplify(arena, frame.memory);
            }
            simple
        })
    }

    /// The conditions in terms of what the places hold at the end of the path, the latest first; those that speak of
    /// anything else are left out.
    pub fn carried(&self, arena: &mut Arena, held: &BTreeMap<Location, Term>, memory: [Term; 2]) -> Vec<Term> {
        if self.terms.is_empty() {
            return Vec::new();
        }
        let place = arena.memory(MEMORY);
        let reread: FxHashMap<Term, Term> = memory.into_iter().map(|term| (term, place)).collect();
        let mut names = reread.clone();
        for (location, term) in held {
            let simple = self.simplify(arena, *term);
            if !everywhere(arena, simple) {
                self.name_parts(arena, *location, *term, &mut names);
            }
        }
        let mut found: Vec<Term> = Vec::new();
        for condition in self.terms.iter().rev() {
            // What was loaded may be read again, or be used from where it is kept.
            for names in [&names, &reread] {
                let said = arena.substitute(*condition, names);
                if arena.as_constant(said).is_none() && told(arena, said) && !found.contains(&said) {
                    found.push(said);
                }
            }
        }
        found.truncate(MOST_CARRIED);
        found
    }

    /// Names what a place holds, and the parts of it that conditions speak of: bytes, and what was loaded narrower.
    fn name_parts(&self, arena: &mut Arena, location: Location, term: Term, names: &mut FxHashMap<Term, Term>) {
        let whole = variable(arena, location);
        names.entry(term).or_insert(whole);
        let width = arena.width(term);
        let bytes = (0..width / 8).map(|byte| (8 * byte + 7, 8 * byte));
        for (high, low) in bytes.chain([(15, 0)]).filter(|(high, low)| *high < width && high - low + 1 < width) {
            let (inner, name) = (arena.extract(term, high, low), arena.extract(whole, high, low));
            if arena.as_constant(inner).is_none() {
                names.entry(inner).or_insert(name);
            }
        }
    }
}

/// What registers hold that one side alone has loaded from common memory: the other may load it later.
pub fn loaded(arena: &mut Arena, held: &BTreeMap<Location, Term>, memory: [Term; 2]) -> Vec<Term> {
    let place = arena.memory(MEMORY);
    let mut names: FxHashMap<Term, Term> = memory.into_iter().map(|term| (term, place)).collect();
    for (location, term) in held {
        if arena.as_variable(*term).is_some() && !everywhere(arena, *term) {
            let name = variable(arena, *location);
            names.entry(*term).or_insert(name);
        }
    }
    let mut found = Vec::new();
    for (location, term) in held {
        let Location::Register(side, ..) = *location else { continue };
        let common = |(l, t): (&Location, &Term)| matches!(l, Location::Register(s, ..) if *s != side) && t == term;
        if arena.as_variable(*term).is_some() || !reads(arena, *term) || held.iter().any(common) {
            continue;
        }
        let said = arena.substitute(*term, &names);
        if told(arena, said) && found.len() < MOST_CARRIED {
            let whole = variable(arena, *location);
            found.push(arena.eq(whole, said));
        }
    }
    found
}

/// Whether a term depends on common memory.
fn reads(arena: &Arena, term: Term) -> bool {
    arena.variables(&[term]).iter().any(|v| arena.is_memory(*v))
}

/// Whether a condition speaks of nothing but the places of its point, and is small.
fn told(arena: &Arena, condition: Term) -> bool {
    let known = |n: &str| n.starts_with("at.") || n.starts_with("entry.") || n == "gs_base";
    arena.reachable(&[condition]).len() <= MOST_TERMS
        && arena.variables(&[condition]).iter().all(|v| arena.as_variable(*v).is_some_and(known))
}

/// The variable that stands for all of common memory in a condition that is carried on.
const MEMORY: &str = "at.memory";

/// Whether a term means the same at every point: made of constants and of what the registers held at the entry.
pub fn everywhere(arena: &Arena, term: Term) -> bool {
    arena.variables(&[term]).iter().all(|v| arena.as_variable(*v).is_some_and(|n| n.starts_with("entry.")))
}

/// The variable that stands for what a place holds.
fn variable(arena: &mut Arena, location: Location) -> Term {
    arena.var(&format!("at.{location:?}"), location.bits())
}

/// Carried conditions with the places' values put in, one for one; `None` where one speaks of a place that is not held.
pub fn instantiate(
    arena: &mut Arena,
    conditions: &[Term],
    held: &BTreeMap<Location, Term>,
    memory: Term,
) -> Vec<Option<Term>> {
    if conditions.is_empty() {
        return Vec::new();
    }
    let place = arena.memory(MEMORY);
    let mut values = FxHashMap::from_iter([(place, memory)]);
    for (location, term) in held {
        values.insert(variable(arena, *location), *term);
    }
    let mut said = Vec::new();
    for condition in conditions {
        let known = arena
            .variables(&[*condition])
            .iter()
            .all(|v| values.contains_key(v) || !arena.as_variable(*v).is_some_and(|n| n.starts_with("at.")));
        said.push(known.then(|| arena.substitute(*condition, &values)));
    }
    said
}
