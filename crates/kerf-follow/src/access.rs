//! What an instruction reads and writes, with addresses as they are when it is executed.

use iced_x86::{Instruction, InstructionInfo, Mnemonic, OpAccess, OpKind, Register};
use kerf_lab::gdb::Registers;

use super::taint::{STATUS, address};

/// Something that holds bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Bytes of a general register: eight times its number plus the first byte's, and how many.
    General { first: u8, count: u8 },
    /// A vector register as a whole.
    Vector(usize),
    /// Some flags.
    Flags(u32),
    /// Memory.
    Memory { address: u64, size: u64 },
}

/// Places that are read.
pub(super) type Reads = Vec<Place>;

/// All accesses of one instruction.
pub(super) struct Access {
    /// What is computed with.
    pub(super) data: Reads,
    /// What says where in memory.
    pub(super) addresses: Reads,
    /// What is written, and whether that is certain.
    pub(super) writes: Vec<(Place, bool)>,
    /// Registers that a string instruction moves on.
    counters: bool,
}

const RSP: usize = 4;

fn reads(access: OpAccess) -> bool {
    use OpAccess::{CondRead, Read, ReadCondWrite, ReadWrite};
    matches!(access, Read | CondRead | ReadWrite | ReadCondWrite)
}

fn writes(access: OpAccess) -> bool {
    use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
    matches!(access, Write | CondWrite | ReadWrite | ReadCondWrite)
}

/// The bytes of a register; nothing for the stack pointer, and for those that are not followed.
fn place(register: Register) -> Option<Place> {
    let number = register.full_register().number();
    if register.is_vector_register() {
        return Some(Place::Vector(number));
    }
    if !register.is_gpr() || number == RSP {
        return None;
    }
    let high = matches!(register, Register::AH | Register::BH | Register::CH | Register::DH);
    Some(Place::General { first: (8 * number) as u8 + u8::from(high), count: register.size() as u8 })
}

impl Access {
    pub(super) fn of(insn: &Instruction, info: &InstructionInfo, registers: &Registers) -> Access {
        let counters = insn.is_string_instruction();
        let mut access = Access { data: Vec::new(), addresses: Vec::new(), writes: Vec::new(), counters };
        let repeated = insn.has_rep_prefix() || insn.has_repne_prefix();
        for used in info.used_registers() {
            let Some(place) = place(used.register()) else { continue };
            if reads(used.access()) && !reads_for_nothing(insn) {
                let addresses = is_address(insn, used.register()) && !is_operand(insn, used.register());
                if addresses { access.addresses.push(place) } else { access.data.push(place) }
            }
            if writes(used.access()) {
                access.writes.push((place, matches!(used.access(), OpAccess::Write | OpAccess::ReadWrite)));
            }
        }
        for used in info.used_memory() {
            let size = used.memory_size().size() as u64;
            let Some(address) = address(used, registers).filter(|_| size != 0) else { continue };
            let place = Place::Memory { address, size };
            if reads(used.access()) {
                access.data.push(place);
            }
            if writes(used.access()) {
                let certain = matches!(used.access(), OpAccess::Write | OpAccess::ReadWrite);
                access.writes.push((place, certain || repeated));
            }
        }
        access.flags(insn);
        access
    }

    fn flags(&mut self, insn: &Instruction) {
        // The kernel saves flags for the sake of the interrupt flag.
        let saves = matches!(insn.mnemonic(), Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq);
        let read = if saves { 0 } else { insn.rflags_read() & STATUS };
        if read != 0 {
            self.data.push(Place::Flags(read));
        }
        let written = insn.rflags_modified() & STATUS;
        if written != 0 {
            self.writes.push((Place::Flags(written), !keeps_flags_sometimes(insn)));
        }
    }

    /// Whether a written place is what a copy is for: not a pointer that it moves on.
    pub(super) fn is_result(&self, place: &Place) -> bool {
        !(self.counters && matches!(place, Place::General { .. }) && self.writes.len() > 1 && self.writes_memory())
    }

    fn writes_memory(&self) -> bool {
        self.writes.iter().any(|(place, _)| matches!(place, Place::Memory { .. }))
    }

    /// The bytes of memory that are written, of those that a pattern has.
    pub(super) fn stored(&self, pattern: &[bool]) -> Vec<u64> {
        let memory = self.writes.iter().filter_map(|(place, _)| match place {
            Place::Memory { address, size } => Some((*address, *size)),
            _ => None,
        });
        let bytes = memory.flat_map(|(address, size)| (0..size).map(move |n| (n as usize, address.wrapping_add(n))));
        bytes.filter(|(n, _)| pattern.get(*n).copied().unwrap_or(false)).map(|(_, address)| address).collect()
    }
}

/// Whether a register is in the address of the memory operand. String instructions have theirs, and a counter.
fn is_address(insn: &Instruction, register: Register) -> bool {
    let full = register.full_register();
    if insn.is_string_instruction() {
        return matches!(full, Register::RSI | Register::RDI | Register::RCX);
    }
    // The result of `lea` is computed from them.
    insn.mnemonic() != Mnemonic::Lea
        && full != Register::None
        && (insn.memory_base().full_register() == full || insn.memory_index().full_register() == full)
}

fn is_operand(insn: &Instruction, register: Register) -> bool {
    let named = |n: u32| insn.op_kind(n) == OpKind::Register && insn.op_register(n).full_register() == register;
    // The first operand of a move is not read.
    let first = u32::from(copies(insn) && insn.op_count() > 1);
    let register = register.full_register();
    (first..insn.op_count()).any(|n| named(n) && insn.op_register(n).full_register() == register)
}

/// The result does not depend on the register: `xor %eax, %eax` and the like.
fn reads_for_nothing(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Xor | Mnemonic::Sub | Mnemonic::Sbb | Mnemonic::Pxor | Mnemonic::Xorps)
        && insn.op0_kind() == OpKind::Register
        && insn.op1_kind() == OpKind::Register
        && insn.op0_register() == insn.op1_register()
}

/// A shift by nothing leaves the flags alone.
fn keeps_flags_sometimes(insn: &Instruction) -> bool {
    use Mnemonic::{Rcl, Rcr, Rol, Ror, Sal, Sar, Shl, Shld, Shr, Shrd};
    let shifts = matches!(insn.mnemonic(), Shl | Shr | Sar | Sal | Rol | Ror | Rcl | Rcr | Shld | Shrd);
    shifts && (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Register && insn.op_register(n) == Register::CL)
}

/// Whether the result is the operand, byte for byte.
pub(super) fn copies(insn: &Instruction) -> bool {
    use Mnemonic::{
        Lodsb, Lodsd, Lodsq, Lodsw, Mov, Movaps, Movd, Movdqa, Movdqu, Movq, Movsb, Movsd, Movsq, Movsw, Movups, Movzx,
        Pop, Push, Stosb, Stosd, Stosq, Stosw,
    };
    matches!(
        insn.mnemonic(),
        Mov | Movzx | Push | Pop | Movaps | Movups | Movdqa | Movdqu | Movd | Movq | Movsb | Movsw | Movsd | Movsq
    ) || matches!(insn.mnemonic(), Lodsb | Lodsw | Lodsd | Lodsq | Stosb | Stosw | Stosd | Stosq)
}

/// Instructions that nothing follows from, and a repeated one that has no round left.
pub(super) fn has_no_effect(insn: &Instruction, registers: &Registers) -> bool {
    use Mnemonic::{Endbr64, Fnop, Nop, Pause, Prefetchnta, Prefetcht0, Prefetcht1, Prefetcht2, Prefetchw};
    let nothing = [Nop, Fnop, Pause, Endbr64, Prefetchnta, Prefetcht0, Prefetcht1, Prefetcht2, Prefetchw];
    let repeated = insn.is_string_instruction() && (insn.has_rep_prefix() || insn.has_repne_prefix());
    nothing.contains(&insn.mnemonic()) || repeated && registers.general[1] == 0
}
