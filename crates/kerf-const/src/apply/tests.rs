//! Settings of hand-made entries, and of random ones decoded back.

use iced_x86::{Code, Encoder, MemoryOperand, Register};
use proptest::prelude::*;

use kerf_live::{Argument, Number};

use super::*;
use crate::entry::{ImageName, Interval, Proof, Window, to_hex};
use crate::entry::{Parameter, Place};
use crate::site::SiteKind;

pub(crate) const BUILD: &str = "764949bbe8b7a9241512fbf3b0d66d0ba34686a8";

/// A proved entry with the given spans.
pub(crate) fn entry(name: &str, value: i128, domain: (i128, i128), spans: Vec<Span>) -> Entry {
    Entry {
        id: format!("block/{}.c:L1:{value}:0", name.to_lowercase()),
        name: Some(name.into()),
        file: format!("block/{}.c", name.to_lowercase()),
        line: 1,
        value,
        kind: SiteKind::Macro,
        class: Class::Proved,
        reason: "1 span; 9 compiled values agree".into(),
        image: ImageName {
            build_id: BUILD.into(),
            release: "6.12.1-test".into(),
            text: 0xffff_ffff_8100_0000,
            module: None,
        },
        domain: vec![Interval { min: domain.0, max: domain.1 }],
        safe_spans: (0..spans.len()).map(|n| safe_span(vec![n], false, 0x65_0925 + 0x40 * n as u64)).collect(),
        spans,
        units: vec!["block/x.c".into()],
        text: value.to_string(),
        governed: Vec::new(),
    }
}

/// A span over the first `covered` bytes at 0x25 of a function at 0x650900; the window is all of `code`.
pub(crate) fn span(code: &[u8], covered: usize, iv: Vec<Iv>) -> Span {
    let window = if code.len() < 5 {
        Window { start: 0, bytes: String::new(), refused: "it is too short for a jump".into() }
    } else {
        Window { start: 0x25, bytes: to_hex(code), refused: String::new() }
    };
    Span {
        unit: String::new(),
        function: "blk_add_rq_to_plug".into(),
        function_offset: 0x65_0900,
        start: 0x25,
        end: 0x25 + covered as u64,
        bytes: to_hex(&code[..covered]),
        expression: "eax ← eax & −V; eax ← eax + 2V".into(),
        iv,
        updates: Vec::new(),
        proof: Proof { variants: 9, held_out: 3, smt: true, native: 100 },
        absolute: Vec::new(),
        window,
        parameters: Vec::new(),
    }
}

pub(crate) fn iv(offset: u64, bits: u32, stock: i64, field: Option<(u8, u8)>, a: i128, b: i128) -> Iv {
    Iv { form: Form::Affine { a, b }, offset, slot: SlotName::Immediate, bits, stock, field, chained: false }
}

/// `and $-32, %eax; add $64, %eax; cmp %ax, %dx; jae +5`
pub(crate) fn plug_limit() -> Entry {
    let code = [0x83, 0xe0, 0xe0, 0x83, 0xc0, 0x40, 0x66, 0x39, 0xc2, 0x73, 0x05];
    let ivs = vec![iv(0x25, 32, -32, Some((2, 1)), -1, 0), iv(0x28, 32, 64, Some((2, 1)), 2, 0)];
    entry("BLK_MAX_REQUEST_COUNT", 32, (1, 1024), vec![span(&code, 6, ivs)])
}

fn set(entry: &Entry, value: i128) -> Result<kerf_live::Entry, ConstError> {
    live_entry(entry, Setting::Value(value), Choice::Cheapest, &Running::default())
}

/// A policy decides both numbers of the plug limit, in the order of their instructions.
#[test]
fn decided_numbers_are_marked() {
    let mut entry = plug_limit();
    entry.spans[0].parameters = vec![
        Parameter { name: "plug".into(), type_name: "struct blk_plug *".into(), place: Place::Register("rdi".into()) },
        Parameter { name: "rq".into(), type_name: "struct request *".into(), place: Place::Stack(16) },
        Parameter { name: "flags".into(), type_name: "int".into(), place: Place::Gone },
    ];
    let of = |limits, reads: &[usize]| {
        decided_entry(&entry, 7, limits, &reads.iter().copied().collect(), &Running::default())
    };
    let live = of((None, Some(100)), &[1]).unwrap();
    let decider = live.decider.as_ref().unwrap();
    assert_eq!((decider.program, decider.stock, decider.ranges.as_slice()), (Some(7), 32, &[(1, 100)][..]));
    assert_eq!(decider.forms, [Number::Affine { a: -1, b: 0 }, Number::Affine { a: 2, b: 0 }]);
    let [Location { change: Change::Decided { marks, arguments, .. }, .. }] = live.locations.as_slice() else {
        panic!("{:?}", live.locations)
    };
    assert_eq!(
        marks.iter().map(|m| (m.instruction, m.part, m.form, m.bits)).collect::<Vec<_>>(),
        [(0, 0, 0, 32), (1, 0, 1, 32)]
    );
    assert_eq!(arguments, &[Argument::Register(7), Argument::Stack(16)]);
    let error = of((None, None), &[2]).unwrap_err().to_string();
    assert!(error.contains("`int flags`") && error.contains("PT_REGS_PARM2 is `rq`"), "{error}");
    assert!(of((None, None), &[4]).unwrap_err().to_string().contains("argument 5"));
    let error = of((Some(2000), None), &[]).unwrap_err().to_string();
    assert!(error.contains("no certified value") && error.contains("1..1024"), "{error}");
}

fn shown(location: &Location) -> String {
    match &location.change {
        Change::Immediate { field_offset, bytes } => {
            format!("{:#x} {} at {field_offset} {}", location.image_offset, to_hex(&location.expected), to_hex(bytes))
        }
        Change::Detour { instructions } => {
            let new: Vec<String> = instructions.iter().map(|i| to_hex(&i.bytes)).collect();
            format!("{:#x} {} to {}", location.image_offset, to_hex(&location.expected), new.join(" "))
        }
        Change::Decided { instructions, marks, arguments, .. } => {
            let new: Vec<String> = instructions.iter().map(|i| to_hex(&i.bytes)).collect();
            let (at, old) = (location.image_offset, to_hex(&location.expected));
            format!("{at:#x} {old} to {} with {marks:?} {arguments:?}", new.join(" "))
        }
    }
}

fn all_shown(live: &kerf_live::Entry) -> Vec<String> {
    live.locations.iter().map(shown).collect()
}

#[test]
fn numbers_that_fit_go_into_the_instructions() {
    let live = set(&plug_limit(), 4).unwrap();
    assert_eq!((live.id.as_str(), live.value), ("BLK_MAX_REQUEST_COUNT", 4));
    assert_eq!(all_shown(&live), ["0x650925 83e0e0 at 2 fc", "0x650928 83c040 at 2 08"]);
    assert_eq!(live.between, [Range { target: Target::Kernel, start: 0x65_0926, end: 0x65_092b }]);
}

#[test]
fn numbers_that_do_not_fit_make_a_detour() {
    let live = set(&plug_limit(), 128).unwrap();
    let expected = "0x650925 83e0e083c0406639c27305 to 83e080 81c000010000 6639c2 0f8300000000";
    assert_eq!(all_shown(&live), [expected]);
    assert!(live.between.is_empty());
}

#[test]
fn the_placement_can_be_chosen() {
    let chosen = |choice, value| live_entry(&plug_limit(), Setting::Value(value), choice, &Running::default());
    let live = chosen(Choice::Detour, 4).unwrap();
    assert_eq!(all_shown(&live), ["0x650925 83e0e083c0406639c27305 to 83e0fc 83c008 6639c2 0f8300000000"]);
    let error = chosen(Choice::Immediate, 128).unwrap_err().to_string();
    assert!(error.contains("the number 256 does not fit the 8-bit field of blk_add_rq_to_plug+0x28"), "{error}");
}

#[test]
fn the_range_of_the_immediates_is_known() {
    let entry = plug_limit();
    assert_eq!(immediate_range(&entry, &entry.spans[0]), Some((1, 63)));
}

#[test]
fn without_a_window_the_reason_is_given() {
    // cmp $10, %al... with an immediate that a value of the domain outgrows
    let code = [0x83, 0xf8, 0x0a];
    let entry = entry("SHORT", 10, (1, 1000), vec![span(&code, 3, vec![iv(0x25, 32, 10, Some((2, 1)), 1, 0)])]);
    let error = set(&entry, 200).unwrap_err();
    assert!(matches!(error, ConstError::OutsideDomain { .. }), "{error}");
    assert!(error.to_string().contains("no detour is possible: it is too short for a jump"), "{error}");
}

#[test]
fn windows_that_overlap_become_one_detour() {
    // cmp $10, %eax; cmp $10, %ecx; cmp $10, %edx: the first two windows share the middle instruction
    let code = [0x83, 0xf8, 0x0a, 0x83, 0xf9, 0x0a, 0x83, 0xfa, 0x0a];
    let mut first = span(&code[..6], 3, vec![iv(0x25, 32, 10, Some((2, 1)), 1, 0)]);
    let mut last = span(&code[3..], 6, vec![iv(0x2b, 32, 10, Some((2, 1)), 1, 0)]);
    first.expression = String::new();
    (last.start, last.end, last.window.start) = (0x28, 0x2e, 0x28);
    let entry = entry("TWICE", 10, (1, 1000), vec![first, last]);
    let live = set(&entry, 300).unwrap();
    assert_eq!(all_shown(&live), ["0x650925 83f80a83f90a83fa0a to 81f82c010000 83f90a 81fa2c010000"]);
    assert_eq!(all_shown(&set(&entry, 11).unwrap()), ["0x650925 83f80a at 2 0b", "0x65092b 83fa0a at 2 0b"]);
}

#[test]
fn link_addresses_move_with_the_kernel() {
    // cmp $10, %eax; mov $0x81001234, %rdi
    let code = [0x83, 0xf8, 0x0a, 0x48, 0xc7, 0xc7, 0x34, 0x12, 0x00, 0x81];
    let mut span = span(&code, 3, vec![iv(0x25, 32, 10, Some((2, 1)), 1, 0)]);
    span.absolute = vec![0x25 + 6];
    let entry = entry("MOVED", 10, (1, 1000), vec![span]);
    let running = Running { slide: 0x0a00_0000, module: None };
    let live = live_entry(&entry, Setting::Value(300), Choice::Cheapest, &running).unwrap();
    assert_eq!(all_shown(&live), ["0x650925 83f80a48c7c73412008b to 81f82c010000 48c7c73412008b"]);
}

#[test]
fn constants_packed_into_one_immediate_own_their_part() {
    // movabs $0x32000000fa, %rax
    let mut code = vec![0x48, 0xb8];
    code.extend(0x32_0000_00fai64.to_le_bytes());
    let of = |a, b, value| {
        let ivs = vec![iv(0x25, 64, 0x32_0000_00fa, Some((2, 8)), a, b)];
        entry("PACKED", value, (1, 10_000), vec![span(&code, 10, ivs)])
    };
    let high = set(&of(1 << 32, 0xfa, 50), 51).unwrap();
    assert_eq!(all_shown(&high), ["0x650925 48b8fa00000032000000 at 6 33000000"]);
    let low = set(&of(1, 0x32_0000_0000, 250), 251).unwrap();
    assert_eq!(all_shown(&low), ["0x650925 48b8fa00000032000000 at 2 fb000000"]);
}

#[test]
fn an_instruction_without_a_field_is_replaced() {
    // shr $1, %eax; mov %eax, %edx; nop
    let code = [0xd1, 0xe8, 0x89, 0xc2, 0x90];
    let entry = entry("SHIFT", 1, (1, 20), vec![span(&code, 2, vec![iv(0x25, 8, 1, None, 1, 0)])]);
    assert_eq!(all_shown(&set(&entry, 3).unwrap()), ["0x650925 d1e889c290 to c1e803 89c2 90"]);
    assert!(matches!(set(&entry, 32), Err(ConstError::OutsideDomain { .. })));
}

#[test]
fn derived_numbers_are_set_alone() {
    let setting = Setting::Derived { index: 1, number: 16 };
    check(&plug_limit(), setting).unwrap();
    let live = live_entry(&plug_limit(), setting, Choice::Cheapest, &Running::default()).unwrap();
    assert_eq!(live.id, "BLK_MAX_REQUEST_COUNT@1");
    assert_eq!(all_shown(&live), ["0x650925 83e0e0 at 2 e0", "0x650928 83c040 at 2 10"]);
    let refused = |index, number| check(&plug_limit(), Setting::Derived { index, number }).unwrap_err().to_string();
    assert!(refused(1, 17).contains("no certified value makes 2V that number; it goes from 2 to 2048"));
    assert!(refused(2, 4).contains("has 2 derived numbers"));
}

#[test]
fn what_is_not_certified_is_refused() {
    let mut entry = plug_limit();
    assert!(check(&entry, Setting::Value(1024)).is_ok());
    let error = check(&entry, Setting::Value(1025)).unwrap_err().to_string();
    assert_eq!(error, "BLK_MAX_REQUEST_COUNT cannot be set to 1025: certified are the values 1..1024");
    entry.class = Class::Data;
    assert!(matches!(check(&entry, Setting::Value(4)), Err(ConstError::NotSettable { .. })));
}

/// Each corruption of an entry is noticed.
#[test]
fn an_entry_that_contradicts_itself_is_refused() {
    type Damage = (&'static str, fn(&mut Span));
    let damages: [Damage; 7] = [
        ("form", |s| s.iv[0].form = Form::Affine { a: -1, b: 1 }),
        ("offset", |s| s.iv[1].offset += 1),
        ("outside", |s| s.iv[1].offset = 0x90),
        ("stock", |s| s.iv[1].stock = 65),
        ("bits", |s| s.iv[1].bits = 64),
        ("bytes", |s| s.bytes.replace_range(4..6, "e1")),
        ("hex", |s| s.bytes.replace_range(4..6, "zz")),
    ];
    for (what, damage) in damages {
        let mut entry = plug_limit();
        damage(&mut entry.spans[0]);
        assert!(matches!(set(&entry, 4), Err(ConstError::Damaged { .. })), "{what}");
    }
}

#[test]
fn a_module_is_compared_with_what_is_loaded() {
    let mut entry = plug_limit();
    entry.image.module = Some("test".into());
    assert!(matches!(set(&entry, 4), Err(ConstError::NotSettable { .. })));
    let loaded = |code: &'static [u8]| {
        move |offset: u64, len: usize| code.get((offset - 0x65_0925) as usize..)?.get(..len).map(<[u8]>::to_vec)
    };
    let with = |read: &dyn Fn(u64, usize) -> Option<Vec<u8>>| {
        let module = Some(ModuleText { build_id: BUILD.parse().unwrap(), read });
        live_entry(&entry, Setting::Value(4), Choice::Cheapest, &Running { slide: 0, module })
    };
    let same = loaded(&[0x83, 0xe0, 0xe0, 0x83, 0xc0, 0x40, 0x66, 0x39, 0xc2, 0x73, 0x05]);
    assert!(matches!(with(&same).unwrap().locations[0].target, Target::Module { .. }));
    let other = loaded(&[0x83, 0xe0, 0xe1, 0x83, 0xc0, 0x40, 0x66, 0x39, 0xc2, 0x73, 0x05]);
    assert!(matches!(with(&other), Err(ConstError::Damaged { .. })));
}

#[test]
fn loaded_code_may_differ_in_relocated_fields_only() {
    // call 0; mov 0(%rip), %eax; mov $0, %rdi
    let file = [0xe8, 0, 0, 0, 0, 0x8b, 0x05, 0, 0, 0, 0, 0x48, 0xc7, 0xc7, 0, 0, 0, 0];
    let mut loaded = file;
    loaded[1..5].fill(7);
    loaded[7..11].fill(8);
    assert!(encode::same_but_relocated(&file, &loaded, &[]));
    loaded[14..18].fill(9);
    assert!(!encode::same_but_relocated(&file, &loaded, &[]));
    assert!(encode::same_but_relocated(&file, &loaded, &[14]));
    loaded[5] = 0x89;
    assert!(!encode::same_but_relocated(&file, &loaded, &[14]));
}

fn instruction(code: Code, first: Register, number: i32) -> Instruction {
    use Instruction as I;
    match code {
        Code::Imul_r32_rm32_imm8 | Code::Imul_r64_rm64_imm8 => I::with3(code, first, first, number),
        Code::Lea_r32_m | Code::Lea_r64_m => {
            let displacement = i64::from(number);
            let size = if displacement == 0 { 0 } else { 1 };
            let base = MemoryOperand::with_base_displ_size(first.full_register(), displacement, size);
            I::with2(code, first, base)
        }
        _ => I::with2(code, first, number),
    }
    .expect("the operands suit the code")
}

fn forms() -> impl Strategy<Value = (Code, Register)> {
    let wide = [Register::RAX, Register::RBX, Register::RDI, Register::R8, Register::R12, Register::R13, Register::R15];
    let codes = [
        Code::Add_rm32_imm8,
        Code::Sub_rm64_imm8,
        Code::Cmp_rm64_imm8,
        Code::And_rm32_imm8,
        Code::Cmp_rm16_imm8,
        Code::Imul_r32_rm32_imm8,
        Code::Imul_r64_rm64_imm8,
        Code::Mov_rm64_imm32,
        Code::Mov_r32_imm32,
        Code::Lea_r32_m,
        Code::Lea_r64_m,
    ];
    (proptest::sample::select(codes.to_vec()), proptest::sample::select(wide.to_vec())).prop_map(|(code, register)| {
        let narrow = match code {
            Code::Cmp_rm16_imm8 => register.full_register32() as usize - Register::EAX as usize + Register::AX as usize,
            Code::Add_rm32_imm8 | Code::And_rm32_imm8 | Code::Imul_r32_rm32_imm8 | Code::Mov_r32_imm32 => {
                register.full_register32() as usize
            }
            Code::Lea_r32_m => register.full_register32() as usize,
            _ => register as usize,
        };
        (code, Register::values().nth(narrow).expect("a register"))
    })
}

proptest! {
    /// What is encoded for a trampoline decodes to the same operation on the same registers with the wanted number.
    #[test]
    fn rewritten_instructions_decode_to_what_was_wanted((code, register) in forms(), stock in -100i32..100, want: i32) {
        prop_assume!(stock != 0 || !matches!(code, Code::Lea_r32_m | Code::Lea_r64_m));
        let insn = instruction(code, register, stock);
        let mut encoder = Encoder::new(64);
        encoder.encode(&insn, 0).unwrap();
        let bytes = encoder.take_buffer();
        let insn = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
        let (slot, name) = match code {
            Code::Lea_r32_m | Code::Lea_r64_m => (Slot::Displacement, SlotName::Displacement),
            _ => (Slot::Immediate, SlotName::Immediate),
        };
        let want = wrap(want.into(), align::slot_bits(&insn, slot));
        let new = encode::moved(&insn, &bytes, &[(name, want)], &[]).unwrap();
        let decoded = Decoder::new(64, &new, DecoderOptions::NONE).decode();
        prop_assert_eq!(decoded.len(), new.len());
        prop_assert_eq!(decoded.mnemonic(), insn.mnemonic());
        prop_assert_eq!(decoded.op0_register(), insn.op0_register());
        prop_assert_eq!(decoded.memory_base(), insn.memory_base());
        let bits = align::slot_bits(&insn, slot);
        prop_assert_eq!(encode::number(&decoded, slot).map(|n| wrap(n.into(), bits)), Some(want));
    }

    /// Whatever value is set, the windows hold stock bytes, and immediates keep the instruction's length.
    #[test]
    fn every_value_of_the_plug_limit_is_placed(value in 1i128..1024) {
        let live = set(&plug_limit(), value).unwrap();
        for location in &live.locations {
            let mut bytes = location.expected.clone();
            match &location.change {
                Change::Immediate { field_offset, bytes: new } => {
                    bytes[*field_offset..field_offset + new.len()].copy_from_slice(new);
                    let insn = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
                    let number = i128::from(encode::number(&insn, Slot::Immediate).unwrap());
                    prop_assert!(number == -value || number == 2 * value);
                }
                Change::Detour { instructions } => {
                    let all: Vec<u8> = instructions.iter().take(2).flat_map(|i| i.bytes.clone()).collect();
                    let insns: Vec<Instruction> = Decoder::new(64, &all, DecoderOptions::NONE).into_iter().collect();
                    prop_assert_eq!(encode::number(&insns[0], Slot::Immediate), Some(-value as i64));
                    prop_assert_eq!(encode::number(&insns[1], Slot::Immediate), Some(2 * value as i64));
                }
                Change::Decided { .. } => prop_assert!(false, "nobody decides"),
            }
        }
    }

    /// No bytes and no numbers make the encoder panic.
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 1..16), want: i64, displacement: bool) {
        let insn = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
        let slot = if displacement { SlotName::Displacement } else { SlotName::Immediate };
        let _ = encode::moved(&insn, &bytes, &[(slot, want)], &[]);
        let _ = encode::same_but_relocated(&bytes, &bytes, &[]);
    }
}

fn operation_of(bytes: &[u8], factor: i64, scratch: &[Register]) -> Result<String, String> {
    let insn = Decoder::with_ip(64, bytes, 0x10, DecoderOptions::NONE).decode();
    let mut wanted = vec![(SlotName::Factor, factor)];
    if insn.mnemonic() == iced_x86::Mnemonic::Lea {
        wanted.push((SlotName::Displacement, factor));
    }
    encode::moved(&insn, bytes, &wanted, scratch).map(|code| to_hex(&code))
}

/// The sequences that the module knows.
#[test]
fn operations_become_what_the_module_knows() {
    use Register::{R8, R9, RAX, RCX, RDX};
    let lea = [0x8d, 0x0c, 0xfd, 8, 0, 0, 0];
    assert_eq!(operation_of(&lea, 100, &[]).unwrap(), "69cf6400000081c164000000");
    assert_eq!(operation_of(&[0xc1, 0xe0, 6], 100, &[]).unwrap(), "69c064000000");
    // One of several that multiply together: a subtraction of another register.
    assert_eq!(operation_of(&[0x29, 0xd0], 1, &[]).unwrap(), "69c001000000");
    assert!(operation_of(&[0x29, 0x10], 1, &[]).unwrap_err().contains("is no operation"));
    let (in_rax, in_r9) = ([0x48, 0xc1, 0xe8, 6], [0x49, 0xc1, 0xe9, 6]);
    assert_eq!(operation_of(&in_rax, 7, &[RDX, R8]).unwrap(), "31d241b80700000049f7f0");
    assert_eq!(operation_of(&in_r9, 10, &[RAX, RDX]).unwrap(), "4c89c831d241b90a00000049f7f14989c1");
    // What rdx holds is kept in rcx; rax and rdx in r8 and rcx.
    assert_eq!(operation_of(&in_rax, 7, &[R8, RCX]).unwrap(), "4889d131d241b80700000049f7f04889ca");
    let kept = operation_of(&in_r9, 10, &[R8, RCX]).unwrap();
    assert_eq!(kept, "4989c04889d14c89c831d241b90a00000049f7f14989c14c89c04889ca");
    assert!(operation_of(&in_rax, 7, &[R8]).unwrap_err().contains("rdx is in use"));
    assert!(operation_of(&in_r9, 7, &[R8, RDX, R9]).unwrap().starts_with("4989c0"));
    assert!(operation_of(&in_rax, 7, &[RDX]).unwrap_err().contains("no register is free"));
    assert!(operation_of(&in_r9, 0, &[RAX, RDX]).unwrap_err().contains("is no divisor"));
    assert!(operation_of(&[0x48, 0xc1, 0xe0, 6], 1 << 40, &[]).unwrap_err().contains("does not fit"));
}

fn safe_span(critical: Vec<usize>, repeated: bool, entry: u64) -> crate::entry::SafeSpan {
    crate::entry::SafeSpan {
        function: "blk_add_rq_to_plug".into(),
        function_offset: 0x65_0900,
        entry,
        ranges: vec![(entry + 1, entry + 0x20)],
        frames: critical.iter().map(|n| Some(16 + 8 * *n as u32)).collect(),
        critical,
        repeated,
        ..Default::default()
    }
}

#[test]
fn at_once_only_where_a_value_is_used_once() {
    let mut entry = plug_limit();
    assert!(check_independent(&entry).is_ok());
    entry.safe_spans = Vec::new();
    let error = check_independent(&entry).unwrap_err();
    assert!(matches!(error, ConstError::NotSettable { .. }), "an entry of an older table: {error}");
    entry.safe_spans = vec![safe_span(vec![0], false, 0x65_0925)];
    assert!(check_independent(&entry).is_ok());
    entry.safe_spans = vec![safe_span(vec![0], true, 0x65_0925)];
    let error = check_independent(&entry).unwrap_err().to_string();
    assert!(error.starts_with("BLK_MAX_REQUEST_COUNT cannot be switched for everybody at once"), "{error}");
    assert!(error.contains("begins at blk_add_rq_to_plug+0x25"), "{error}");
}

#[test]
fn the_stock_setting_is_the_deployed_value() {
    let entry = plug_limit();
    assert_eq!(stock(&entry, None).unwrap(), Setting::Value(32));
    assert_eq!(stock(&entry, Some(1)).unwrap(), Setting::Derived { index: 1, number: 64 });
    assert!(matches!(stock(&entry, Some(2)), Err(ConstError::BadQuery { .. })));
}

/// A constant with two places, 0x40 bytes apart.
fn two_places() -> Entry {
    let code = [0x83, 0xe0, 0xe0, 0x83, 0xc0, 0x40, 0x66, 0x39, 0xc2, 0x73, 0x05];
    let ivs = |at| vec![iv(at, 32, -32, Some((2, 1)), -1, 0), iv(at + 3, 32, 64, Some((2, 1)), 2, 0)];
    let mut second = span(&code, 6, ivs(0x65));
    (second.start, second.end, second.window.start) = (0x65, 0x6b, 0x65);
    entry("BLK_MAX_REQUEST_COUNT", 32, (1, 1024), vec![span(&code, 6, ivs(0x25)), second])
}

/// Which places begin and go on with a decision, and where their frames end.
fn executions(entry: &Entry) -> Vec<Option<(bool, Option<u32>)>> {
    let none = std::collections::BTreeSet::new();
    let live = decided_entry(entry, 7, (None, None), &none, &Running::default()).unwrap();
    let execution = |location: &Location| match &location.change {
        Change::Decided { execution, .. } => execution.map(|own| (own.begins, own.frame)),
        _ => None,
    };
    live.locations.iter().map(execution).collect()
}

#[test]
fn one_decision_is_shared_from_the_entry_on() {
    let mut entry = two_places();
    assert_eq!(executions(&entry), [None, None], "no safe spans are known");
    entry.safe_spans = vec![safe_span(vec![0, 1], true, 0x65_0928)];
    assert_eq!(executions(&entry), [Some((true, Some(16))), Some((false, Some(24)))]);
    entry.safe_spans[0].frames[1] = None;
    assert_eq!(executions(&entry), [Some((true, Some(16))), Some((false, None))]);
    entry.safe_spans = vec![safe_span(vec![0], false, 0x65_0925), safe_span(vec![1], false, 0x65_0965)];
    assert_eq!(executions(&entry), [None, None], "each has a span of its own");
}

#[test]
fn a_place_without_a_number_begins_where_none_is() {
    let mut entry = two_places();
    entry.safe_spans = vec![safe_span(vec![0, 1], true, 0x65_0910)];
    let none = std::collections::BTreeSet::new();
    let refused = |entry: &Entry| {
        let error = decided_entry(entry, 7, (None, None), &none, &Running::default()).unwrap_err();
        assert!(matches!(error, ConstError::NoOnce { .. }), "{error}");
        error.to_string()
    };
    assert!(refused(&entry).contains("nothing is known of the code at blk_add_rq_to_plug+0x10"));
    // mov %rdi, %rbx; mov %rsi, %rbp
    let window = Window { start: 0x10, bytes: "4889fb4889f5".into(), refused: String::new() };
    let begin = crate::entry::Begin { window, frame: Some(8), parameters: Vec::new() };
    entry.safe_spans[0].begin = Some(begin);
    let found = executions(&entry);
    assert_eq!(found, [Some((false, Some(16))), Some((false, Some(24))), Some((true, Some(8)))]);
    // Behind the entry, and where a number is used.
    entry.safe_spans[0].begin.as_mut().unwrap().window.start = 0x18;
    assert_eq!(executions(&entry)[2], Some((true, Some(8))));
    entry.safe_spans[0].begin.as_mut().unwrap().window = entry.spans[0].window.clone();
    assert_eq!(executions(&entry), [Some((true, Some(16))), Some((false, Some(24)))]);
    entry.safe_spans[0].begin.as_mut().unwrap().window.start = 0x10;
    entry.safe_spans[0].begin.as_mut().unwrap().window.bytes = "5348".repeat(12);
    assert!(refused(&entry).contains("would overlap"), "{}", refused(&entry));
}
