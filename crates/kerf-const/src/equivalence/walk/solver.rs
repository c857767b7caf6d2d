//! Claims about a path: by form, by trying values, and by the solver.

use std::collections::VecDeque;
use std::time::Duration;

use kerf_semantics::{Arena, Assignment, Prover, State, Term, Verdict};

use super::super::facts::tainted;
use super::{Checked, Walk};

/// The solver is asked no more often than this, and for no longer each time.
const MOST_QUERIES: u32 = 64;
const QUERY_TIME: Duration = Duration::from_millis(250);
/// A function in which so many questions stayed open is not going to be proved: what holds is mostly seen at once.
const MOST_UNDECIDED: u32 = 3;
/// So many assignments are tried before the solver is asked.
const TRIALS: u64 = 64;

/// So many of the solver's counterexamples are kept.
const MOST_WITNESSES: usize = 96;

/// Values that refuted claims: they often refute the next one, too, since paths share their conditions, and so do the same function's
/// compilations for different values.
pub type Witnesses = VecDeque<Assignment>;

/// The solver and how often it was asked.
#[derive(Default)]
pub struct Solver {
    prover: Option<Prover>,
    queries: u32,
    undecided: u32,
    witnesses: Witnesses,
}

impl Solver {
    /// A solver that knows what refuted claims of a similar walk.
    pub fn knowing(witnesses: Witnesses) -> Solver {
        Solver { witnesses, ..Solver::default() }
    }

    /// What has refuted claims.
    pub fn witnesses(self) -> Witnesses {
        self.witnesses
    }

    /// Whether the claim holds wherever the assumptions do. What cannot be decided does not.
    fn proves(&mut self, arena: &Arena, assumptions: &[Term], claim: Term) -> bool {
        if arena.as_constant(claim) == Some(1) {
            return true;
        }
        if self.queries >= MOST_QUERIES
            || self.undecided >= MOST_UNDECIDED
            || refuted_by_chance(arena, assumptions, claim)
        {
            return false;
        }
        // What a witness refutes counts too: how much is tried must not depend on what is known from elsewhere.
        self.queries += 1;
        if self.refuted(arena, assumptions, claim) {
            return false;
        }
        if self.prover.is_none() {
            let Ok(mut prover) = Prover::start() else { return false };
            let _ = prover.set_timeout(QUERY_TIME);
            self.prover = Some(prover);
        }
        let start = std::time::Instant::now();
        let verdict = self.prover.as_mut().map(|p| p.valid(arena, assumptions, claim));
        tracing::trace!(seconds = start.elapsed().as_secs_f32(), ?verdict, "asked");
        match verdict {
            Some(Ok(Verdict::Proved)) => return true,
            Some(Ok(Verdict::Refuted(witness))) => {
                self.witnesses.push_front(witness);
                self.witnesses.truncate(MOST_WITNESSES);
            }
            _ => self.undecided += 1,
        }
        false
    }

    /// Whether a witness is at hand that the assumptions allow and the claim does not.
    fn refuted(&self, arena: &Arena, assumptions: &[Term], claim: Term) -> bool {
        self.witnesses.iter().any(|witness| refutes(arena, assumptions, claim, witness))
    }
}

fn refutes(arena: &Arena, assumptions: &[Term], claim: Term, assignment: &Assignment) -> bool {
    let mut evaluator = arena.evaluator(assignment);
    assumptions.iter().all(|a| evaluator.value(*a) == 1) && evaluator.value(claim) == 0
}

/// Whether one of some simple assignments refutes a claim: most wrong claims fall so.
fn refuted_by_chance(arena: &Arena, assumptions: &[Term], claim: Term) -> bool {
    let roots: Vec<Term> = assumptions.iter().copied().chain([claim]).collect();
    let names: Vec<&str> = arena.variables(&roots).into_iter().filter_map(|v| arena.as_variable(v)).collect();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    (0..TRIALS).any(|trial| {
        let mut assignment = Assignment::new();
        for name in &names {
            let value = random();
            // Small numbers meet the conditions that code tests for, others do not collide.
            let small = match trial % 4 {
                0 => true,
                1 => false,
                _ => value & 16 != 0,
            };
            let value = random();
            assignment.set(name, u128::from(if small { value % 4 } else { value }));
        }
        refutes(arena, assumptions, claim, &assignment)
    })
}

impl Walk<'_> {
    /// Whether two terms are equal on this path: by form, else by the solver.
    pub(super) fn equal(&mut self, a: Term, b: Term) -> bool {
        if a == b {
            return true;
        }
        if tainted(&self.arena, a) || tainted(&self.arena, b) {
            return false;
        }
        let [a, b] = [a, b].map(|t| self.assumed.simplify(&mut self.arena, t));
        if a == b {
            return true;
        }
        let claim = self.arena.eq(a, b);
        self.solver.proves(&self.arena, self.assumed.terms(), claim)
    }

    /// Whether a condition is known on this path, and what it is.
    pub(super) fn decided(&mut self, condition: Term) -> Option<bool> {
        let simple = self.assumed.simplify(&mut self.arena, condition);
        if let Some(value) = self.arena.as_constant(simple) {
            return Some(value == 1);
        }
        let opposite = self.arena.not(simple);
        if self.assumed.terms().is_empty() {
            return None;
        }
        if self.solver.proves(&self.arena, self.assumed.terms(), simple) {
            return Some(true);
        }
        self.solver.proves(&self.arena, self.assumed.terms(), opposite).then_some(false)
    }

    /// Whether both sides have written the same into common memory.
    pub(super) fn same_memory(&mut self, states: &[State; 2]) -> Checked<()> {
        if states[0].trap != states[1].trap {
            return Err("a division can trap on one side".into());
        }
        if self.equal(states[0].memory, states[1].memory) {
            return Ok(());
        }
        Err("common memory is written differently".into())
    }

    pub(super) fn shown(&self, term: Term) -> String {
        let text = self.arena.display(term);
        if text.len() > 120 { format!("{}…", text.chars().take(120).collect::<String>()) } else { text }
    }
}
