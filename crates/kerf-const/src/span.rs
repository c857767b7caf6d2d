//! Critical spans: the instructions of a function that a constant reaches, and the window around them for a detour.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, OpAccess, Register};

use crate::align::{self, Slot};
use crate::analyse::{Number, Template};
use crate::code::{Function, is_relative};
use crate::entry::{Iv, Proof, Span, Update, Window, to_hex};
use crate::form::Form;
use crate::liveness::Liveness;
use crate::movable::movable;
use crate::operation::{self, Kind, Operation};
use crate::update;

/// Bytes of the jump that a detour begins with.
pub const JUMP: usize = 5;

/// A span covers no more instructions than this between two numbers of one constant.
const MOST_GAP: usize = 4;

/// Builds the spans of a template. `stock` is the deployed value, `deployed` are the bytes of the function in the image, `function_offset`
/// its place.
pub fn spans(
    template: &Template,
    stock: i128,
    function_offset: u64,
    deployed: &[u8],
    live: Option<&Liveness>,
) -> Vec<Span> {
    let code = &template.function.code;
    let flow = Flow::new(&template.function);
    let mut groups: Vec<Vec<Number>> = Vec::new();
    for number in template.numbers.keys() {
        match groups.last_mut() {
            Some(group)
                if group.iter().filter_map(|n| template.chain_end(n.0)).any(|end| number.0 <= end)
                    || group.last().is_some_and(|last| joined(&template.function, &flow, last.0, number.0)) =>
            {
                group.push(*number)
            }
            _ => groups.push(vec![*number]),
        }
    }
    groups
        .into_iter()
        .filter_map(|group| {
            let (first, last) = (code.get(group.first()?.0)?, code.get(group.last()?.0)?);
            let (start, end) = (first.offset(), last.offset() + last.insn.len() as u64);
            let window = window(&template.function, &flow, group.first()?.0, group.last()?.0, deployed);
            let covered = start.min(window.start)..end.max(window.start + window.bytes.len() as u64 / 2);
            let covered = if window.bytes.is_empty() { start..end } else { covered };
            Some(Span {
                function: template.function.name.clone(),
                unit: String::new(),
                function_offset,
                start,
                end,
                bytes: to_hex(deployed.get(start as usize..end as usize)?),
                expression: expression(template, &group),
                iv: group.iter().map(|n| iv(template, *n, stock)).collect(),
                updates: updates(template, &group, live),
                proof: Proof::default(),
                absolute: absolute_fields(&template.function, covered),
                window,
                parameters: Vec::new(),
            })
        })
        .collect()
}

/// Offsets of fields that hold link addresses.
fn absolute_fields(function: &Function, range: std::ops::Range<u64>) -> Vec<u64> {
    let inside = function.code.iter().filter(|i| range.contains(&i.offset()));
    inside
        .flat_map(|i| i.references.iter().filter(|r| !is_relative(r.r_type)).map(|r| i.offset() + r.offset as u64))
        .collect()
}

/// Two numbers belong to one span if the second instruction takes up what the first computed, with nothing entering
/// between them.
fn joined(function: &Function, flow: &Flow, first: usize, second: usize) -> bool {
    if first == second {
        return true;
    }
    if second - first > MOST_GAP || (first + 1..=second).any(|n| flow.targets.contains(&n)) {
        return false;
    }
    if (first..second).any(|n| function.code[n].insn.flow_control() != FlowControl::Next) {
        return false;
    }
    let written = accessed(&function.code[first].insn, true);
    let read = accessed(&function.code[second].insn, false);
    written.intersection(&read).next().is_some()
}

/// The full registers that an instruction reads or writes.
pub fn accessed(insn: &Instruction, writes: bool) -> BTreeSet<Register> {
    let mut factory = InstructionInfoFactory::new();
    factory
        .info(insn)
        .used_registers()
        .iter()
        .filter(|r| match r.access() {
            OpAccess::Read | OpAccess::CondRead => !writes,
            OpAccess::Write | OpAccess::CondWrite => writes,
            OpAccess::ReadWrite | OpAccess::ReadCondWrite => true,
            _ => false,
        })
        .map(|r| r.register().full_register())
        .filter(|r| r.is_gpr())
        .collect()
}

fn iv(template: &Template, number: Number, stock: i128) -> Iv {
    let insn = &template.function.code[number.0];
    let chained = number.1.is_factor() && template.chain_end(number.0).is_some();
    let held = if chained { template.number(number, stock) } else { align::number(insn, number.1) };
    let stock = held.unwrap_or(0);
    Iv {
        form: template.numbers[&number],
        offset: insn.offset(),
        slot: number.1.into(),
        bits: template.bits(number),
        stock,
        field: if chained { None } else { field(&insn.insn, &insn.bytes, number.1) },
        chained,
    }
}

/// Offset and size of a number in an instruction's encoding.
fn field(insn: &Instruction, bytes: &[u8], slot: Slot) -> Option<(u8, u8)> {
    let mut decoder = iced_x86::Decoder::new(64, bytes, iced_x86::DecoderOptions::NONE);
    let decoded = decoder.decode();
    let offsets = decoder.get_constant_offsets(&decoded);
    debug_assert_eq!(decoded.code(), insn.code());
    match slot {
        // A power of two can be put into the shift's own field.
        Slot::Immediate | Slot::Factor | Slot::Second if offsets.has_immediate() => {
            Some((offsets.immediate_offset() as u8, offsets.immediate_size() as u8))
        }
        Slot::Displacement if offsets.has_displacement() => {
            Some((offsets.displacement_offset() as u8, offsets.displacement_size() as u8))
        }
        _ => None,
    }
}

fn updates(template: &Template, group: &[Number], live: Option<&Liveness>) -> Vec<Update> {
    // An operation is known by its factor: what else the instruction holds belongs to it.
    let numbers: BTreeMap<usize, Slot> = group.iter().map(|n| (n.0, n.1)).collect();
    numbers
        .into_iter()
        .map(|(n, slot)| {
            let insn = &template.function.code[n];
            let divides = operation::of(&insn.insn).filter(|o| slot == Slot::Factor && o.kind == Kind::Divide);
            let scratch = divides.map_or(Vec::new(), |o| scratch(&o, insn.offset(), live));
            Update { offset: insn.offset(), kind: update::kind(&insn.insn, slot), scratch }
        })
        .collect()
}

/// Registers for a division where they are free: the pair that the processor divides in, one for the divisor, and those
/// that keep what the pair holds.
fn scratch(operation: &Operation, offset: u64, live: Option<&Liveness>) -> Vec<String> {
    let target = operation.target.full_register();
    let free: Vec<Register> = live.map_or(Vec::new(), |l| l.free(offset));
    let pair = [Register::RAX, Register::RDX];
    let (mut wanted, in_use): (Vec<Register>, Vec<Register>) =
        pair.into_iter().filter(|r| *r != target).partition(|r| free.contains(r));
    let others = in_use.len() + usize::from(pair.contains(&target));
    wanted.extend(free.iter().filter(|r| !pair.contains(r) && **r != target).take(others));
    wanted.iter().map(|r| format!("{r:?}").to_lowercase()).collect()
}

/// The span in readable algebra: each instruction with the number written as a function of V.
fn expression(template: &Template, group: &[Number]) -> String {
    let mut by_instruction: BTreeMap<usize, Vec<Number>> = BTreeMap::new();
    // What multiplies by 1 for every value has nothing to tell.
    for number in group.iter().filter(|n| !n.1.is_factor() || template.numbers[n] != Form::ONE) {
        by_instruction.entry(number.0).or_default().push(*number);
    }
    let parts: Vec<String> = by_instruction
        .iter()
        .map(|(index, numbers)| {
            let insn = &template.function.code[*index].insn;
            let form = |slot: Slot| {
                numbers.iter().find(|n| n.1 == slot).map(|n| {
                    let text = template.numbers[n].to_string();
                    if text.contains(' ') { format!("({text})") } else { text }
                })
            };
            let (immediate, displacement) = (form(Slot::Immediate), form(Slot::Displacement));
            let factor = [Slot::Factor, Slot::Second].into_iter().find_map(|slot| Some((slot, form(slot)?)));
            match factor {
                Some((slot, factor)) => crate::algebra::operation(insn, slot, &factor, displacement.as_deref()),
                None => crate::algebra::assignment(insn, immediate.as_deref(), displacement.as_deref()),
            }
        })
        .collect();
    parts.join("; ")
}

/// Where control can come from other than the instruction before.
pub struct Flow {
    /// Indexes of instructions that a branch of the function goes to.
    pub targets: BTreeSet<usize>,
}

impl Flow {
    /// Collects the branch targets of a function.
    pub fn new(function: &Function) -> Flow {
        let targets = function
            .code
            .iter()
            .filter_map(|i| i.branch_target())
            .filter_map(|t| function.code.binary_search_by_key(&t, |i| i.offset()).ok())
            .collect();
        Flow { targets }
    }
}

/// The smallest run of whole instructions that covers the span and holds a jump: instructions before or after it are
/// taken in where nothing jumps into the run and the kernel does not patch them itself.
fn window(function: &Function, flow: &Flow, first: usize, last: usize, deployed: &[u8]) -> Window {
    let refused = |why: String| Window { start: 0, bytes: String::new(), refused: why };
    let code = &function.code;
    let length = |a: usize, b: usize| (code[b].offset() + code[b].insn.len() as u64 - code[a].offset()) as usize;
    let obstacle = |n: usize| -> Option<&'static str> {
        let insn = &code[n];
        let flow_control = insn.insn.flow_control();
        match () {
            _ if insn.patched || insn.rewritten => Some("the kernel patches an instruction of it itself"),
            _ if matches!(flow_control, FlowControl::Call | FlowControl::IndirectCall) => Some("a call lies in it"),
            _ if matches!(
                flow_control,
                FlowControl::Return | FlowControl::IndirectBranch | FlowControl::Interrupt | FlowControl::Exception
            ) =>
            {
                Some("the function leaves inside it")
            }
            _ if !movable(&insn.insn) => Some("an instruction of it can run nowhere else"),
            _ => None,
        }
    };
    for n in first..=last {
        if let Some(why) = obstacle(n) {
            return refused(why.into());
        }
    }
    if let Some(n) = (first + 1..=last).find(|n| flow.targets.contains(n)) {
        return refused(format!("a jump goes to {}+{:#x}, inside it", function.name, code[n].offset()));
    }
    let (mut a, mut b) = (first, last);
    let mut why = "the function ends before a jump fits";
    while length(a, b) < JUMP {
        let ends = |n: usize| code[n].insn.flow_control() == FlowControl::UnconditionalBranch;
        let next = b + 1;
        if next < code.len() && !ends(b) && !flow.targets.contains(&next) && obstacle(next).is_none() {
            b = next;
            continue;
        }
        // Backwards: what was the first instruction becomes an inner one, so nothing may jump to it.
        if a > 0 && !flow.targets.contains(&a) && obstacle(a - 1).is_none() && !ends(a - 1) {
            a -= 1;
            continue;
        }
        if next < code.len() && flow.targets.contains(&next) {
            why = "a jump goes to the instruction after it";
        }
        return refused(format!("{} bytes are too few for a jump and {why}", length(a, b)));
    }
    let (start, end) = (code[a].offset(), code[b].offset() + code[b].insn.len() as u64);
    match deployed.get(start as usize..end as usize) {
        Some(bytes) => Window { start, bytes: to_hex(bytes), refused: String::new() },
        None => refused("the image ends inside the function".into()),
    }
}
