//! The proofs of a span: that its update gives what the template gives, for all machine states and all values of the
//! domain, and that this processor agrees on random states.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, Instruction, Register};
use kerf_semantics::{Arena, Flag, Overrides, Prover, State, Term, Verdict, native, step};

use crate::align::{self, Slot};
use crate::analyse::{Number, Template};
use crate::apply::encode;
use crate::chain;
use crate::entry::{Interval, Span};
use crate::form::{self, Form};
use crate::liveness::Liveness;
use crate::operation::{self, Operation};
use crate::span::Flow;
use crate::update::{self, Update};

/// Random states on which each instruction of a span runs natively.
const ROUNDS: u32 = 32;

/// The proofs of one entry's spans. The solver is started once for all of them.
pub struct Proofs {
    prover: Option<Prover>,
    stock: i128,
    domain: Interval,
}

/// A number for V that an instruction of a span holds.
struct Claim<'a> {
    template: &'a Template,
    live: Option<&'a Liveness>,
    insn: Instruction,
    /// The numbers of this instruction.
    numbers: &'a [Number],
    /// Whether it multiplies by V together with others only.
    chained: bool,
}

impl Proofs {
    /// For a deployed value and the values that are to be proved.
    pub fn new(stock: i128, domain: Interval) -> Proofs {
        Proofs { prover: None, stock, domain }
    }

    /// Fills in what can be proved of a span: `smt` and `native`. Without liveness everything counts as live.
    pub fn prove(&mut self, span: &mut Span, template: &Template, live: Option<&Liveness>) {
        let mut by_instruction: BTreeMap<usize, Vec<Number>> = BTreeMap::new();
        for number in template.numbers.keys() {
            let inside =
                template.function.code.get(number.0).is_some_and(|i| (span.start..span.end).contains(&i.offset()));
            if inside {
                by_instruction.entry(number.0).or_default().push(*number);
            }
        }
        let chained: BTreeSet<usize> =
            by_instruction.keys().copied().filter(|index| template.chain_end(*index).is_some()).collect();
        let updated: BTreeSet<u64> = span.updates.iter().map(|u| u.offset).collect();
        span.proof.smt = !by_instruction.is_empty() && span.updates.len() == by_instruction.len();
        for (index, numbers) in &by_instruction {
            let insn = template.function.code[*index].insn;
            let claim = Claim { template, live, insn, numbers, chained: chained.contains(index) };
            span.proof.smt &= updated.contains(&insn.ip()) && self.holds(&claim, span);
        }
        if let (Some(first), Some(last)) = (chained.first(), chained.last()) {
            span.proof.smt &= self.chain_holds(template, live, *first..=*last) == Some(true);
        }
        let all: Vec<Number> = by_instruction.into_values().flatten().collect();
        span.proof.native = native_rounds(template, &all, self.domain, span);
    }

    fn holds(&mut self, claim: &Claim, span: &Span) -> bool {
        // At the deployed value the template has to be the deployed code.
        let reproduces = claim.numbers.iter().filter(|n| !claim.chained || !n.1.is_factor()).all(|n| {
            let deployed = align::number(&claim.template.function.code[n.0], n.1);
            let bits = claim.template.bits(*n);
            deployed.map(|d| form::wrap(d.into(), bits)) == claim.template.number(*n, self.stock)
        });
        let proved = match claim.numbers {
            [number] if !number.1.is_factor() => self.update_equals_template(claim, *number, span),
            numbers if numbers.iter().any(|n| n.1.is_factor()) => self.operation_holds(claim, span),
            _ => None,
        };
        reproduces && proved == Some(true)
    }

    fn valid(&mut self, arena: &Arena, given: &[Term], claim: Term) -> Option<bool> {
        if arena.as_constant(claim) == Some(1) {
            return Some(true);
        }
        if self.prover.is_none() {
            self.prover = Prover::start().ok();
        }
        Some(matches!(self.prover.as_mut()?.valid(arena, given, claim), Ok(Verdict::Proved)))
    }

    /// The deployed instruction followed by the update leaves what the instruction with the number for V leaves, in every
    /// state and for every V of the domain.
    fn update_equals_template(&mut self, claim: &Claim, number: Number, span: &Span) -> Option<bool> {
        let mut arena = Arena::new();
        let v = arena.var("V", 64);
        let iv = term(&mut arena, claim.template.numbers[&number], v)?;
        let within = bounds(&mut arena, v, self.domain);
        let before = start(&mut arena);
        let operand = update::operand(&claim.insn, number.1)?;
        let template = run(&mut arena, &before, &claim.insn, Some((operand, iv)))?;
        let mut updated = run(&mut arena, &before, &claim.insn, None)?;
        let deployed = align::number(&claim.template.function.code[number.0], number.1)?;
        let old = arena.constant(deployed as u64 as u128, 64);
        let kind = span.updates.iter().find(|u| u.offset == claim.insn.ip())?.kind;
        let update = Update { insn: &claim.insn, slot: number.1, old, new: iv, kind };
        let defined = update.apply(&mut arena, &before, &mut updated)?;
        // Flags that the update does not define are as the deployed number left them: nobody may look at them, unless
        // the instruction leaves the flags alone.
        let untouched = claim.insn.rflags_modified() == 0;
        let lost = |f: &Flag| !untouched && !defined.contains(f) && claim.needs(*f);
        if Flag::ALL.iter().any(lost) {
            return Some(false);
        }
        let flags: Vec<Flag> = Flag::ALL.into_iter().filter(|f| claim.needs(*f)).collect();
        let equal = equal(&mut arena, &updated, &template, &flags);
        self.valid(&arena, &within, equal)
    }

    /// The deployed instruction is the multiplication or division that the template takes it for, and what a detour runs
    /// instead is the same operation with the number for V. Nobody looks at the flags behind it.
    fn operation_holds(&mut self, claim: &Claim, span: &Span) -> Option<bool> {
        let slot = claim.numbers.iter().map(|n| n.1).find(|slot| slot.is_factor())?;
        let deployed = operation::placed(&claim.insn, slot)?;
        if Flag::ALL.into_iter().any(|f| claim.needs(f)) {
            return Some(false);
        }
        let is_operation = claim.chained || self.is_operation(&claim.insn, &deployed)?;
        let scratch = span.updates.iter().find(|u| u.offset == claim.insn.ip())?.scratch_registers();
        let values = [self.domain.min, self.stock, self.stock + 1, self.stock - 1, self.domain.max];
        let mut values: Vec<i128> =
            values.into_iter().filter(|v| (self.domain.min..=self.domain.max).contains(v)).collect();
        // Halves in between, to see other lengths of encodings.
        values.extend((1..6).map(|n| self.domain.max >> (3 * n)).filter(|v| *v > self.domain.min));
        let placed = values.into_iter().all(|v| self.placed(claim, &deployed, v, &scratch));
        Some(is_operation && placed)
    }

    /// Whether the deployed instruction is the operation.
    fn is_operation(&mut self, insn: &Instruction, deployed: &Operation) -> Option<bool> {
        let mut arena = Arena::new();
        let before = start(&mut arena);
        let ran = run(&mut arena, &before, insn, None)?;
        let [factor, addend] = [deployed.factor, deployed.addend].map(|n| arena.constant(n as u64 as u128, 64));
        let mut meant = before.clone();
        deployed.execute(&mut arena, &mut meant, factor, addend)?;
        let equal = equal(&mut arena, &ran, &meant, &[]);
        self.valid(&arena, &[], equal)
    }

    /// Whether chains with their numbers for the deployed value do what the deployed instructions do, from the first of them to the last.
    /// What holds nothing behind them may differ.
    fn chain_holds(
        &mut self,
        template: &Template,
        live: Option<&Liveness>,
        links: std::ops::RangeInclusive<usize>,
    ) -> Option<bool> {
        let mut arena = Arena::new();
        let last = template.function.code.get(*links.end())?.offset();
        let number = |number: Number| template.number(number, self.stock);
        let [deployed, mut meant] =
            chain::both(&mut arena, &template.function, &Flow::new(&template.function), links, &number)?;
        for register in live.map_or(Vec::new(), |l| l.free(last)) {
            meant.gpr[register.number()] = deployed.gpr[register.number()];
        }
        let equal = equal(&mut arena, &deployed, &meant, &[]);
        self.valid(&arena, &[], equal)
    }

    /// Whether the instructions of a detour do the operation for a value, if there can be a detour for it.
    fn placed(&mut self, claim: &Claim, deployed: &Operation, value: i128, scratch: &[Register]) -> bool {
        let Some(wanted) = claim.wanted(deployed, value) else { return true };
        let Ok(sequence) = encode::operation(&claim.insn, &wanted, scratch) else { return true };
        let mut arena = Arena::new();
        let before = start(&mut arena);
        let mut ran = before.clone();
        for insn in Decoder::with_ip(64, &sequence, 0x1000, DecoderOptions::NONE) {
            if step(&mut arena, &mut ran, &insn, &Overrides::new()).is_err() {
                return false;
            }
        }
        let [factor, addend] = [wanted.factor, wanted.addend].map(|n| arena.constant(n as u64 as u128, 64));
        let mut meant = before;
        if wanted.execute(&mut arena, &mut meant, factor, addend).is_none() {
            return false;
        }
        // What is free may be overwritten.
        let free = claim.live.map_or(Vec::new(), |l| l.free(claim.insn.ip()));
        for register in scratch.iter().filter(|r| free.contains(r) && **r != wanted.target.full_register()) {
            meant.gpr[register.number()] = ran.gpr[register.number()];
        }
        let same = equal(&mut arena, &ran, &meant, &[]);
        let quiet = arena.not(ran.trap);
        let claim = arena.all(&[same, quiet]);
        self.valid(&arena, &[], claim) == Some(true)
    }
}

impl Claim<'_> {
    fn needs(&self, flag: Flag) -> bool {
        self.live.is_none_or(|l| l.needs_flag(self.insn.ip(), flag))
    }

    /// The operation with the numbers for a value.
    fn wanted(&self, deployed: &Operation, value: i128) -> Option<Operation> {
        let mut wanted = *deployed;
        for number in self.numbers {
            let iv = self.template.number(*number, value)?;
            match number.1 {
                slot if slot.is_factor() => wanted.factor = iv,
                _ => wanted.addend = iv,
            }
        }
        Some(wanted)
    }
}

fn start(arena: &mut Arena) -> State {
    let mut state = State::symbolic(arena);
    state.undefined = kerf_semantics::Undefined::Named("span".into());
    state
}

fn bounds(arena: &mut Arena, v: Term, domain: Interval) -> Vec<Term> {
    let (low, high) = (arena.constant(domain.min as u64 as u128, 64), arena.constant(domain.max as u64 as u128, 64));
    let (above, below) = (arena.sle(low, v), arena.sle(v, high));
    vec![above, below]
}

/// A form as a 64-bit term of V; `None` for forms that have none.
fn term(arena: &mut Arena, form: Form, v: Term) -> Option<Term> {
    let constant = |arena: &mut Arena, c: i128| arena.constant(c as u64 as u128, 64);
    let whole = match form {
        Form::Affine { a, b } => {
            let (a, b) = (constant(arena, a), constant(arena, b));
            let product = arena.mul(v, a);
            arena.add(product, b)
        }
        Form::Quotient { factor, a, b, c } => {
            let [factor, a, b, c] = [factor, a, b, c].map(|n| constant(arena, n));
            let sum = arena.add(v, b);
            let quotient = arena.udiv(sum, a);
            let shifted = arena.add(quotient, c);
            arena.mul(shifted, factor)
        }
        Form::Reciprocal { a, b } => {
            let (a, b) = (constant(arena, a), constant(arena, b));
            let quotient = arena.udiv(a, v);
            arena.add(quotient, b)
        }
        Form::Power { a, b } => {
            let (a, b) = (constant(arena, a), constant(arena, b));
            let shifted = arena.shl(a, v);
            arena.add(shifted, b)
        }
        // Logarithms and ratios enter as a number of their own: the claim then holds for whatever they are.
        Form::Ratio { .. } | Form::Logarithm { .. } | Form::ReciprocalLogarithm { .. } => arena.var("IV", 64),
    };
    Some(whole)
}

/// Executes an instruction, with a term in the place of one of its numbers.
fn run(arena: &mut Arena, before: &State, insn: &Instruction, number: Option<(u32, Term)>) -> Option<State> {
    let mut state = before.clone();
    let mut overrides = Overrides::new();
    if let Some((operand, term)) = number {
        overrides.insert(insn.ip(), operand, term);
    }
    step(arena, &mut state, insn, &overrides).ok()?;
    Some(state)
}

/// Whether two states agree in all registers, in memory and in some flags.
fn equal(arena: &mut Arena, a: &State, b: &State, flags: &[Flag]) -> Term {
    let mut equal = vec![arena.eq(a.memory, b.memory)];
    for n in 0..16 {
        equal.push(arena.eq(a.gpr[n], b.gpr[n]));
    }
    for flag in flags {
        equal.push(arena.eq(a.flags.get(*flag), b.flags.get(*flag)));
    }
    arena.all(&equal)
}

/// Runs the span's instructions, as deployed and with the numbers of the domain's ends, on this processor; the number of
/// states on which it agreed with the semantics, 0 if an instruction cannot run here or disagrees.
fn native_rounds(template: &Template, numbers: &[Number], domain: Interval, span: &Span) -> u32 {
    let mut total = 0;
    for number in numbers {
        let Some(insn) = template.function.code.get(number.0) else { return 0 };
        let mut encodings = vec![insn.bytes.clone()];
        for value in [domain.min, domain.max] {
            let iv = template.number(*number, value);
            match number.1 {
                slot if slot.is_factor() => {
                    encodings.extend(iv.map_or(Vec::new(), |iv| parts(&insn.insn, slot, iv, span)))
                }
                slot => encodings.extend(iv.and_then(|iv| with_number(insn, slot, iv))),
            }
        }
        for bytes in encodings {
            match native::check(&bytes, number.0 as u64, ROUNDS as usize) {
                Ok(()) => total += ROUNDS,
                Err(error) => {
                    tracing::debug!(%error, "not checked natively");
                    return 0;
                }
            }
        }
    }
    total
}

/// The instructions that do an operation by a factor, each by itself. A division alone could trap on a random state.
fn parts(insn: &Instruction, slot: Slot, factor: i64, span: &Span) -> Vec<Vec<u8>> {
    let Some(operation) = operation::placed(insn, slot) else { return Vec::new() };
    let scratch = span.updates.iter().find(|u| u.offset == insn.ip()).map(|u| u.scratch_registers());
    let Ok(sequence) = encode::operation(insn, &Operation { factor, ..operation }, &scratch.unwrap_or_default()) else {
        return Vec::new();
    };
    let decoder = Decoder::new(64, &sequence, DecoderOptions::NONE);
    let whole = decoder.into_iter().filter(|i| i.mnemonic() != iced_x86::Mnemonic::Div);
    whole.filter_map(|i| Some(sequence.get(i.ip() as usize..i.next_ip() as usize)?.to_vec())).collect()
}

/// The instruction with another number in the field that it has, if it fits there.
fn with_number(insn: &crate::code::Insn, slot: Slot, iv: i64) -> Option<Vec<u8>> {
    let mut decoder = Decoder::new(64, &insn.bytes, DecoderOptions::NONE);
    let decoded = decoder.decode();
    let offsets = decoder.get_constant_offsets(&decoded);
    let (at, size) = match slot {
        Slot::Immediate => (offsets.immediate_offset(), offsets.immediate_size()),
        Slot::Displacement => (offsets.displacement_offset(), offsets.displacement_size()),
        Slot::Factor | Slot::Second => return None,
    };
    let fits = size > 0 && form::wrap(iv.into(), size as u32 * 8) == iv;
    let mut bytes = insn.bytes.clone();
    fits.then(|| bytes[at..at + size].copy_from_slice(&iv.to_le_bytes()[..size]))?;
    Some(bytes)
}
