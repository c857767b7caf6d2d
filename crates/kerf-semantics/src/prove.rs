//! Proofs: whether a claim about terms holds for all values, asked of z3 or cvc5.

use std::io;
use std::time::Duration;

use easy_smt::{Context, ContextBuilder, Response};

use crate::eval::Assignment;
use crate::live::LiveSet;
use crate::smt::{Encoding, logic, parse_literal};
use crate::state::{Flag, State};
use crate::term::{Arena, Node, Term, mask};

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds for all values that satisfy the assumptions.
    Proved,
    /// It does not hold for these values. They have been checked by evaluating assumptions and claim on them.
    Refuted(Assignment),
    /// The solver gave up, for this reason.
    Unknown(String),
}

/// Why the solver cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ProverError {
    /// Neither z3 nor cvc5 can be started.
    #[error("no SMT solver found: neither `z3` nor `cvc5` starts ({0}); install one with `apt install z3`")]
    NoSolver(io::Error),
    /// The solver's process ended or answered something else than expected.
    #[error("the SMT solver `{solver}` failed while {doing}: {source}")]
    Solver {
        /// The solver's program name.
        solver: &'static str,
        /// What was being asked.
        doing: &'static str,
        /// What came back.
        source: io::Error,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Z3,
    Cvc5,
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::Z3 => "z3",
            Self::Cvc5 => "cvc5",
        }
    }
}

/// A running SMT solver.
pub struct Prover {
    solver: Context,
    kind: Kind,
    timeout: Duration,
    queries: usize,
}

impl Prover {
    /// Starts z3 or, where there is none, cvc5.
    ///
    /// # Errors
    /// Neither is installed; the message names the package.
    pub fn start() -> Result<Self, ProverError> {
        let timeout = Duration::from_secs(5);
        let mut last = None;
        for kind in [Kind::Z3, Kind::Cvc5] {
            match launch(kind, timeout) {
                Ok(solver) => return Ok(Self { solver, kind, timeout, queries: 0 }),
                Err(error) => {
                    last.get_or_insert(error);
                }
            }
        }
        Err(ProverError::NoSolver(last.unwrap_or_else(|| io::ErrorKind::NotFound.into())))
    }

    /// The time that one claim may take on a processor of its own, 5 s unless set; the answer after that is [`Verdict::Unknown`]. z3 counts its
    /// steps instead, so that its answers do not depend on what else the machine does.
    ///
    /// # Errors
    /// The solver does not start again.
    pub fn set_timeout(&mut self, timeout: Duration) -> Result<(), ProverError> {
        self.timeout = timeout;
        self.restart()
    }

    /// The solver's program name.
    pub fn solver(&self) -> &'static str {
        self.kind.program()
    }

    /// How many claims the solver has been asked; what simplification alone decides is not counted.
    pub fn queries(&self) -> usize {
        self.queries
    }

    /// Whether the 1-bit `claim` is 1 for all values of its variables for which all `assumptions` are 1.
    ///
    /// # Errors
    /// The solver fails. A claim that it cannot decide in time is no error but [`Verdict::Unknown`].
    pub fn valid(&mut self, arena: &Arena, assumptions: &[Term], claim: Term) -> Result<Verdict, ProverError> {
        if arena.as_constant(claim) == Some(1) || assumptions.iter().any(|&term| arena.as_constant(term) == Some(0)) {
            return Ok(Verdict::Proved);
        }
        self.queries += 1;
        match self.ask(arena, assumptions, claim) {
            Ok(verdict) => Ok(verdict),
            Err(error) => {
                // A solver that died (out of memory, for one) must not take the following claims with it.
                tracing::debug!(%error, "the solver failed, starting another");
                self.restart()?;
                Ok(Verdict::Unknown(error.to_string()))
            }
        }
    }

    fn restart(&mut self) -> Result<(), ProverError> {
        self.solver = launch(self.kind, self.timeout).map_err(|source| self.failed("starting again", source))?;
        Ok(())
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> ProverError {
        ProverError::Solver { solver: self.kind.program(), doing, source }
    }

    fn ask(&mut self, arena: &Arena, assumptions: &[Term], claim: Term) -> Result<Verdict, ProverError> {
        let roots: Vec<Term> = assumptions.iter().copied().chain([claim]).collect();
        let terms = arena.reachable(&roots);
        let encoding = self.pose(arena, &terms, assumptions, claim).map_err(|e| self.failed("posing a claim", e))?;
        match self.solver.check().map_err(|e| self.failed("deciding a claim", e))? {
            Response::Unsat => Ok(Verdict::Proved),
            Response::Unknown => {
                let reason = self.reason().map_err(|e| self.failed("giving its reason", e))?;
                Ok(Verdict::Unknown(format!("{} gave up: {reason}", self.kind.program())))
            }
            Response::Sat => {
                let model = self.model(arena, &encoding, &terms).map_err(|e| self.failed("giving a model", e))?;
                let mut values = arena.evaluator(&model);
                let real = values.value(claim) == 0 && assumptions.iter().all(|&term| values.value(term) == 1);
                Ok(if real {
                    Verdict::Refuted(model)
                } else {
                    Verdict::Unknown(format!("{}'s counterexample does not refute the claim", self.kind.program()))
                })
            }
        }
    }

    /// A query in a fresh context: without scopes, the solver may use its strongest procedures.
    fn pose(&mut self, arena: &Arena, terms: &[Term], assumptions: &[Term], claim: Term) -> io::Result<Encoding> {
        let solver = &mut self.solver;
        reset(solver, self.kind, self.timeout)?;
        solver.set_logic(logic(arena, terms))?;
        let encoding = Encoding::define(arena, solver, terms)?;
        for &assumption in assumptions {
            solver.assert(encoding.holds(solver, assumption))?;
        }
        let holds = encoding.holds(solver, claim);
        solver.assert(solver.not(holds))?;
        Ok(encoding)
    }

    fn reason(&mut self) -> io::Result<String> {
        let solver = &mut self.solver;
        solver.raw_send(solver.list(vec![solver.atom("get-info"), solver.atom(":reason-unknown")]))?;
        let answer = solver.raw_recv()?;
        Ok(solver.display(answer).to_string().trim_matches(['(', ')']).replace(":reason-unknown ", ""))
    }

    /// Values for the variables, and bytes of memories wherever the query looks at them.
    fn model(&mut self, arena: &Arena, encoding: &Encoding, terms: &[Term]) -> io::Result<Assignment> {
        let (mut variables, mut addresses, mut memories) = (Vec::new(), Vec::new(), Vec::new());
        for &term in terms {
            match arena.node(term) {
                Node::Variable(name) => variables.push((term, name)),
                Node::Memory(name) => memories.push((term, name)),
                Node::Select(_, address) | Node::Store(_, address, _) => addresses.push(*address),
                _ => {}
            }
        }
        let asked = variables.iter().map(|(term, _)| *term).chain(addresses.iter().copied());
        let mut values = values(&mut self.solver, asked.map(|term| encoding.of(term)).collect())?;
        let places = values.split_off(variables.len());
        let mut model = Assignment::new();
        for ((term, name), value) in variables.into_iter().zip(values) {
            if let Some(value) = value {
                model.set(name, value & mask(arena.width(term)));
            }
        }
        let reads = |solver: &Context, memory: Term, address: Term| {
            solver.list(vec![solver.atom("select"), encoding.of(memory), encoding.of(address)])
        };
        for (memory, name) in memories {
            let asked = addresses.iter().map(|address| reads(&self.solver, memory, *address)).collect();
            for (byte, at) in self::values(&mut self.solver, asked)?.into_iter().zip(&places) {
                if let (Some(byte), Some(at)) = (byte, at) {
                    model.set_byte(name, *at as u64, byte as u8);
                }
            }
        }
        Ok(model)
    }
}

/// The values of terms in the solver's model, in their order; `None` where one is not given as a number.
fn values(solver: &mut Context, terms: Vec<easy_smt::SExpr>) -> io::Result<Vec<Option<u128>>> {
    if terms.is_empty() {
        return Ok(Vec::new());
    }
    let asked = terms.len();
    let pairs = solver.get_value(terms)?;
    let mut values: Vec<Option<u128>> = pairs.iter().map(|&(_, value)| parse_literal(solver, value)).collect();
    // What a solver says is not to be relied on for its length.
    values.resize(asked, None);
    Ok(values)
}

fn launch(kind: Kind, timeout: Duration) -> io::Result<Context> {
    let mut builder = ContextBuilder::new();
    match kind {
        Kind::Z3 => {
            builder.solver("z3").solver_args(["-smt2", "-in", "-v:0", "-memory:3000"]);
        }
        Kind::Cvc5 => {
            let limit = format!("--tlimit-per={}", timeout.as_millis());
            builder.solver("cvc5").solver_args(["--quiet", "--lang=smt2", "--incremental", &limit]);
        }
    }
    builder.build()
}

/// What z3 does in a millisecond, as it counts itself, on a processor of its own. Its count, unlike a clock, stops at the same place however
/// busy the machine is, so that what is proved once is proved again.
const STEPS_A_MILLISECOND: u64 = 2000;

/// So many times the time wanted may pass on the clock: not all of z3's work is counted.
const LOADED: u64 = 10;

/// Forgets everything, options included.
fn reset(solver: &mut Context, kind: Kind, timeout: Duration) -> io::Result<()> {
    solver.raw_send(solver.list(vec![solver.atom("reset")]))?;
    solver.raw_recv()?;
    let yes = solver.true_();
    solver.set_option(":print-success", yes)?;
    solver.set_option(":produce-models", yes)?;
    if kind == Kind::Z3 {
        let milliseconds = timeout.as_millis() as u64;
        let steps = solver.numeral(milliseconds * STEPS_A_MILLISECOND);
        solver.set_option(":rlimit", steps)?;
        let limit = solver.numeral(milliseconds * LOADED);
        solver.set_option(":timeout", limit)?;
    }
    Ok(())
}

/// The claim that two states agree on everything live: bytes of registers, flags, all of memory with the frames that are
/// kept apart, and whether they trapped. Where both trapped the rest does not count.
pub fn equal_states(arena: &mut Arena, a: &State, b: &State, live: &LiveSet) -> Term {
    let mut claims = Vec::new();
    for number in 0..16 {
        let mut lowest = 0;
        while lowest < 8 {
            // Runs of live bytes are compared as one.
            let run = (live.bytes[number] >> lowest).trailing_ones();
            if run > 0 {
                let (hi, lo) = (8 * (lowest + run) - 1, 8 * lowest);
                let (x, y) = (arena.extract(a.gpr[number], hi, lo), arena.extract(b.gpr[number], hi, lo));
                claims.push(arena.eq(x, y));
            }
            lowest += run.max(1);
        }
    }
    for flag in Flag::ALL {
        if live.has_flag(flag) {
            claims.push(arena.eq(a.flags.get(flag), b.flags.get(flag)));
        }
    }
    claims.push(arena.eq(a.memory, b.memory));
    match (a.frame, b.frame) {
        (None, None) => {}
        (Some(mine), Some(theirs)) => {
            claims.push(arena.eq(mine.base, theirs.base));
            claims.push(arena.eq(mine.memory, theirs.memory));
        }
        // What one keeps apart and the other does not cannot be compared.
        _ => claims.push(arena.bool(false)),
    }
    claims.push(arena.eq(a.fs_base, b.fs_base));
    claims.push(arena.eq(a.gs_base, b.gs_base));
    let same = arena.all(&claims);
    let same_trap = arena.eq(a.trap, b.trap);
    let excused = arena.or(a.trap, same);
    arena.and(same_trap, excused)
}
