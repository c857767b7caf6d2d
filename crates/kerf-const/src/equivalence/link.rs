//! Both functions with their references filled in, as if linked to the same places.

use std::collections::HashMap;

use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind};
use kerf_semantics::{Arena, Overrides};

use crate::align::{self, Slot};
use crate::analyse::{Number, Template};
use crate::code::{Code, Function, Insn, Place};
use crate::operation::{self, Operation};

use super::calls::Call;

/// Where symbols are taken to lie: far apart, in the upper 2 GiB where the kernel's own references reach.
const PLACES: u64 = 0xffff_ffff_9000_0000;
const DISTANCE: u64 = 0x2_0000;
/// Where the code itself is taken to lie.
const CODE: u64 = 0xffff_ffff_8000_0000;
const PART: u64 = 0x10_0000;

/// Where the part of a function that was moved out of it is taken to lie.
pub fn cold_entry() -> u64 {
    CODE + PART
}

/// Gives every place that is referred to an address, the same for both sides.
#[derive(Debug, Default)]
pub struct Linker {
    places: HashMap<Place, u64>,
    names: HashMap<u64, String>,
}

impl Linker {
    fn address(&mut self, place: &Place) -> u64 {
        let (key, offset, name) = match place {
            Place::Symbol(name, offset) => (Place::Symbol(name.clone(), 0), *offset, name.clone()),
            Place::Text(text) => (Place::Text(text.clone()), 0, String::new()),
            Place::Unnamed(section, offset) => (Place::Unnamed(section.clone(), 0), *offset as i64, String::new()),
        };
        let next = PLACES + self.places.len() as u64 * DISTANCE;
        let base = *self.places.entry(key).or_insert(next);
        self.names.entry(base).or_insert(name);
        base.wrapping_add_signed(offset)
    }

    /// Where the places lie that were given addresses.
    pub fn range(&self) -> std::ops::Range<u64> {
        PLACES..PLACES + self.places.len() as u64 * DISTANCE
    }

    /// The symbol that covers an address and the offset into it.
    pub fn symbol(&self, address: u64) -> Option<(&str, u64)> {
        let index = address.checked_sub(PLACES)? / DISTANCE;
        let base = PLACES + index * DISTANCE;
        self.name(base).map(|name| (name, address - base))
    }

    /// The symbol that lies at an address.
    pub fn name(&self, address: u64) -> Option<&str> {
        self.names.get(&address).map(String::as_str).filter(|n| !n.is_empty())
    }
}

/// What an instruction is to the walk, where it is more than its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What it says.
    Plain,
    /// Padding, or the call that the tracer patches away.
    Nothing,
    /// A static branch: either falls through or jumps to the target, as the key says, by its address (0: not known).
    StaticKey { target: u64, key: u64 },
    /// The jump that stands for `ret`.
    Return,
    /// A call through a register, by the thunk that stands for it.
    Thunk(iced_x86::Register, bool),
    /// A multiplication or division with another factor and addend.
    Operation(Operation),
}

/// A function and the parts that the compiler moved out of it, linked.
#[derive(Debug, Default)]
pub struct Bundle {
    /// Instructions by address.
    pub code: HashMap<u64, (Instruction, Role)>,
    /// Numbers that take the place of operands.
    pub overrides: Overrides,
    /// Address of the function's first instruction.
    pub entry: u64,
    /// What the compiler says of the calls, by their addresses.
    pub calls: HashMap<u64, Call>,
}

impl Bundle {
    /// Attaches what the compiler says of each call. Calls in inline assembly are unknown to it and stay without.
    pub fn attach_calls(&mut self, code: &Code, name: &str, calls: &HashMap<String, Vec<Call>>) {
        let cold = format!("{name}.cold");
        for (part, base) in [(name, CODE), (cold.as_str(), CODE + PART)] {
            let (Some(function), Some(known)) = (code.function(part), calls.get(part)) else { continue };
            let mut known = known.iter().peekable();
            let mut found = Vec::new();
            for insn in &function.code {
                let Some(callee) = called(insn) else { continue };
                if let Some(call) = known.next_if(|k| k.callee == callee) {
                    found.push((base + insn.offset(), call.clone()));
                }
            }
            // If a call of the listing has no counterpart, none of the pairs can be trusted.
            if known.peek().is_none() {
                self.calls.extend(found);
            }
        }
    }
}

/// What an instruction calls: a symbol, or `Some(None)` for a call through a register; `None` if it is no call.
fn called(insn: &Insn) -> Option<Option<String>> {
    use iced_x86::Mnemonic::{Call, Jmp};
    if insn.patched || !matches!(insn.insn.mnemonic(), Call | Jmp) {
        return None;
    }
    match insn.references.first().map(|r| &r.place) {
        Some(Place::Symbol(name, 0)) if name.starts_with("__x86_indirect_thunk_") => Some(None),
        Some(Place::Symbol(name, 0)) if name != "__x86_return_thunk" => Some(Some(name.clone())),
        _ => None,
    }
}

/// Links a function of `code` and its `.cold` part. `numbers` gives the numbers that a value of V puts in.
pub fn link(
    code: &Code,
    name: &str,
    numbers: &dyn Fn(&str, Number) -> Option<i64>,
    linker: &mut Linker,
    arena: &mut Arena,
) -> Result<Bundle, String> {
    let cold = format!("{name}.cold");
    let parts: Vec<&Function> = [name, &cold].iter().filter_map(|n| code.function(n)).collect();
    let bases: HashMap<&str, u64> =
        parts.iter().enumerate().map(|(n, f)| (f.name.as_str(), CODE + n as u64 * PART)).collect();
    let mut bundle = Bundle { entry: CODE, ..Bundle::default() };
    for function in &parts {
        let base = bases[function.name.as_str()];
        for (index, insn) in function.code.iter().enumerate() {
            let number = |slot: Slot| numbers(&function.name, (index, slot));
            let linked = link_one(insn, base, &bases, &number, linker, &mut bundle.overrides, arena)
                .ok_or_else(|| format!("{}+{:#x} cannot be linked", function.name, insn.offset()))?;
            bundle.code.insert(linked.0.ip(), linked);
        }
    }
    Ok(bundle)
}

fn link_one(
    insn: &Insn,
    base: u64,
    bases: &HashMap<&str, u64>,
    number: &dyn Fn(Slot) -> Option<i64>,
    linker: &mut Linker,
    overrides: &mut Overrides,
    arena: &mut Arena,
) -> Option<(Instruction, Role)> {
    let ip = base + insn.offset();
    let mut decoder = Decoder::with_ip(64, &insn.bytes, ip, DecoderOptions::NONE);
    let mut linked = decoder.decode();
    let offsets = decoder.get_constant_offsets(&linked);
    if insn.is_nop() {
        return Some((linked, Role::Nothing));
    }
    let near = matches!(linked.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    if insn.patched {
        // A tracer's call does nothing; a key's jump may or may not be taken.
        let jumps = near && linked.mnemonic() == iced_x86::Mnemonic::Jmp;
        return if jumps {
            let target = branch_place(insn, bases).unwrap_or_else(|| linked.near_branch_target());
            let key = insn.key.as_ref().map_or(0, |place| linker.address(place));
            Some((linked, Role::StaticKey { target, key }))
        } else if linked.mnemonic() == iced_x86::Mnemonic::Call {
            Some((linked, Role::Nothing))
        } else {
            None
        };
    }
    for reference in &insn.references {
        if let Place::Symbol(name, 0) = &reference.place
            && near
        {
            if name == "__x86_return_thunk" {
                return Some((linked, Role::Return));
            }
            if let Some(register) = name.strip_prefix("__x86_indirect_thunk_").and_then(register_named) {
                return Some((linked, Role::Thunk(register, linked.mnemonic() == iced_x86::Mnemonic::Call)));
            }
        }
        if near {
            let target = branch_place(insn, bases).unwrap_or_else(|| linker.address(&reference.place));
            linked.set_near_branch64(target);
            continue;
        }
        let address = linker.address(&reference.place);
        let in_displacement = offsets.has_displacement() && reference.offset == offsets.displacement_offset();
        if in_displacement {
            linked.set_memory_displacement64(address);
        } else {
            let operand = align::immediate_operand(&linked)?;
            let term = arena.constant(u128::from(address), 64);
            overrides.insert(ip, operand, term);
        }
    }
    if let Some((slot, factor)) = [Slot::Factor, Slot::Second].into_iter().find_map(|s| Some((s, number(s)?))) {
        let deployed = operation::placed(&linked, slot)?;
        let addend = number(Slot::Displacement).unwrap_or(deployed.addend);
        return Some((linked, Role::Operation(Operation { factor, addend, ..deployed })));
    }
    if let Some(value) = number(Slot::Immediate) {
        let operand = align::immediate_operand(&linked)?;
        let term = arena.constant(u128::from(value as u64), 64);
        overrides.insert(ip, operand, term);
    }
    if let Some(value) = number(Slot::Displacement) {
        linked.set_memory_displacement64(value as u64);
    }
    Some((linked, Role::Plain))
}

/// The linked address of a branch into a part of the same bundle.
fn branch_place(insn: &Insn, bases: &HashMap<&str, u64>) -> Option<u64> {
    match &insn.references.first()?.place {
        Place::Symbol(name, offset) => Some(bases.get(name.as_str())?.wrapping_add_signed(*offset)),
        _ => None,
    }
}

fn register_named(name: &str) -> Option<iced_x86::Register> {
    use iced_x86::Register::*;
    let all = [RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15];
    all.into_iter().find(|r| format!("{r:?}").eq_ignore_ascii_case(name))
}

/// The numbers that a template has for a value, as linking asks for them.
pub fn numbers_of<'a>(
    templates: &'a [Template],
    unit: usize,
    value: i128,
) -> impl Fn(&str, Number) -> Option<i64> + 'a {
    move |function, number| {
        templates.iter().find(|t| t.unit == unit && t.function.name == function).and_then(|t| t.number(number, value))
    }
}
