//! Every covered instruction, in every width and addressing form, against this processor.

use iced_x86::{Code, Encoder, Instruction, Mnemonic, OpCodeOperandKind as Kind, OpKind, Register};
use kerf_semantics::native::{CheckError, Machine, NativeError, check, check_with};

/// What the engine claims to know. Branches are tested elsewhere: they cannot run in the page.
const COVERED: &[Mnemonic] = {
    use Mnemonic as M;
    &[
        M::Mov,
        M::Movzx,
        M::Movsx,
        M::Movsxd,
        M::Lea,
        M::Add,
        M::Adc,
        M::Sub,
        M::Sbb,
        M::Cmp,
        M::Test,
        M::And,
        M::Or,
        M::Xor,
        M::Not,
        M::Neg,
        M::Inc,
        M::Dec,
        M::Imul,
        M::Mul,
        M::Div,
        M::Idiv,
        M::Shl,
        M::Sal,
        M::Shr,
        M::Sar,
        M::Rol,
        M::Ror,
        M::Shld,
        M::Shrd,
        M::Seta,
        M::Setae,
        M::Setb,
        M::Setbe,
        M::Sete,
        M::Setne,
        M::Setg,
        M::Setge,
        M::Setl,
        M::Setle,
        M::Seto,
        M::Setno,
        M::Setp,
        M::Setnp,
        M::Sets,
        M::Setns,
        M::Cmova,
        M::Cmovae,
        M::Cmovb,
        M::Cmovbe,
        M::Cmove,
        M::Cmovne,
        M::Cmovg,
        M::Cmovge,
        M::Cmovl,
        M::Cmovle,
        M::Cmovo,
        M::Cmovno,
        M::Cmovp,
        M::Cmovnp,
        M::Cmovs,
        M::Cmovns,
        M::Push,
        M::Pop,
        M::Leave,
        M::Cbw,
        M::Cwde,
        M::Cdqe,
        M::Cwd,
        M::Cdq,
        M::Cqo,
        M::Bt,
        M::Bts,
        M::Btr,
        M::Btc,
        M::Bsf,
        M::Bsr,
        M::Tzcnt,
        M::Lzcnt,
        M::Popcnt,
        M::Xchg,
        M::Xadd,
        M::Cmpxchg,
        M::Bswap,
        M::Nop,
        M::Endbr64,
        M::Andn,
        M::Blsr,
        M::Blsi,
        M::Blsmsk,
        M::Shlx,
        M::Shrx,
        M::Sarx,
        M::Rorx,
    ]
};

/// Encodings of covered mnemonics that the engine refuses by design.
fn is_out_of_scope(code: Code) -> bool {
    let name = format!("{code:?}");
    // Encodings of another processor family and of extensions to come.
    if name.starts_with("VEX_KNC") || name.starts_with("MVEX") || name.starts_with("EVEX") {
        return true;
    }
    // Segment, control, debug and test registers, and far pushes.
    let system = ["Sreg", "_cr", "cr_", "_dr", "dr_", "_tr", "tr_", "FS", "GS"].iter().any(|part| name.contains(part));
    system
        || matches!(
            code,
            Code::Push_rm16 | Code::Push_r16 | Code::Pushw_imm8 | Code::Push_imm16 | Code::Pop_rm16 | Code::Pop_r16
                | Code::Leavew | Code::Bswap_r16
                // Absolute 64-bit addresses do not reach the data page by themselves.
                | Code::Mov_AL_moffs8 | Code::Mov_AX_moffs16 | Code::Mov_EAX_moffs32 | Code::Mov_RAX_moffs64
                | Code::Mov_moffs8_AL | Code::Mov_moffs16_AX | Code::Mov_moffs32_EAX | Code::Mov_moffs64_RAX
        )
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    fn register(&mut self, bits: u32) -> Register {
        let number = self.below(16) as u32;
        match bits {
            // 8-bit registers are numbered with the high ones between bl and spl.
            8 => Register::AL + self.below(20) as u32,
            16 => Register::AX + number,
            32 => Register::EAX + number,
            _ => Register::RAX + number,
        }
    }

    fn immediate(&mut self) -> u64 {
        let power = 1u64 << self.below(64);
        self.of(&[0, 1, u64::MAX, power, power - 1, power.wrapping_neg(), 31, 32, 63, 0x80, 0x7fff_ffff, 17])
    }
}

fn memory(insn: &mut Instruction, op: u32, random: &mut Random) {
    insn.set_op_kind(op, OpKind::Memory);
    let shape = random.below(8);
    let base = random.register(64);
    let mut index = random.register(64);
    while index == Register::RSP {
        index = random.register(64);
    }
    let (base, index) = match shape {
        0..=2 => (base, Register::None),
        3 | 4 => (base, index),
        5 => (Register::None, index),
        6 => (Register::RIP, Register::None),
        _ => (Register::None, Register::None),
    };
    insn.set_memory_base(base);
    insn.set_memory_index(index);
    insn.set_memory_index_scale(if index == Register::None { 1 } else { random.of(&[1, 2, 4, 8]) });
    let displacement: i64 = random.of(&[0, 8, -8, 127, -128, 0x1000, -0x7654_3210]);
    if displacement != 0 || base == Register::None || index != Register::None {
        let wide = base == Register::None || i8::try_from(displacement).is_err();
        insn.set_memory_displ_size(if wide { 8 } else { 1 });
        insn.set_memory_displacement64(displacement as u64);
    }
    if base == Register::RIP || base == Register::None && index == Register::None {
        insn.set_memory_displ_size(8);
        insn.set_memory_displacement64(0x1234);
    }
    if random.below(6) == 0 {
        insn.set_segment_prefix(Register::GS);
    }
}

/// An instruction of this encoding with random operands; `None` where an operand is outside integer code.
fn build(code: Code, random: &mut Random) -> Option<Instruction> {
    let mut insn = Instruction::default();
    insn.set_code(code);
    let op_code = code.op_code();
    for op in 0..op_code.op_count() {
        let register = |insn: &mut Instruction, register| {
            insn.set_op_kind(op, OpKind::Register);
            insn.set_op_register(op, register);
        };
        let either = |insn: &mut Instruction, random: &mut Random, bits| {
            if random.below(2) == 0 {
                register(insn, random.register(bits));
            } else {
                memory(insn, op, random);
            }
        };
        let immediate = |insn: &mut Instruction, kind, value: u64| {
            insn.set_op_kind(op, kind);
            match kind {
                OpKind::Immediate8 => insn.set_immediate8(value as u8),
                OpKind::Immediate8to16 => insn.set_immediate8to16(value as i8 as i16),
                OpKind::Immediate8to32 => insn.set_immediate8to32(value as i8 as i32),
                OpKind::Immediate8to64 => insn.set_immediate8to64(value as i8 as i64),
                OpKind::Immediate16 => insn.set_immediate16(value as u16),
                OpKind::Immediate32 => insn.set_immediate32(value as u32),
                OpKind::Immediate32to64 => insn.set_immediate32to64(value as i32 as i64),
                _ => insn.set_immediate64(value),
            }
        };
        match op_code.op_kind(op) {
            Kind::r8_or_mem => either(&mut insn, random, 8),
            Kind::r16_or_mem => either(&mut insn, random, 16),
            Kind::r32_or_mem => either(&mut insn, random, 32),
            Kind::r64_or_mem => either(&mut insn, random, 64),
            Kind::mem => memory(&mut insn, op, random),
            Kind::r8_reg | Kind::r8_opcode => register(&mut insn, random.register(8)),
            Kind::r16_reg | Kind::r16_opcode | Kind::r16_rm => register(&mut insn, random.register(16)),
            Kind::r32_reg | Kind::r32_opcode | Kind::r32_rm | Kind::r32_vvvv => {
                register(&mut insn, random.register(32))
            }
            Kind::r64_reg | Kind::r64_opcode | Kind::r64_rm | Kind::r64_vvvv => {
                register(&mut insn, random.register(64))
            }
            Kind::al => register(&mut insn, Register::AL),
            Kind::cl => register(&mut insn, Register::CL),
            Kind::ax => register(&mut insn, Register::AX),
            Kind::eax => register(&mut insn, Register::EAX),
            Kind::rax => register(&mut insn, Register::RAX),
            Kind::imm8 => immediate(&mut insn, OpKind::Immediate8, random.immediate()),
            Kind::imm8_const_1 => immediate(&mut insn, OpKind::Immediate8, 1),
            Kind::imm8sex16 => immediate(&mut insn, OpKind::Immediate8to16, random.immediate()),
            Kind::imm8sex32 => immediate(&mut insn, OpKind::Immediate8to32, random.immediate()),
            Kind::imm8sex64 => immediate(&mut insn, OpKind::Immediate8to64, random.immediate()),
            Kind::imm16 => immediate(&mut insn, OpKind::Immediate16, random.immediate()),
            Kind::imm32 => immediate(&mut insn, OpKind::Immediate32, random.immediate()),
            Kind::imm32sex64 => immediate(&mut insn, OpKind::Immediate32to64, random.immediate()),
            Kind::imm64 => immediate(&mut insn, OpKind::Immediate64, random.immediate()),
            _ => return None,
        }
    }
    let locks = op_code.can_use_lock_prefix() && insn.op0_kind() == OpKind::Memory && random.below(2) == 0;
    insn.set_has_lock_prefix(locks);
    Some(insn)
}

#[test]
fn every_covered_form_agrees_with_this_processor() {
    let mut machine = Machine::new().expect("pages to run code in");
    let mut random = Random(0x1234_5678_9abc_def1);
    let (mut forms, mut checked, mut absent) = (0, 0, 0);
    for code in Code::values() {
        let op_code = code.op_code();
        if !COVERED.contains(&code.mnemonic()) || !op_code.mode64() || is_out_of_scope(code) {
            continue;
        }
        let mut variants = 0;
        for attempt in 0..16u64 {
            let Some(insn) = build(code, &mut random) else { break };
            let mut encoder = Encoder::new(64);
            // High-byte registers cannot meet a REX prefix.
            if encoder.encode(&insn, 0x2000_0000).is_err() {
                continue;
            }
            let bytes = encoder.take_buffer();
            match check_with(&mut machine, &bytes, 0x5eed + attempt, 8) {
                Ok(()) => variants += 1,
                Err(CheckError::Native(NativeError::Refused { reason, .. })) if reason.contains("processor") => {
                    absent += 1;
                    variants += 1;
                }
                // A stack pointer that is also the scaled operand, and the like: another variant will do.
                Err(CheckError::NoState { .. }) => {}
                Err(error) => panic!("{code:?} {bytes:02x?}: {error}"),
            }
        }
        if op_code.op_count() == 0 || variants > 0 {
            forms += 1;
        }
        checked += variants;
        assert!(variants >= 3, "{code:?} has been checked in {variants} variants only");
    }
    println!("{forms} encodings, {checked} instructions, {absent} not on this processor");
    assert!(forms > 300, "only {forms} encodings were found");
}

#[test]
fn sequences_agree_too() {
    // cmp $1,%cl; sbb %eax,%eax; and $-32,%eax; add $64,%eax; cmp %ax,%dx
    let plug_limit = [0x80, 0xf9, 1, 0x19, 0xc0, 0x83, 0xe0, 0xe0, 0x83, 0xc0, 0x40, 0x66, 0x39, 0xc2];
    check(&plug_limit, 1, 500).unwrap();
    // push %rbx; mov %rsp,%rbx; pop %rcx; mov -8(%rbx,%rcx,0),… would leave the page: only the stack is used here.
    check(&[0x53, 0x48, 0x89, 0xe3, 0x59, 0x51, 0x58], 2, 100).unwrap();
}

#[test]
fn what_could_do_harm_is_refused() {
    let refused: &[(&[u8], &str)] = &[
        (&[0xeb, 0x00], "a jump"),
        (&[0xe8, 0, 0, 0, 0], "a call"),
        (&[0xc3], "a return"),
        (&[0x0f, 0x05], "a system call"),
        (&[0xcc], "a breakpoint"),
        (&[0xf4], "hlt"),
        (&[0xfa], "cli"),
        (&[0x64, 0x48, 0x8b, 0x00], "a load through fs"),
        (&[0x8e, 0xd8], "a segment register"),
        (&[0x0f, 0x22, 0xd8], "a control register"),
        (&[0xf3, 0xa4], "a string instruction"),
        (&[0x9d], "popf"),
        (&[0xfd], "std"),
        (&[0x0f, 0x01, 0xd0], "xgetbv"),
    ];
    for (bytes, what) in refused {
        assert!(matches!(check(bytes, 1, 1), Err(CheckError::Native(_))), "{what} was not refused");
    }
    assert!(matches!(check(&[0x48], 1, 1), Err(CheckError::Native(NativeError::Decode(_)))));
}

#[test]
fn accesses_outside_the_page_are_refused() {
    let mut machine = Machine::new().unwrap();
    let program = machine.load(&[0x48, 0x8b, 0x07]).unwrap(); // mov (%rdi),%rax
    let mut start = kerf_semantics::native::Concrete { gpr: [0; 16], flags: [false; 6], data: Box::new([7; 4096]) };
    for address in [0, machine.data() - 1, machine.data() + 4089, u64::MAX] {
        start.gpr[7] = address;
        assert!(matches!(machine.run(&program, &start), Err(NativeError::Outside { .. })), "{address:#x}");
    }
    start.gpr[7] = machine.data() + 4088;
    assert_eq!(machine.run(&program, &start).unwrap().gpr[0], 0x0707_0707_0707_0707);
}

#[test]
fn only_the_program_loaded_last_runs() {
    let mut machine = Machine::new().unwrap();
    let first = machine.load(&[0x90]).unwrap();
    machine.load(&[0x48, 0x8b, 0x07]).unwrap();
    let start = kerf_semantics::native::Concrete { gpr: [0; 16], flags: [false; 6], data: Box::new([0; 4096]) };
    assert!(matches!(machine.run(&first, &start), Err(NativeError::NotLoaded)));
}
