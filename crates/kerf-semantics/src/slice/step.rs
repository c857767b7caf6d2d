//! One instruction of a slice: what it takes from a value, and what it hands on.

use std::collections::BTreeSet;

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedMemory};

use super::carriers::Carriers;
use super::frame::{self, Memory, Pointers};
use super::{Effect, Outcome, Role, Surroundings};
use crate::live::keeps_flags_sometimes;
use crate::state::{Flag, location};

const RAX: u16 = 1;
const RSP: usize = 4;

/// An instruction's part in a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// What carries the value behind it.
    pub after: Carriers,
    /// What it used of what carried the value.
    pub used: Carriers,
    /// What it overwrote with something else.
    pub cleared: Carriers,
    /// Why the value cannot be followed from here.
    pub escapes: Vec<String>,
    /// A callee hands the value to this function's caller.
    pub returned: bool,
}

impl Step {
    /// What a call gives back: its result, and what it has stored where its arguments point to.
    pub(super) fn come_out(
        &mut self,
        insn: &Instruction,
        pointers: &Pointers,
        outcome: &Outcome,
        surroundings: &mut dyn Surroundings,
    ) {
        if outcome.result {
            self.after.registers |= RAX;
        }
        for to in &outcome.pointed {
            match pointers.get(usize::from(to.register)).copied().flatten() {
                Some(base) => self.after.slots.extend(bytes(base.wrapping_add(to.offset), to.size)),
                None => match surroundings.pointed(insn, to) {
                    Ok(object) => drop(self.after.objects.insert(object)),
                    Err(why) => self.escapes.push(why),
                },
            }
        }
    }
}

/// What an instruction reads and writes.
#[derive(Default)]
struct Accesses {
    reads: Carriers,
    /// Registers that only say where memory is.
    addresses: u16,
    /// Written whole, so that the old content is gone.
    kills: Carriers,
    writes: Carriers,
    loads: Vec<UsedMemory>,
    stores: Vec<UsedMemory>,
}

fn flags() -> u32 {
    Flag::ALL.iter().fold(0, |mask, flag| mask | flag.mask())
}

fn bytes(offset: i64, size: u32) -> BTreeSet<i64> {
    (offset..offset + i64::from(size)).collect()
}

/// `xor %eax, %eax` and the like: the result does not depend on the register.
fn clears(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Xor | Mnemonic::Sub)
        && insn.op0_kind() == OpKind::Register
        && insn.op1_kind() == OpKind::Register
        && insn.op0_register() == insn.op1_register()
}

/// Base and index of a memory operand, unless they are operands by themselves or the address is the result.
fn only_addresses(insn: &Instruction) -> u16 {
    let bit = |register: Register| location(register).map_or(0, |(number, ..)| 1u16 << number);
    let operands =
        (0..insn.op_count()).filter(|n| insn.op_kind(*n) == OpKind::Register).map(|n| bit(insn.op_register(n)));
    if insn.mnemonic() == Mnemonic::Lea || !(0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Memory) {
        return 0;
    }
    (bit(insn.memory_base()) | bit(insn.memory_index())) & !operands.fold(0, |all, one| all | one)
}

fn accesses(insn: &Instruction, factory: &mut InstructionInfoFactory, pointers: &Pointers) -> Accesses {
    let mut found = Accesses::default();
    let info = factory.info(insn);
    let only_flags = clears(insn) || (insn.mnemonic() == Mnemonic::Sbb && insn.op0_register() == insn.op1_register());
    for used in info.used_registers() {
        let Some((number, _, width)) = location(used.register()).filter(|(number, ..)| *number != RSP) else {
            continue;
        };
        let bit = 1u16 << number;
        use OpAccess::{CondRead, CondWrite, Read, ReadCondWrite, ReadWrite, Write};
        if matches!(used.access(), Read | CondRead | ReadWrite | ReadCondWrite) && !only_flags {
            found.reads.registers |= bit;
        }
        if matches!(used.access(), Write | ReadWrite | CondWrite | ReadCondWrite) {
            found.writes.registers |= bit;
            if width >= 32 && matches!(used.access(), Write | ReadWrite) {
                found.kills.registers |= bit;
            }
        }
    }
    found.addresses = only_addresses(insn);
    found.reads.registers &= !found.addresses;
    found.reads.flags = insn.rflags_read() & flags();
    found.writes.flags = insn.rflags_modified() & flags();
    if !keeps_flags_sometimes(insn) {
        found.kills.flags = found.writes.flags;
    }
    for used in info.used_memory() {
        let (reads, writes) = match used.access() {
            OpAccess::Read | OpAccess::CondRead => (true, false),
            OpAccess::Write | OpAccess::CondWrite => (false, true),
            OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
            _ => continue,
        };
        let certain = matches!(used.access(), OpAccess::Write | OpAccess::ReadWrite);
        match frame::memory(used, pointers) {
            Memory::Slot(offset, size) => {
                if reads {
                    found.reads.slots.extend(bytes(offset, size));
                }
                if writes {
                    found.writes.slots.extend(bytes(offset, size));
                    if certain {
                        found.kills.slots.extend(bytes(offset, size));
                    }
                }
            }
            Memory::Frame(_) | Memory::Object => {
                found.loads.extend(reads.then_some(*used));
                found.stores.extend(writes.then_some(*used));
            }
        }
    }
    found
}

/// Where the registers point, and where the stack pointer is for most of the function.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub pointers: &'a Pointers,
    pub settled: Option<i64>,
}

/// What the instruction does with the carriers before it. `source`: what it computes follows from the value by itself.
pub(super) fn step(
    insn: &Instruction,
    factory: &mut InstructionInfoFactory,
    place: Place,
    before: &Carriers,
    source: bool,
    surroundings: &mut dyn Surroundings,
) -> Step {
    let Place { pointers, settled } = place;
    match surroundings.role(insn) {
        Role::Nothing | Role::Return => Step { after: before.clone(), ..Step::default() },
        Role::Call | Role::Leave => call(insn, pointers, settled, before, surroundings),
        Role::Plain => plain(insn, factory, pointers, before, source, surroundings),
    }
}

fn plain(
    insn: &Instruction,
    factory: &mut InstructionInfoFactory,
    pointers: &Pointers,
    before: &Carriers,
    source: bool,
    surroundings: &mut dyn Surroundings,
) -> Step {
    let found = accesses(insn, factory, pointers);
    let mut step = Step { after: before.clone(), cleared: found.kills.clone(), ..Step::default() };
    step.used.registers = found.reads.registers & before.registers;
    step.used.flags = found.reads.flags & before.flags;
    step.used.slots = found.reads.slots.intersection(&before.slots).copied().collect();
    for load in &found.loads {
        if let Memory::Frame(from) = frame::memory(load, pointers) {
            step.used.slots.extend(before.slots.range(from..));
        } else if !before.objects.is_empty() {
            step.used.objects.extend(surroundings.loads(insn, load, &before.objects));
        }
    }
    step.after.remove(&found.kills);
    let flows = source || !step.used.is_empty();
    // A place that follows from the value is used, but what is found there does not follow from it: the slice is a thin one.
    step.used.registers |= found.addresses & before.registers;
    if flows {
        step.after.join(&found.writes);
        for store in &found.stores {
            match frame::memory(store, pointers) {
                Memory::Frame(_) => step.escapes.push("it is stored in a local array by a computed address".into()),
                _ => match surroundings.store(insn, store) {
                    Ok(object) => drop(step.after.objects.insert(object)),
                    Err(why) => step.escapes.push(why),
                },
            }
        }
    }
    step
}

fn call(
    insn: &Instruction,
    pointers: &Pointers,
    settled: Option<i64>,
    before: &Carriers,
    surroundings: &mut dyn Surroundings,
) -> Step {
    let arguments = surroundings.passed(insn);
    let mut passed = Carriers::of_registers(before.registers & arguments.registers);
    passed.objects.clone_from(&before.objects);
    let mut step = Step { after: before.clone(), ..Step::default() };
    if let Some(rsp) = pointers[RSP] {
        // What was pushed below the settled frame is for the call.
        let pushed = settled.map_or(0, |settled| u32::try_from(settled - rsp).unwrap_or(0));
        let stack = if pushed > 0 { pushed } else { arguments.stack };
        passed.slots = bytes(rsp, stack).intersection(&before.slots).copied().collect();
        if !passed.slots.is_empty() && !arguments.shown {
            step.escapes.push("it is passed on the stack".into());
        }
    }
    let lowest = (0..16).filter(|n| arguments.registers & 1 << n != 0).filter_map(|n| pointers[n]).min();
    if let Some(lowest) = lowest.filter(|_| !arguments.shown)
        && before.slots.range(lowest..).next().is_some()
    {
        passed.slots.extend(before.slots.range(lowest..));
        step.escapes.push("the address of a local variable that holds it is passed on".into());
    }
    let effect = surroundings.call(insn, &passed);
    let Effect { uses, outcome, clears_result, clobbers, reads, objects, escapes } = effect;
    if uses {
        step.used.registers = passed.registers;
    }
    step.used.slots = passed.slots;
    step.used.objects = reads;
    step.escapes.extend(escapes);
    step.cleared.flags = flags();
    step.after.flags = 0;
    step.cleared.registers |= clobbers;
    step.after.registers &= !clobbers;
    if clears_result {
        step.cleared.registers |= RAX;
        step.after.registers &= !RAX;
    }
    step.come_out(insn, pointers, &outcome, surroundings);
    step.after.objects.extend(objects);
    step.returned = outcome.result && surroundings.role(insn) == Role::Leave;
    step
}

/// Whether an instruction lets the address of a frame's byte out of the registers: the lowest such byte.
pub(super) fn gives_away(insn: &Instruction, pointers: &Pointers) -> Option<i64> {
    let stored = insn.op_count() == 2 && insn.op0_kind() == OpKind::Memory && insn.op1_kind() == OpKind::Register;
    let register = if insn.mnemonic() == Mnemonic::Push { insn.op0_register() } else { insn.op1_register() };
    if !(stored || insn.mnemonic() == Mnemonic::Push) || register == Register::None {
        return None;
    }
    location(register).and_then(|(number, ..)| pointers[number])
}
