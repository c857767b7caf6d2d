//! The proofs of a span: that its update gives what the template gives, for all machine states and all values of the
//! domain, and that this processor agrees on random states.

use iced_x86::{Instruction, Mnemonic, OpKind};
use kerf_semantics::{Arena, Overrides, Prover, State, Term, Verdict, native, step};

use crate::align::{self, Slot};
use crate::analyse::{Number, Template};
use crate::entry::{Interval, Span, UpdateKind};
use crate::form::{self, Form};

/// Random states on which each instruction of a span runs natively.
const ROUNDS: u32 = 32;

/// Fills in what can be proved of a span: `smt` and `native`.
pub fn prove_span(span: &mut Span, template: &Template, stock: i128, domain: Interval) {
    let numbers: Vec<Number> = template
        .numbers
        .keys()
        .copied()
        .filter(|n| (span.start..span.end).contains(&template.function.code[n.0].offset()))
        .collect();
    span.proof.smt = !span.updates.is_empty()
        && span.updates.len() == numbers.iter().map(|n| n.0).collect::<std::collections::BTreeSet<_>>().len()
        && numbers.iter().all(|n| {
            let kind = span.updates.iter().find(|u| u.offset == template.function.code[n.0].offset()).map(|u| u.kind);
            kind.is_some_and(|kind| update_equals_template(template, *n, kind, stock, domain))
        });
    span.proof.native = native_rounds(template, &numbers, domain);
}

/// The solver's answer to: the deployed instruction followed by the update leaves what the instruction with the number
/// for V leaves, in every state and for every V of the domain.
fn update_equals_template(
    template: &Template,
    number: Number,
    kind: UpdateKind,
    stock: i128,
    domain: Interval,
) -> bool {
    let Some(insn) = template.function.code.get(number.0).map(|i| i.insn) else { return false };
    let mut arena = Arena::new();
    let v = arena.var("V", 64);
    let Some(iv) = term(&mut arena, template.numbers[&number], v) else { return false };
    let within = bounds(&mut arena, v, domain);
    let claim = claim(&mut arena, &insn, number.1, iv, kind);
    // At the deployed value the template has to be the deployed code.
    let bits = template.bits(number);
    let deployed = align::numbers(&template.function.code[number.0]).into_iter().find(|(s, _)| *s == number.1);
    let reproduces = deployed.map(|(_, n)| form::wrap(n.into(), bits)) == template.number(number, stock);
    let (Some(claim), true) = (claim, reproduces) else { return false };
    let verdict = Prover::start().and_then(|mut prover| prover.valid(&arena, &within, claim));
    matches!(verdict, Ok(Verdict::Proved))
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
        Form::Quotient { a, b, c } => {
            let (a, b, c) = (constant(arena, a), constant(arena, b), constant(arena, c));
            let sum = arena.add(v, b);
            let quotient = arena.udiv(sum, a);
            arena.add(quotient, c)
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
        // Logarithms enter as a number of their own: the claim then holds for whatever they are.
        Form::Logarithm { .. } | Form::ReciprocalLogarithm { .. } => arena.var("IV", 64),
    };
    Some(whole)
}

/// Executes the instruction with the number as a term.
fn run(arena: &mut Arena, insn: &Instruction, slot: Slot, iv: Option<Term>) -> Option<State> {
    let mut state = State::symbolic(arena);
    state.undefined = kerf_semantics::Undefined::Named("span".into());
    let mut overrides = Overrides::new();
    if let Some(iv) = iv {
        let operand = match slot {
            Slot::Immediate => align::immediate_operand(insn)?,
            Slot::Displacement => (0..insn.op_count()).find(|n| insn.op_kind(*n) == OpKind::Memory)?,
        };
        overrides.insert(insn.ip(), operand, iv);
    }
    step(arena, &mut state, insn, &overrides).ok()?;
    Some(state)
}

/// `deployed; update ≡ template`, over all registers, the defined flags and memory.
fn claim(arena: &mut Arena, insn: &Instruction, slot: Slot, iv: Term, kind: UpdateKind) -> Option<Term> {
    let template = run(arena, insn, slot, Some(iv))?;
    let mut updated = run(arena, insn, slot, None)?;
    let before = State::symbolic(arena);
    match kind {
        // The update writes what the instruction would have written; nothing else of the state is touched.
        UpdateKind::Overwrite => {
            let register = insn.op0_register();
            let width = register.size() as u32 * 8;
            let value = match insn.mnemonic() {
                Mnemonic::Mov => arena.extract(iv, width - 1, 0),
                _ => template.read(arena, register)?,
            };
            updated.write(arena, register, value)?;
        }
        // `x + c` is taken back to `x`, and the number for V applied to it.
        UpdateKind::Reverse if matches!(insn.mnemonic(), Mnemonic::Add | Mnemonic::Sub | Mnemonic::Xor) => {
            let register = insn.op0_register();
            let width = register.size() as u32 * 8;
            let old = align::immediate_operand(insn).and_then(|n| insn.try_immediate(n).ok())?;
            let old = arena.constant(u128::from(old), 64);
            let (old, new) = (arena.extract(old, width - 1, 0), arena.extract(iv, width - 1, 0));
            let result = updated.read(arena, register)?;
            let value = match insn.mnemonic() {
                Mnemonic::Add => {
                    let taken_back = arena.sub(result, old);
                    arena.add(taken_back, new)
                }
                Mnemonic::Sub => {
                    let taken_back = arena.add(result, old);
                    arena.sub(taken_back, new)
                }
                _ => {
                    let taken_back = arena.xor(result, old);
                    arena.xor(taken_back, new)
                }
            };
            updated.write(arena, register, value)?;
            updated.flags = template.flags;
        }
        // The input is still there (flags) or was kept before the instruction ran (capture): the operation runs on it.
        UpdateKind::Flags => {
            let again = run(arena, insn, slot, Some(iv))?;
            updated.flags = again.flags;
        }
        UpdateKind::Reverse | UpdateKind::Capture => {
            let mut again = before.clone();
            again.undefined = kerf_semantics::Undefined::Named("span".into());
            let mut overrides = Overrides::new();
            overrides.insert(insn.ip(), align::immediate_operand(insn)?, iv);
            step(arena, &mut again, insn, &overrides).ok()?;
            updated = again;
        }
        UpdateKind::Store => {
            // The same place written once more: the deployed value must not shine through anywhere.
            let mut again = State { accesses: Vec::new(), ..before.clone() };
            again.memory = updated.memory;
            let mut overrides = Overrides::new();
            overrides.insert(insn.ip(), align::immediate_operand(insn)?, iv);
            if insn.mnemonic() != Mnemonic::Mov {
                again.memory = before.memory;
            }
            again.undefined = kerf_semantics::Undefined::Named("span".into());
            step(arena, &mut again, insn, &overrides).ok()?;
            updated = again;
        }
    }
    let mut equal = vec![arena.eq(updated.memory, template.memory)];
    for n in 0..16 {
        equal.push(arena.eq(updated.gpr[n], template.gpr[n]));
    }
    for flag in kerf_semantics::Flag::ALL {
        equal.push(arena.eq(updated.flags.get(flag), template.flags.get(flag)));
    }
    Some(arena.all(&equal))
}

/// Runs the span's instructions, as deployed and with the numbers of the domain's ends, on this processor; the number of
/// states on which it agreed with the semantics, 0 if an instruction cannot run here or disagrees.
fn native_rounds(template: &Template, numbers: &[Number], domain: Interval) -> u32 {
    let mut total = 0;
    for number in numbers {
        let Some(insn) = template.function.code.get(number.0) else { return 0 };
        let mut encodings = vec![insn.bytes.clone()];
        for value in [domain.min, domain.max] {
            encodings.extend(template.number(*number, value).and_then(|iv| with_number(insn, number.1, iv)));
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

/// The instruction with another number in the field that it has, if it fits there.
fn with_number(insn: &crate::code::Insn, slot: Slot, iv: i64) -> Option<Vec<u8>> {
    let mut decoder = iced_x86::Decoder::new(64, &insn.bytes, iced_x86::DecoderOptions::NONE);
    let decoded = decoder.decode();
    let offsets = decoder.get_constant_offsets(&decoded);
    let (at, size) = match slot {
        Slot::Immediate => (offsets.immediate_offset(), offsets.immediate_size()),
        Slot::Displacement => (offsets.displacement_offset(), offsets.displacement_size()),
    };
    let fits = size > 0 && form::wrap(iv.into(), size as u32 * 8) == iv;
    let mut bytes = insn.bytes.clone();
    fits.then(|| bytes[at..at + size].copy_from_slice(&iv.to_le_bytes()[..size]))?;
    Some(bytes)
}
