//! Instructions that may run at another place: those that the kernel module takes into a detour (`kernel/kerf_form.c`).

use iced_x86::{ConditionCode, Instruction, Mnemonic, OpKind, Register};

/// Whether a detour may hold the instruction: arithmetic, moves, shifts, bit operations, conditional moves and sets, direct jumps,
/// prefetches and NOPs, with the stack pointer only as the base of an address.
pub fn movable(insn: &Instruction) -> bool {
    ordinary(insn) && !(0..insn.op_count()).any(|n| is_stack_pointer(insn, n))
}

/// The stack pointer as an operand. The high bytes of registers have numbers that the module does not tell from it.
fn is_stack_pointer(insn: &Instruction, operand: u32) -> bool {
    let register = insn.op_register(operand);
    insn.op_kind(operand) == OpKind::Register && (register.full_register() == Register::RSP || register == Register::AH)
}

fn ordinary(insn: &Instruction) -> bool {
    use Mnemonic::*;
    let segment = (0..insn.op_count()).any(|n| insn.op_register(n).is_segment_register());
    whole(insn)
        && match insn.mnemonic() {
            // Moves to and from an address of 64 bits have an opcode of their own.
            Mov => !segment && insn.memory_displ_size() != 8,
            Add | Adc | Sbb | And | Sub | Xor | Or | Cmp | Test | Lea | Xchg | Movsxd | Movzx | Movsx | Imul | Mul
            | Div | Idiv | Not | Neg | Inc | Dec | Cbw | Cwde | Cdqe | Cwd | Cdq | Cqo | Nop | Jmp => true,
            Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd | Bt | Bts | Btr | Btc | Bsf | Bsr | Tzcnt
            | Lzcnt | Bswap | Popcnt | Cmpxchg | Xadd | Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2
            | Prefetchw => true,
            // Conditional jumps, sets and moves.
            _ => insn.condition_code() != ConditionCode::None && !insn.is_loopcc(),
        }
}

/// No vector registers, and addresses of 64 bits.
fn whole(insn: &Instruction) -> bool {
    let vector = |r: Register| r.is_xmm() || r.is_ymm() || r.is_zmm() || r.is_mm() || r.is_st();
    let operands = (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Register && vector(insn.op_register(n)));
    let narrow = [insn.memory_base(), insn.memory_index()].iter().any(|r| r.is_gpr32());
    !operands && !narrow
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn of(bytes: &[u8]) -> bool {
        movable(&Decoder::new(64, bytes, DecoderOptions::NONE).decode())
    }

    #[test]
    fn arithmetic_may_move() {
        for bytes in [
            &[0x48, 0x89, 0xfb][..],               // mov %rdi, %rbx
            &[0x8b, 0x44, 0x24, 0x08],             // mov 8(%rsp), %eax
            &[0x4c, 0x8d, 0x6c, 0x24, 0x10],       // lea 16(%rsp), %r13
            &[0x0f, 0x46, 0xd9],                   // cmovbe %ecx, %ebx
            &[0x0f, 0x94, 0xc0],                   // sete %al
            &[0x48, 0xf7, 0xf1],                   // div %rcx
            &[0x74, 0x10],                         // je
            &[0xc7, 0x44, 0x24, 0x08, 1, 0, 0, 0], // movl $1, 8(%rsp)
        ] {
            let insn = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
            assert!(of(bytes), "{insn}");
        }
    }

    #[test]
    fn what_moves_the_stack_or_does_more_may_not() {
        for bytes in [
            &[0x41, 0x57][..],         // push %r15
            &[0x6a, 0x05],             // push $5
            &[0x5b],                   // pop %rbx
            &[0x48, 0x83, 0xec, 0x20], // sub $32, %rsp
            &[0x48, 0x89, 0xe5],       // mov %rsp, %rbp
            &[0xe8, 0, 0, 0, 0],       // call
            &[0xc3],                   // ret
            &[0xf3, 0x48, 0xab],       // rep stos
            &[0x0f, 0x0b],             // ud2
            &[0x0f, 0x28, 0xc1],       // movaps
            &[0xfa],                   // cli
            &[0x8e, 0xd8],             // mov %eax, %ds
            &[0x67, 0x8b, 0x00],       // mov (%eax), %eax
            &[0xe2, 0xfe],             // loop
            &[0xe1, 0xfe],             // loope
        ] {
            let insn = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
            assert!(!of(bytes), "{insn}");
        }
    }
}
