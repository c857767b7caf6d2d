//! Constants whose value a policy decides: the same detours, with marks where the decided numbers go.

use std::collections::BTreeSet;

use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic, OpKind};
use kerf_live::{Argument, Change, Decider, DetourInstruction, Execution, Location, Mark, Number, SafeSpan, Target};

use super::{Choice, Job, Running, Setting, assemble, check, derived, form_of, outside, target};
use crate::entry::{Entry, Iv, Place, SlotName, Span, from_hex};
use crate::error::ConstError;
use crate::form::Form;
use crate::liveness::GENERAL;

/// The module takes no more exits of a safe span.
const MOST_EXITS: usize = 64;

/// Which numbers of the code the module makes while the kernel runs, and what it has to know for that.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The forms of the numbers that are decided, in the order in which the module gets them; other numbers stay.
    forms: Vec<Form>,
    /// The parameters of the function that the policy reads, from 0.
    parameters: BTreeSet<usize>,
}

/// What the module is asked for a constant that the BPF program `program` decides.
///
/// `limits` narrow the certified domain. `parameters` are those of the function that the program reads.
///
/// # Errors
/// As [`super::live_entry`]; [`ConstError::NoArgument`] when a parameter is not there any more at a place of the constant.
pub fn decided_entry(
    entry: &Entry,
    program: std::os::fd::RawFd,
    limits: (Option<i128>, Option<i128>),
    parameters: &BTreeSet<usize>,
    running: &Running,
) -> Result<kerf_live::Entry, ConstError> {
    let setting = Setting::Value(entry.value);
    check(entry, setting)?;
    let decision = Decision { forms: derived(entry), parameters: parameters.clone() };
    decision.check_parameters(entry)?;
    let target = target(entry, running)?;
    let job = Job { entry, setting, choice: Choice::Detour, running, target: &target, decision: Some(&decision) };
    let mut live = assemble(&job)?;
    share(entry, &decision, &target, &mut live.locations)?;
    let forms = decision.numbers(entry)?;
    live.decider = Some(Decider { program: Some(program), stock: live.value, ranges: ranges(entry, limits)?, forms });
    live.spans = safe_spans(entry, &target);
    Ok(live)
}

/// The code that a transition waits for threads to leave.
pub(super) fn safe_spans(entry: &Entry, target: &Target) -> Vec<SafeSpan> {
    let span = |span: &crate::entry::SafeSpan| SafeSpan {
        target: target.clone(),
        entry: span.entry,
        ranges: span.ranges.clone(),
        // Where a thread leaves unnoticed, the stacks tell.
        exits: span.exits.iter().copied().take(MOST_EXITS).collect(),
    };
    entry.safe_spans.iter().map(span).collect()
}

/// What stands in the text of a constant while old and new value are both in use: detours at all its places, whose numbers follow
/// from the value that the thread has. None where a place has no room for one.
pub(super) fn gates(
    entry: &Entry,
    setting: Setting,
    running: &Running,
    target: &Target,
) -> Result<Option<(Vec<Location>, Decider)>, ConstError> {
    let (forms, stock) = match setting {
        Setting::Value(_) => (derived(entry), entry.value),
        Setting::Derived { index, .. } => {
            let form = form_of(entry, index)?;
            (vec![form], form.apply(entry.value).unwrap_or_default())
        }
    };
    let decision = Decision { forms, parameters: BTreeSet::new() };
    let deployed = Setting::Value(entry.value);
    let job = Job { entry, setting: deployed, choice: Choice::Detour, running, target, decision: Some(&decision) };
    let mut locations = match assemble(&job) {
        Ok(live) => live.locations,
        Err(ConstError::OutsideDomain { .. }) => return Ok(None),
        Err(other) => return Err(other),
    };
    // Windows in which nothing is decided need no gate.
    locations.retain(|l| matches!(&l.change, Change::Decided { marks, .. } if !marks.is_empty()));
    // A policy that goes or comes shares its decisions at gates too, as far as it can.
    let mut shared = locations.clone();
    if share(entry, &decision, target, &mut shared).is_ok() {
        locations = shared;
    }
    let forms = match setting {
        Setting::Value(_) => decision.numbers(entry)?,
        Setting::Derived { .. } => vec![Number::Affine { a: 1, b: 0 }],
    };
    let stock = i64::try_from(stock).map_err(|_| outside(entry, stock, "it has more than 64 bits".into()))?;
    Ok(Some((locations, Decider { program: None, stock, ranges: Vec::new(), forms })))
}

/// Where a location begins and ends.
fn window(location: &Location) -> std::ops::Range<u64> {
    location.image_offset..location.image_offset + location.expected.len() as u64
}

/// Says which places use one decision: all that one execution of a safe span passes, the same one in a loop too. The place where every
/// execution begins makes it; if none is there, one without a number of its own is added.
///
/// # Errors
/// [`ConstError::NoOnce`] if there is no room for one: then an old decision could not be told from a new one.
fn share(entry: &Entry, decision: &Decision, target: &Target, locations: &mut Vec<Location>) -> Result<(), ConstError> {
    let start = |n: &usize| entry.spans.get(*n).map(|s| s.function_offset + s.start);
    for safe in entry.safe_spans.iter().filter(|safe| safe.repeated) {
        let holds = |l: &Location| safe.critical.iter().filter_map(start).any(|at| window(l).contains(&at));
        let others = entry.safe_spans.iter().filter(|other| *other != safe).flat_map(|other| &other.critical);
        let others: Vec<u64> = others.filter_map(start).collect();
        let own: Vec<usize> = (0..locations.len()).filter(|n| holds(&locations[*n])).collect();
        let why = |why: String| ConstError::NoOnce { id: entry.label().into(), why };
        if own.iter().any(|n| others.iter().any(|at| window(&locations[*n]).contains(at))) {
            return Err(why(format!("two safe spans of {} share a detour", safe.function)));
        }
        if own.is_empty() {
            continue;
        }
        for location in locations.iter_mut().filter(|l| holds(l)) {
            let begins = window(location).contains(&safe.begins());
            let frame = frame(entry, safe, location);
            if let Change::Decided { execution, .. } = &mut location.change {
                *execution = Some(Execution { begins, frame });
            }
        }
        if !own.iter().any(|n| window(&locations[*n]).contains(&safe.begins())) {
            let begin = begin(safe, decision, target, locations).map_err(why)?;
            locations.push(begin);
        }
    }
    Ok(())
}

/// A detour of a safe span that only notices where an execution begins.
fn begin(
    safe: &crate::entry::SafeSpan,
    decision: &Decision,
    target: &Target,
    locations: &[Location],
) -> Result<Location, String> {
    let at = safe.begins().wrapping_sub(safe.function_offset);
    let place = format!("{}+{at:#x}", safe.function);
    let begin =
        safe.begin.as_ref().ok_or_else(|| format!("nothing is known of the code at {place}: build it again"))?;
    let bytes = from_hex(&begin.window.bytes).unwrap_or_default();
    if bytes.is_empty() {
        return Err(format!("no detour is possible at {place}, where all begin: {}", begin.window.refused));
    }
    let own = safe.begins()..safe.begins() + bytes.len() as u64;
    if locations.iter().any(|l| window(l).start < own.end && own.start < window(l).end) {
        return Err(format!("the detour at {place}, where all begin, would overlap another one"));
    }
    if let Some(n) = decision.parameters.iter().find(|n| gone(begin.parameters.get(**n))) {
        return Err(format!("the function's argument {} is not held anywhere at {place}, where all begin", n + 1));
    }
    let instructions = Decoder::with_ip(64, &bytes, at, DecoderOptions::NONE).into_iter().map(|insn| {
        let from = (insn.ip() - at) as usize;
        let stock = bytes.get(from..from + insn.len()).ok_or("its instructions are cut off")?;
        Ok(DetourInstruction { bytes: super::encode::moved(&insn, stock, &[], &[])? })
    });
    let instructions = instructions.collect::<Result<Vec<_>, String>>().map_err(|why| format!("{place}: {why}"))?;
    let execution = Some(Execution { begins: true, frame: begin.frame });
    let arguments = decision.places(&begin.parameters);
    Ok(Location {
        target: target.clone(),
        image_offset: safe.begins(),
        expected: bytes,
        change: Change::Decided { instructions, marks: Vec::new(), arguments, execution },
    })
}

fn gone(parameter: Option<&crate::entry::Parameter>) -> bool {
    parameter.is_none_or(|p| p.place == Place::Gone)
}

/// How far above the stack pointer at the start of a window the frame of its safe span ends.
fn frame(entry: &Entry, safe: &crate::entry::SafeSpan, location: &Location) -> Option<u32> {
    let starts = |n: &usize| entry.spans.get(*n).map(|s| s.function_offset + s.window.start);
    let at = safe.critical.iter().position(|n| starts(n) == Some(location.image_offset))?;
    safe.frames.get(at).copied().flatten()
}

fn too_wide(entry: &Entry, form: &Form) -> ConstError {
    outside(entry, entry.value, format!("{form} has parameters of more than 64 bits, which no policy can decide"))
}

/// The certified values within the limits, those in reach of a decision: 63 bits.
fn ranges(entry: &Entry, (min, max): (Option<i128>, Option<i128>)) -> Result<Vec<(i64, i64)>, ConstError> {
    const REACH: i128 = i64::MAX as i128 >> 1;
    let low = min.unwrap_or(-REACH).max(-REACH);
    let high = max.unwrap_or(REACH).min(REACH);
    let mut parts: Vec<(i64, i64)> = Vec::new();
    let mut domain = entry.domain.clone();
    domain.sort_by_key(|interval| interval.min);
    for interval in domain {
        let (from, to) = (interval.min.max(low), interval.max.min(high));
        if from > to {
            continue;
        }
        match parts.last_mut().filter(|(_, end)| from <= i128::from(*end) + 1) {
            Some((_, end)) => *end = (*end).max(to as i64),
            None => parts.push((from as i64, to as i64)),
        }
    }
    if parts.is_empty() {
        let domain = super::domain_text(entry);
        let why = format!("no certified value lies from {low} to {high}; certified are {domain}");
        return Err(outside(entry, entry.value, why));
    }
    Ok(parts)
}

fn number(form: &Form) -> Option<Number> {
    let narrow = |n: i128| i64::try_from(n).ok();
    Some(match *form {
        Form::Affine { a, b } => Number::Affine { a: narrow(a)?, b: narrow(b)? },
        Form::Quotient { factor, a, b, c } => {
            Number::Quotient { a: narrow(a)?, b: narrow(b)?, c: narrow(c)?, factor: narrow(factor)? }
        }
        Form::Ratio { m, a, b } => Number::Ratio { factor: narrow(m)?, a: narrow(a)?, b: narrow(b)? },
        Form::Reciprocal { a, b } => Number::Reciprocal { a: narrow(a)?, b: narrow(b)? },
        Form::Power { a, b } => Number::Power { a: narrow(a)?, b: narrow(b)? },
        Form::Logarithm { b } => Number::Logarithm { b: narrow(b)? },
        Form::ReciprocalLogarithm { a, b } => Number::ReciprocalLogarithm { a: narrow(a)?, b: narrow(b)? },
    })
}

impl Decision {
    /// The forms as the module reads them.
    fn numbers(&self, entry: &Entry) -> Result<Vec<Number>, ConstError> {
        self.forms.iter().map(|form| number(form).ok_or_else(|| too_wide(entry, form))).collect()
    }

    /// Whether a number is one of those that are decided.
    pub(super) fn decides(&self, iv: &Iv) -> bool {
        self.forms.contains(&iv.form)
    }

    /// The mark of a number, given the instructions that stand for the deployed one.
    pub(super) fn mark(&self, iv: &Iv, instruction: usize, code: &[u8]) -> Result<Mark, String> {
        let form = self.forms.iter().position(|form| *form == iv.form).ok_or("its form is not among the constant's")?;
        let part = part(iv.slot, code).ok_or("no instruction in its place holds the number")?;
        Ok(Mark { instruction: instruction as u8, part, form: form as u8, bits: iv.bits as u8 })
    }

    /// Where the first parameters are at the window of a span.
    pub(super) fn arguments(&self, span: &Span, window: u64) -> Result<Vec<Argument>, String> {
        debug_assert!(window <= span.start);
        Ok(self.places(&span.parameters))
    }

    /// Where the parameters that the policy reads are, of those that a place has.
    fn places(&self, parameters: &[crate::entry::Parameter]) -> Vec<Argument> {
        let Some(last) = self.parameters.last() else { return Vec::new() };
        let place = |n: usize| parameters.get(n).map(|p| &p.place);
        (0..=*last)
            .map(|n| match place(n) {
                Some(Place::Register(name)) => register(name).map_or(Argument::Gone, Argument::Register),
                Some(Place::Stack(offset)) => Argument::Stack(*offset),
                Some(Place::Gone) | None => Argument::Gone,
            })
            .collect()
    }

    /// Refuses a policy that reads what is not there.
    fn check_parameters(&self, entry: &Entry) -> Result<(), ConstError> {
        for span in &entry.spans {
            for index in &self.parameters {
                let parameter = span.parameters.get(*index);
                if parameter.is_some_and(|p| p.place != Place::Gone) {
                    continue;
                }
                let what = match parameter {
                    Some(p) => format!("`{} {}`", p.type_name, p.name),
                    None => format!("the function's argument {}", index + 1),
                };
                let there = span.parameters.iter().enumerate().filter(|(_, p)| p.place != Place::Gone);
                let there: Vec<String> = there.map(|(n, p)| format!("PT_REGS_PARM{} is `{}`", n + 1, p.name)).collect();
                let there = if there.is_empty() { "no argument is".to_string() } else { there.join(", ") };
                return Err(ConstError::NoArgument {
                    id: entry.label().into(),
                    why: format!("{what} is not held anywhere at {}+{:#x}; there, {there}", span.function, span.start),
                });
            }
        }
        Ok(())
    }
}

fn register(name: &str) -> Option<u8> {
    GENERAL.iter().find(|r| format!("{r:?}").eq_ignore_ascii_case(name)).map(|r| r.number() as u8)
}

/// Which of the instructions in the place of one holds a number.
fn part(slot: SlotName, code: &[u8]) -> Option<u8> {
    let instructions: Vec<_> = Decoder::new(64, code, DecoderOptions::NONE).into_iter().collect();
    if instructions.len() == 1 {
        return Some(0);
    }
    let holds = |n: &iced_x86::Instruction| {
        let constant = (0..n.op_count()).any(|op| n.op_kind(op) != OpKind::Register && n.op_kind(op) != OpKind::Memory);
        match slot {
            SlotName::Factor | SlotName::Second => constant && matches!(n.mnemonic(), Mnemonic::Imul | Mnemonic::Mov),
            _ => constant && n.mnemonic() == Mnemonic::Add && n.code() != Code::INVALID,
        }
    };
    instructions.iter().position(holds).map(|n| n as u8)
}
