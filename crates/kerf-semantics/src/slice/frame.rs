//! Which registers hold an address in the function's frame, and which.

use std::collections::BTreeMap;

use iced_x86::{Instruction, InstructionInfoFactory, MemorySize, Mnemonic, OpAccess, OpKind, Register, UsedMemory};

use crate::state::location;

const RSP: usize = 4;
/// Registers that a called function may change.
const CALLER_SAVED: [usize; 9] = [0, 1, 2, 6, 7, 8, 9, 10, 11];

/// For each general register, the offset of the frame's byte that it points to, from the stack pointer at the function's entry.
/// `None`: it holds something else.
pub type Pointers = [Option<i64>; 16];

/// Where a memory operand lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Bytes of the frame: offset and size.
    Slot(i64, u32),
    /// Somewhere in the frame, from an offset on.
    Frame(i64),
    /// Outside the frame.
    Object,
}

/// The pointers at the function's entry.
pub fn at_entry() -> Pointers {
    let mut pointers = [None; 16];
    pointers[RSP] = Some(0);
    pointers
}

/// What both ways to a point agree on; whether the first had more.
pub fn join(pointers: &mut Pointers, other: &Pointers) -> bool {
    let before = *pointers;
    for (mine, theirs) in pointers.iter_mut().zip(other) {
        *mine = mine.filter(|offset| *theirs == Some(*offset));
    }
    before != *pointers
}

fn number(register: Register) -> Option<usize> {
    location(register).map(|(number, ..)| number)
}

/// The pointers after an instruction.
pub fn after(insn: &Instruction, factory: &mut InstructionInfoFactory, before: &Pointers, is_call: bool) -> Pointers {
    let mut next = *before;
    for used in factory.info(insn).used_registers() {
        let writes =
            !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None | OpAccess::NoMemAccess);
        if let Some(number) = number(used.register()).filter(|_| writes) {
            next[number] = None;
        }
    }
    if is_call {
        CALLER_SAVED.into_iter().for_each(|number| next[number] = None);
        next[RSP] = before[RSP];
        return next;
    }
    if let Some((register, offset)) = computed(insn, before) {
        next[register] = offset;
    }
    if insn.is_stack_instruction() && insn.mnemonic() != Mnemonic::Leave {
        next[RSP] = before[RSP].map(|offset| offset + i64::from(insn.stack_pointer_increment()));
    }
    next
}

/// The register that an instruction points into the frame, and to where.
fn computed(insn: &Instruction, before: &Pointers) -> Option<(usize, Option<i64>)> {
    if insn.mnemonic() == Mnemonic::Leave {
        return Some((RSP, before[number(Register::RBP)?].map(|offset| offset + 8)));
    }
    let target = (insn.op_count() > 0 && insn.op0_kind() == OpKind::Register).then(|| insn.op0_register())?;
    if target.size() != 8 {
        return None;
    }
    let target = number(target)?;
    let constant = || insn.try_immediate(1).ok().map(|n| n as i64);
    let offset = match insn.mnemonic() {
        Mnemonic::Mov if insn.op1_kind() == OpKind::Register => number(insn.op1_register()).and_then(|n| before[n]),
        Mnemonic::Add => before[target].zip(constant()).map(|(offset, n)| offset + n),
        Mnemonic::Sub => before[target].zip(constant()).map(|(offset, n)| offset - n),
        Mnemonic::Lea if insn.memory_index() == Register::None => {
            let base = number(insn.memory_base()).and_then(|n| before[n]);
            base.map(|offset| offset.wrapping_add(insn.memory_displacement64() as i64))
        }
        _ => return None,
    };
    Some((target, offset))
}

/// Where an access goes, with the pointers as before the instruction.
pub fn memory(used: &UsedMemory, before: &Pointers) -> Memory {
    let pointer = |register: Register| number(register).and_then(|n| before[n]);
    let size = match used.memory_size() {
        MemorySize::Unknown => 0,
        size => size.size() as u32,
    };
    match (pointer(used.base()), pointer(used.index())) {
        (Some(offset), _) if used.index() == Register::None && size > 0 => {
            Memory::Slot(offset.wrapping_add(used.displacement() as i64), size)
        }
        (Some(offset), _) | (None, Some(offset)) => Memory::Frame(offset.wrapping_add(used.displacement() as i64)),
        (None, None) => Memory::Object,
    }
}

/// The pointers before each instruction of a function, by address.
pub fn solve(
    code: &BTreeMap<u64, Instruction>,
    entry: u64,
    flow: &dyn Fn(u64) -> (Vec<u64>, bool),
) -> BTreeMap<u64, Pointers> {
    let mut factory = InstructionInfoFactory::new();
    let mut known: BTreeMap<u64, Pointers> = BTreeMap::from([(entry, at_entry())]);
    let mut open = vec![entry];
    while let Some(ip) = open.pop() {
        let (Some(insn), Some(before)) = (code.get(&ip), known.get(&ip).copied()) else { continue };
        let (successors, is_call) = flow(ip);
        let next = after(insn, &mut factory, &before, is_call);
        for successor in successors {
            let changed = match known.get_mut(&successor) {
                Some(pointers) => join(pointers, &next),
                None => {
                    known.insert(successor, next);
                    true
                }
            };
            if changed {
                open.push(successor);
            }
        }
    }
    known
}
