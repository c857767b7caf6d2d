//! What single instructions do, as text; what raises exceptions; and immediates replaced by terms.

use iced_x86::code_asm::*;
use iced_x86::{Instruction, Register};
use kerf_semantics::{
    Arena, Assignment, Flag, Flow, Frame, LiveSet, Overrides, REGISTER_NAMES, State, Undefined, Unsupported,
    equal_states, step,
};

fn assemble(write: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>) -> Vec<Instruction> {
    let mut assembler = CodeAssembler::new(64).unwrap();
    write(&mut assembler).unwrap();
    let bytes = assembler.assemble(0x1000).unwrap();
    iced_x86::Decoder::with_ip(64, &bytes, 0x1000, 0).into_iter().collect()
}

/// Everything that an instruction changes, one line each.
fn effect(insn: &Instruction) -> String {
    let mut arena = Arena::new();
    let before = State::symbolic(&mut arena);
    let mut after = before.clone();
    after.undefined = Undefined::Named("x".to_owned());
    let flow = step(&mut arena, &mut after, insn, &Overrides::new()).unwrap();
    let mut lines = vec![format!("{insn}")];
    for (number, name) in REGISTER_NAMES.iter().enumerate() {
        if after.gpr[number] != before.gpr[number] {
            lines.push(format!("    {name} = {}", arena.display(after.gpr[number])));
        }
    }
    for flag in Flag::ALL {
        let text = arena.display(after.flags.get(flag));
        if after.flags.get(flag) != before.flags.get(flag) && !text.starts_with("undefined") {
            lines.push(format!("    {} = {text}", flag.name()));
        }
    }
    if after.memory != before.memory {
        for (address, value) in arena.writes(after.memory) {
            let size = arena.width(value);
            lines.push(format!("    mem{size}[{}] = {}", arena.display(address), arena.display(value)));
        }
    }
    match flow {
        Flow::Next => {}
        Flow::Branch { taken, target } => lines.push(format!("    to {target:#x} if {}", arena.display(taken))),
        other => lines.push(format!("    {other:?}")),
    }
    lines.join("\n")
}

#[test]
fn effects_read_as_algebra() {
    let code = assemble(|a| {
        a.mov(al, 7)?;
        a.mov(eax, dword_ptr(rdi + rcx * 8 + 0x10))?;
        a.lea(eax, qword_ptr(rdi + rdi * 4 + 3))?;
        a.add(eax, 0x20)?;
        a.cmp(rdi, rsi)?;
        a.sbb(eax, eax)?;
        a.and(eax, -32)?;
        a.shr(ecx, 3)?;
        a.imul_3(edx, esi, 10)?;
        a.mov(byte_ptr(rsi), ah)?;
        a.push(rbx)?;
        a.setg(al)?;
        a.cmovb(eax, ecx)?;
        a.bt(edi, 5)?;
        a.je(0x2000)?;
        a.call(0x3000)?;
        a.ret()
    });
    let texts: Vec<String> = code.iter().map(effect).collect();
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn divisions_raise_exceptions_where_the_processor_does() {
    let code = assemble(|a| {
        a.div(cl)?;
        a.div(ecx)?;
        a.idiv(cl)?;
        a.idiv(rcx)
    });
    // Instruction, rax, rdx, rcx, whether it raises.
    let cases: &[(usize, u64, u64, u64, bool)] = &[
        (0, 0x0100, 0, 0, true),
        (0, 0x01ff, 0, 1, true),
        (0, 0x00ff, 0, 1, false),
        (0, 0x04ff, 0, 5, false),
        (0, 0x0500, 0, 5, true),
        (1, 7, 0, 0, true),
        (1, 0, 1, 1, true),
        (1, u64::MAX, 4, 5, false),
        (1, 0, 5, 5, true),
        (2, 0x0080, 0, 0xff, false),
        (2, 0x0081, 0, 0xff, true),
        (2, 0x0080, 0, 1, true),
        (2, 0x8000, 0, 0xff, true),
        (2, 0xff80, 0, 0xff, true),
        (3, 1 << 63, u64::MAX, u64::MAX, true),
        (3, 1 << 63, u64::MAX, 1, false),
        (3, 0, 1 << 63, u64::MAX, true),
        (3, 100, 0, 7, false),
    ];
    for &(index, accumulator, high, divisor, raises) in cases {
        let mut arena = Arena::new();
        let mut state = State::symbolic(&mut arena);
        step(&mut arena, &mut state, &code[index], &Overrides::new()).unwrap();
        let mut given = Assignment::new();
        for (name, value) in [("rax", accumulator), ("rdx", high), ("rcx", divisor)] {
            given.set(name, u128::from(value));
        }
        let text = format!("{} with rax {accumulator:#x}, rdx {high:#x}, rcx {divisor:#x}", code[index]);
        assert_eq!(arena.eval(state.trap, &given) == 1, raises, "{text}");
    }
}

fn with_override(insn: &Instruction, operand: u32, width: u32) -> (Arena, Result<State, Unsupported>) {
    let mut arena = Arena::new();
    let v = arena.var("V", width);
    let mut overrides = Overrides::new();
    overrides.insert(insn.ip(), operand, v);
    let mut state = State::symbolic(&mut arena);
    let result = step(&mut arena, &mut state, insn, &overrides);
    (arena, result.map(|_| state))
}

#[test]
fn immediates_and_displacements_can_be_terms() {
    let code = assemble(|a| {
        a.add(eax, 5)?;
        a.lea(rax, qword_ptr(rdi + 5))?;
        a.mov(dword_ptr(rdi + 8), 1)?;
        a.shl(eax, 3)?;
        a.mov(rax, 0x32_0000_00fau64)
    });
    let result = |arena: &Arena, state: &State| arena.display(state.gpr[0]);
    let (arena, state) = with_override(&code[0], 1, 32);
    assert_eq!(result(&arena, &state.unwrap()), "u32(V + eax)");
    // A wider term is cut to the operand, a narrower one refused.
    let (arena, state) = with_override(&code[0], 1, 64);
    assert_eq!(result(&arena, &state.unwrap()), "u32(eax + V[31:0])");
    let (_, state) = with_override(&code[0], 1, 8);
    assert!(matches!(state, Err(Unsupported::Instruction { .. })));
    let (arena, state) = with_override(&code[1], 1, 64);
    assert_eq!(result(&arena, &state.unwrap()), "V + rdi");
    let (_, state) = with_override(&code[1], 1, 32);
    assert!(state.unwrap_err().to_string().contains("does not have 64 bits"));
    let (arena, state) = with_override(&code[2], 0, 64);
    assert_eq!(arena.display(state.unwrap().accesses[0].address), "V + rdi");
    let (mut arena, state) = with_override(&code[3], 1, 8);
    let value = state.unwrap().read(&mut arena, Register::EAX).unwrap();
    let mut given = Assignment::new();
    given.set("rax", 3);
    given.set("V", 33);
    assert_eq!(arena.eval(value, &given), 6, "counts are masked");
    let (arena, state) = with_override(&code[4], 1, 64);
    assert_eq!(result(&arena, &state.unwrap()), "V");
}

#[test]
fn a_frame_is_kept_apart() {
    let code = assemble(|a| {
        a.push(rbx)?;
        a.mov(dword_ptr(rsp + 0x10), edi)?;
        a.mov(qword_ptr(rsi), rdx)?;
        a.mov(eax, dword_ptr(rsp + 0x10))
    });
    let mut arena = Arena::new();
    let mut state = State::symbolic(&mut arena);
    let memory = state.memory;
    state.frame = Some(Frame { base: state.gpr[4], memory: arena.memory("frame") });
    let start = state.clone();
    for insn in &code {
        step(&mut arena, &mut state, insn, &Overrides::new()).unwrap();
    }
    assert_eq!(arena.display(state.gpr[0]), "edi", "the store through rsi is not into the frame");
    assert_eq!(arena.writes(state.memory), [(start.gpr[6], start.gpr[2])]);
    assert_ne!(state.memory, memory);
    // What differs in the frame only is a difference; so is a frame on one side only.
    let mut other = state.clone();
    other.frame = start.frame;
    let claim = equal_states(&mut arena, &state, &other, &LiveSet::NONE);
    assert_ne!(arena.as_constant(claim), Some(1));
    other.frame = None;
    let claim = equal_states(&mut arena, &state, &other, &LiveSet::NONE);
    assert_eq!(arena.as_constant(claim), Some(0));
    // Frames that do not match leave nothing known.
    let condition = arena.var("c", 1);
    let merged = state.merge(&mut arena, condition, &other).frame.unwrap();
    assert!(merged.memory != state.frame.unwrap().memory && merged.base == start.gpr[4]);
}

#[test]
fn registers_keep_the_rules_of_their_parts() {
    let mut arena = Arena::new();
    let mut state = State::symbolic(&mut arena);
    let old = state.gpr[0];
    let byte = arena.constant(0xab, 8);
    state.write(&mut arena, Register::AH, byte).unwrap();
    assert_eq!(state.read(&mut arena, Register::AH), Some(byte));
    let low = arena.extract(old, 7, 0);
    assert_eq!(state.read(&mut arena, Register::AL), Some(low));
    state.write(&mut arena, Register::AL, low).unwrap();
    let word = arena.constant(0x1234, 32);
    state.write(&mut arena, Register::EAX, word).unwrap();
    assert_eq!(arena.as_constant(state.gpr[0]), Some(0x1234), "32-bit writes clear the upper half");
    assert_eq!(state.read(&mut arena, Register::XMM0), None);
}

#[test]
fn what_has_no_meaning_here_says_so() {
    let code = assemble(|a| {
        a.rdtsc()?;
        a.movaps(xmm0, xmm1)?;
        a.rep().stosq()?;
        a.mov(rax, cr0)
    });
    for insn in code.iter() {
        let mut arena = Arena::new();
        let mut state = State::symbolic(&mut arena);
        let error = step(&mut arena, &mut state, insn, &Overrides::new()).unwrap_err();
        assert!(error.to_string().starts_with(&format!("no semantics for `{insn}` at {:#x}: ", insn.ip())), "{error}");
    }
}
