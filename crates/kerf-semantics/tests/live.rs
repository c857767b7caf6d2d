//! Liveness on small pieces of code, written as bytes of an assembler's making.

use iced_x86::code_asm::*;
use iced_x86::{Instruction, Register};
use kerf_semantics::{CallEffect, Cfg, CfgOptions, Flag, LiveSet};

/// The instructions of a piece of code, at 0x1000.
fn assemble(write: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>) -> Vec<Instruction> {
    let mut assembler = CodeAssembler::new(64).unwrap();
    write(&mut assembler).unwrap();
    let bytes = assembler.assemble(0x1000).unwrap();
    iced_x86::Decoder::with_ip(64, &bytes, 0x1000, 0).into_iter().collect()
}

#[test]
fn a_result_is_live_and_a_scratch_register_is_not() {
    let code = assemble(|a| {
        a.mov(ecx, 5)?;
        a.lea(eax, qword_ptr(rdi + rcx * 8))?;
        a.ret()
    });
    let cfg = Cfg::new(&code);
    let after = cfg.live_after(code[1].ip());
    assert!(after.has_register(Register::RAX) && after.has_register(Register::RBX));
    assert!(!after.has_register(Register::RCX) && !after.has_register(Register::RDI));
    assert_eq!(after.flags, 0);
    let before = cfg.live_before(code[0].ip());
    assert!(before.has_register(Register::RDI) && !before.has_register(Register::RCX));
    assert!(!before.has_register(Register::RAX));
}

#[test]
fn bytes_are_told_apart() {
    let code = assemble(|a| {
        a.movzx(eax, cl)?;
        a.mov(dl, al)?;
        a.mov(byte_ptr(rdi), dh)?;
        a.ret()
    });
    let cfg = Cfg::new(&code);
    let before = cfg.live_before(code[0].ip());
    assert_eq!(before.bytes[1], 0b1, "only cl is read");
    assert_eq!(before.bytes[2], 0b1111_1110, "dl is overwritten, the rest of rdx is returned");
}

#[test]
fn flags_live_until_they_are_overwritten() {
    let mut code = assemble(|a| {
        let mut end = a.create_label();
        a.cmp(edi, 7)?;
        a.mov(eax, 1)?;
        a.jb(end)?;
        a.inc(eax)?;
        a.set_label(&mut end)?;
        a.adc(eax, 0)?;
        a.ret()
    });
    let cfg = Cfg::new(&code);
    let after_cmp = cfg.live_after(code[0].ip());
    assert!(after_cmp.has_flag(Flag::Carry) && !after_cmp.has_flag(Flag::Zero));
    // `inc` keeps the carry that `adc` reads.
    assert!(cfg.live_before(code[3].ip()).has_flag(Flag::Carry));
    assert!(!cfg.live_before(code[0].ip()).has_flag(Flag::Carry));
    let end = code[4].ip();
    assert!(cfg.is_jump_target(end) && !cfg.is_jump_target(code[3].ip()));
    assert_eq!(cfg.predecessors(end), &[code[2].ip(), code[3].ip()]);
    assert_eq!(cfg.successors(code[2].ip()), &[code[3].ip(), end]);
    // A shift by a register may leave the flags as they were.
    code = assemble(|a| {
        a.cmp(edi, 7)?;
        a.shl(eax, cl)?;
        a.setb(al)?;
        a.ret()
    });
    assert!(Cfg::new(&code).live_after(code[0].ip()).has_flag(Flag::Carry));
    code = assemble(|a| {
        a.cmp(edi, 7)?;
        a.shl(eax, 3)?;
        a.setb(al)?;
        a.ret()
    });
    assert!(!Cfg::new(&code).live_after(code[0].ip()).has_flag(Flag::Carry));
}

#[test]
fn loops_carry_what_the_next_round_reads() {
    let code = assemble(|a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.add(eax, ecx)?;
        a.dec(edi)?;
        a.jne(top)?;
        a.ret()
    });
    let cfg = Cfg::new(&code);
    assert!(cfg.live_after(code[2].ip()).has_register(Register::ECX));
    assert!(cfg.live_after(code[2].ip()).has_register(Register::EDI));
}

#[test]
fn calls_read_arguments_and_what_they_may_pass_on() {
    let code = assemble(|a| {
        a.mov(r11d, 1)?;
        a.mov(r12d, 2)?;
        a.call(0x9000)?;
        a.mov(eax, ecx)?;
        a.ret()
    });
    let call = code[2].ip();
    let cfg = Cfg::new(&code);
    let before = cfg.live_before(call);
    assert!(before.has_register(Register::RDI) && before.has_register(Register::R11));
    assert!(before.has_register(Register::R12) && !before.has_flag(Flag::Carry));
    assert!(cfg.live_after(call).has_register(Register::RCX));
    // With what is known of the callee, less is live.
    let effect = CallEffect { reads: LiveSet::of_registers(&[7]), kills: CallEffect::system_v().kills };
    let options = CfgOptions { effects: [(call, effect)].into(), ..CfgOptions::default() };
    let before = Cfg::with_options(&code, &options).live_before(call);
    assert!(before.has_register(Register::RDI));
    assert!(!before.has_register(Register::R11) && !before.has_register(Register::RCX));
}

#[test]
fn what_is_not_known_is_live() {
    let code = assemble(|a| {
        a.xor(ecx, ecx)?;
        a.jmp(rdx)
    });
    let cfg = Cfg::new(&code);
    assert!(cfg.has_indirect_jumps());
    assert_eq!(cfg.live_after(code[1].ip()), LiveSet::all());
    assert_eq!(cfg.live_before(0x5000), LiveSet::all());
    // A tail call: all registers. A conditional jump out may lead to another part of the function: flags too.
    let code = assemble(|a| {
        a.cmp(edi, 1)?;
        a.je(0x9000)?;
        a.jmp(0xa000)
    });
    let cfg = Cfg::new(&code);
    assert!(cfg.live_before(code[1].ip()).has_flag(Flag::Adjust));
    assert_eq!(cfg.live_before(code[2].ip()), LiveSet { flags: 0, ..LiveSet::all() });
}

#[test]
fn given_edges_count() {
    let code = assemble(|a| {
        a.nop()?;
        a.mov(ecx, 1)?;
        a.ret()?;
        a.mov(eax, ecx)?;
        a.ret()
    });
    assert!(!Cfg::new(&code).live_before(code[0].ip()).has_register(Register::RCX));
    let options = CfgOptions { edges: vec![(code[0].ip(), code[3].ip())], ..CfgOptions::default() };
    let cfg = Cfg::with_options(&code, &options);
    assert!(cfg.live_before(code[0].ip()).has_register(Register::RCX));
    assert!(cfg.is_jump_target(code[3].ip()));
}
