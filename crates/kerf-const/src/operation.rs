//! Multiplications and divisions by V that the compiler folded into a shift, an addition or a `lea`: one operation each.
//!
//! With another V the compiler takes other instructions, often several. The template then has the operation itself.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use kerf_semantics::{Arena, Flag, State, Term};

use crate::align::Slot;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `target ← source · factor + addend`.
    Multiply,
    /// `target ← ⌊source / factor⌋`, unsigned.
    Divide,
}

/// What an instruction does, read as a multiplication or division.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which operation.
    pub kind: Kind,
    /// The register that gets the result, 32 or 64 bits wide.
    pub target: Register,
    /// The register that is multiplied or divided, as wide as the target.
    pub source: Register,
    /// What the deployed instruction multiplies or divides by, at least 2.
    pub factor: i64,
    /// What the deployed instruction adds afterwards: the displacement of a `lea`.
    pub addend: i64,
}

impl Operation {
    /// Bits of the operation.
    pub fn bits(&self) -> u32 {
        self.target.size() as u32 * 8
    }

    /// Executes the operation with another factor and addend (64 bits wide each). What it leaves in the flags differs
    /// from one way of computing it to the next, so they are unknown afterwards. `None` if there is no such operation.
    pub fn execute(&self, arena: &mut Arena, state: &mut State, factor: Term, addend: Term) -> Option<()> {
        let bits = self.bits();
        let source = state.read(arena, self.source)?;
        let (factor, addend) = (arena.extract(factor, bits - 1, 0), arena.extract(addend, bits - 1, 0));
        let result = match self.kind {
            Kind::Multiply => {
                let product = arena.mul(source, factor);
                arena.add(product, addend)
            }
            Kind::Divide if arena.as_constant(factor) == Some(0) => return None,
            Kind::Divide => arena.udiv(source, factor),
        };
        state.write(arena, self.target, result)?;
        for flag in Flag::ALL {
            let unknown = arena.fresh("flag", 1);
            state.flags.set(flag, unknown);
        }
        Some(())
    }
}

/// Reads an instruction as a multiplication or division by a number of at least 2.
pub fn of(insn: &Instruction) -> Option<Operation> {
    let target = (insn.op_count() > 0 && insn.op0_kind() == OpKind::Register).then(|| insn.op0_register())?;
    if !(target.is_gpr32() || target.is_gpr64()) || insn.has_lock_prefix() {
        return None;
    }
    let plain = |kind, factor| Some(Operation { kind, target, source: target, factor, addend: 0 });
    let power = || {
        let count = insn.try_immediate(1).ok().filter(|n| (1..u64::from(target.size() as u32 * 8 - 1)).contains(n))?;
        Some(1i64 << count)
    };
    match insn.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal if crate::align::is_immediate(insn.op1_kind()) => plain(Kind::Multiply, power()?),
        Mnemonic::Shr if crate::align::is_immediate(insn.op1_kind()) => plain(Kind::Divide, power()?),
        Mnemonic::Add if insn.op1_kind() == OpKind::Register && insn.op1_register() == target => {
            plain(Kind::Multiply, 2)
        }
        Mnemonic::Lea => lea(insn, target),
        _ => None,
    }
}

/// The same, or what an instruction in a chain of them can be made into: a multiple of one of its registers ([`Slot::Factor`]: the first
/// that it reads, [`Slot::Second`]: the second) in the place of what it makes of both. What such an instruction itself does is no operation.
pub fn placed(insn: &Instruction, slot: Slot) -> Option<Operation> {
    of(insn).filter(|_| slot == Slot::Factor).or_else(|| combined(insn, slot))
}

fn combined(insn: &Instruction, slot: Slot) -> Option<Operation> {
    let register = |n: u32| {
        let register = (insn.op_count() > n && insn.op_kind(n) == OpKind::Register).then(|| insn.op_register(n))?;
        (register.is_gpr32() || register.is_gpr64()).then_some(register)
    };
    let first = register(0)?;
    let (target, sources) = match (insn.mnemonic(), insn.op_count()) {
        (Mnemonic::Add | Mnemonic::Sub | Mnemonic::Imul, 2) => (first, [Some(first), register(1)]),
        (Mnemonic::Imul, 3) => (first, [register(1), None]),
        // The upper half of the product is in rdx.
        (Mnemonic::Mul, 1) if first.is_gpr64() => (Register::RDX, [Some(Register::RAX), Some(first)]),
        (Mnemonic::Mul, 1) => (Register::EDX, [Some(Register::EAX), Some(first)]),
        _ => return None,
    };
    let source = if slot == Slot::Second { sources[1] } else { sources[0] };
    Some(Operation { kind: Kind::Multiply, target, source: source?, factor: 1, addend: 0 })
}

/// `lea d(, x, s)` and `lea d(x, x, s)`.
fn lea(insn: &Instruction, target: Register) -> Option<Operation> {
    let (base, index, scale) = (insn.memory_base(), insn.memory_index(), i64::from(insn.memory_index_scale()));
    if !index.is_gpr64() || insn.memory_segment() != Register::DS && insn.memory_segment() != Register::SS {
        return None;
    }
    let factor = match base {
        Register::None => scale,
        b if b == index => scale + 1,
        _ => return None,
    };
    let source = if target.is_gpr32() { index.full_register32() } else { index };
    let addend = insn.memory_displacement64() as i64;
    (factor >= 2).then_some(Operation { kind: Kind::Multiply, target, source, factor, addend })
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};
    use kerf_semantics::{Overrides, Prover, Verdict, step};

    fn decode(bytes: &[u8]) -> Instruction {
        Decoder::with_ip(64, bytes, 0x1000, DecoderOptions::NONE).decode()
    }

    const READ: [&[u8]; 8] = [
        &[0xc1, 0xe0, 0x06],                         // shl $6, %eax
        &[0x49, 0xc1, 0xe4, 0x03],                   // shl $3, %r12
        &[0x01, 0xc0],                               // add %eax, %eax
        &[0x49, 0xc1, 0xec, 0x06],                   // shr $6, %r12
        &[0xd1, 0xe8],                               // shr $1, %eax
        &[0x8d, 0x14, 0xc5, 0x08, 0x00, 0x00, 0x00], // lea 8(,%rax,8), %edx
        &[0x8d, 0x54, 0xc0, 0x09],                   // lea 9(%rax,%rax,8), %edx
        &[0x4f, 0x8d, 0x04, 0x89],                   // lea (%r9,%r9,4), %r8
    ];

    #[test]
    fn the_operation_is_what_the_instruction_does() {
        for bytes in READ {
            let insn = decode(bytes);
            let operation = of(&insn).unwrap_or_else(|| panic!("{insn} is not read"));
            let mut arena = Arena::new();
            let before = State::symbolic(&mut arena);
            let (mut deployed, mut read) = (before.clone(), before);
            step(&mut arena, &mut deployed, &insn, &Overrides::new()).unwrap();
            let factor = arena.constant(operation.factor as u64 as u128, 64);
            let addend = arena.constant(operation.addend as u64 as u128, 64);
            operation.execute(&mut arena, &mut read, factor, addend).unwrap();
            let equal: Vec<Term> = (0..16).map(|n| arena.eq(deployed.gpr[n], read.gpr[n])).collect();
            let claim = arena.all(&equal);
            assert!(matches!(Prover::start().unwrap().valid(&arena, &[], claim), Ok(Verdict::Proved)), "{insn}");
        }
    }

    #[test]
    fn what_multiplies_nothing_is_not_read_as_such() {
        for bytes in [
            &[0x8d, 0x04, 0x08][..], // lea (%rax,%rcx), %eax
            &[0x8d, 0x40, 0x08],     // lea 8(%rax), %eax
            &[0x01, 0xc8],           // add %ecx, %eax
            &[0xd3, 0xe0],           // shl %cl, %eax
            &[0xc1, 0xf8, 0x06],     // sar $6, %eax
            &[0xc0, 0xe0, 0x02],     // shl $2, %al
        ] {
            assert_eq!(of(&decode(bytes)), None, "{}", decode(bytes));
        }
    }
}
