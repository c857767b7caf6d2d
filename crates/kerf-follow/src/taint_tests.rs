//! Instructions that take, move, forget and hand on a value, one after the other.

use iced_x86::code_asm::*;
use iced_x86::{Decoder, DecoderOptions};

use super::*;

const STACK: u64 = 0xffff_c900_0001_3f00;
const OBJECT: u64 = 0xffff_8880_0000_1000;

/// Assembles, and steps with the stack pointer on the stack and all other registers at an object; the first instruction is the
/// source. What each instruction took, and what is left.
fn run(write: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> (Vec<Option<Taken>>, Taint) {
    let mut assembler = CodeAssembler::new(64).unwrap();
    write(&mut assembler).unwrap();
    let bytes = assembler.assemble(0x1000).unwrap();
    let mut registers = Registers { general: [OBJECT; 16], gs_base: 0x7000, ..Registers::default() };
    registers.general[4] = STACK;
    let mut taint = Taint::default();
    let mut taken = Vec::new();
    for insn in Decoder::with_ip(64, &bytes, 0x1000, DecoderOptions::NONE).iter() {
        let n = taken.len();
        taken.push(taint.step(&insn, &registers, n, n == 0, |address| address.abs_diff(STACK) < 0x4000));
        let moved = insn.stack_pointer_increment();
        registers.general[4] = registers.general[4].wrapping_add_signed(i64::from(moved));
    }
    (taken, taint)
}

/// The flows behind the source, as a letter each: copied, used, stored, or nothing.
fn flows(write: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> (String, bool) {
    let (taken, taint) = run(write);
    let letter = |taken: &Option<Taken>| match taken.as_ref().map(|taken| taken.flow) {
        None => '-',
        Some(Flow::Copied) => 'c',
        Some(Flow::Used) => 'u',
        Some(Flow::Stored) => 's',
    };
    (taken[1..].iter().map(letter).collect(), taint.is_empty())
}

#[test]
fn overwritten_registers_carry_nothing() {
    let (seen, empty) = flows(|a| {
        a.mov(ebp, 10)?;
        a.mov(eax, ebp)?;
        a.mov(ebp, 1)?;
        a.xor(eax, eax)
    });
    assert_eq!((seen.as_str(), empty), ("c--", true));
}

#[test]
fn a_comparison_ends_at_the_next_flags() {
    let (seen, empty) = flows(|a| {
        a.cmp(edx, 64)?;
        a.mov(ecx, edx)?;
        a.je(0x1000)?;
        a.test(esi, esi)?;
        a.jne(0x1000)
    });
    assert_eq!((seen.as_str(), empty), ("-u--", true));
}

#[test]
fn a_shift_by_a_register_may_keep_the_flags() {
    let (seen, _) = flows(|a| {
        a.cmp(edx, 64)?;
        a.shl(esi, cl)?;
        a.setb(al)
    });
    assert_eq!(seen, "-u");
}

#[test]
fn bytes_are_told_apart() {
    let (seen, empty) = flows(|a| {
        a.mov(ah, 3)?;
        a.mov(dl, al)?;
        a.mov(cl, ah)?;
        a.mov(eax, 0)?;
        a.mov(byte_ptr(rsp + 8), cl)?;
        a.mov(dl, byte_ptr(rsp + 9))?;
        a.mov(word_ptr(rsp + 8), 0)?;
        a.mov(cl, 0)
    });
    assert_eq!((seen.as_str(), empty), ("-c-c---", true));
}

#[test]
fn saved_and_restored_registers_are_only_moved() {
    let (seen, empty) = flows(|a| {
        a.mov(ebx, 10)?;
        a.push(rbx)?;
        a.mov(ebx, 1)?;
        a.pop(rbx)?;
        a.add(ebx, 1)?;
        a.mov(qword_ptr(rsp - 8), 0)?;
        a.lea(rax, ptr(rbx + 1))
    });
    assert_eq!((seen.as_str(), empty), ("c-cu-u", false));
}

#[test]
fn memory_that_is_no_stack_is_stored_to() {
    let (seen, empty) = flows(|a| {
        a.mov(ecx, 10)?;
        a.mov(dword_ptr(rdi + 4), ecx)?;
        a.mov(ecx, 0)?;
        a.mov(al, byte_ptr(rdi + 8))?;
        a.mov(al, byte_ptr(rdi + 7))?;
        a.mov(qword_ptr(rdi), 0)?;
        a.mov(eax, 0)
    });
    assert_eq!((seen.as_str(), empty), ("s--c--", true));
}

#[test]
fn segments_count_from_their_base() {
    let (seen, _) = flows(|a| {
        a.mov(dword_ptr(0x10).gs(), 10)?;
        a.mov(rax, 0x7010u64)?;
        a.mov(ecx, dword_ptr(0x7010))
    });
    assert_eq!(seen, "-c");
}

#[test]
fn an_address_is_a_use() {
    let (taken, taint) = run(|a| {
        a.mov(ecx, 10)?;
        a.mov(rax, qword_ptr(rdi + rcx * 8))?;
        a.mov(ecx, 0)?;
        a.test(rax, rax)
    });
    assert_eq!(taken[1], Some(Taken { from: vec![0], flow: Flow::Used }));
    // What lies there is something else.
    assert_eq!(taken[3], None);
    assert!(taint.is_empty());
}

#[test]
fn what_was_handed_on_names_where_it_came_from() {
    let (taken, _) = run(|a| {
        a.mov(ecx, 10)?;
        a.lea(edx, ptr(rcx + 1))?;
        a.add(edx, ecx)
    });
    assert_eq!(taken[2].as_ref().unwrap().from, [0, 1]);
}

#[test]
fn an_exchange_gives_what_was_in_memory() {
    let (seen, empty) = flows(|a| {
        a.mov(ecx, 10)?;
        a.xchg(dword_ptr(rsp + 8), ecx)?;
        a.mov(eax, ecx)?;
        a.mov(qword_ptr(rsp + 8), 0)
    });
    assert_eq!((seen.as_str(), empty), ("u--", true));
}

#[test]
fn a_copied_string_leaves_the_pointers_alone() {
    let (seen, _) = flows(|a| {
        a.mov(dword_ptr(rsi), 10)?;
        a.movsd()?;
        a.mov(eax, esi)?;
        a.mov(eax, edi)
    });
    assert_eq!(seen, "s--");
}

#[test]
fn flags_that_are_saved_for_interrupts_do_not_count() {
    let (seen, _) = flows(|a| {
        a.cmp(edx, 64)?;
        a.pushfq()?;
        a.pop(rax)?;
        a.nop()
    });
    assert_eq!(seen, "---");
}

#[test]
fn a_call_through_a_register_is_a_use_and_no_more() {
    let (seen, _) = flows(|a| {
        a.mov(rax, OBJECT)?;
        a.call(rax)?;
        a.mov(eax, 0)?;
        a.pop(rcx)
    });
    assert_eq!(seen, "u--");
}
