//! Slices of small functions: what uses a value, from where to where something carries it, and what cannot be followed.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::code_asm::*;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Register, UsedMemory};
use kerf_semantics::slice::{
    Body, Carriers, Effect, Origin, Outcome, Passed, Pointed, Role, Slice, Surroundings, slice,
};

const BASE: u64 = 0x1000;
const OTHER: u64 = 0x9000;

/// Functions take two arguments; what they do with them is up to the test. Stores through rbx go to object 1, loads through it
/// come from there.
#[derive(Default)]
struct World {
    result: bool,
    returns: bool,
    pointed: BTreeSet<Pointed>,
}

impl Surroundings for World {
    fn role(&self, insn: &Instruction) -> Role {
        match insn.flow_control() {
            FlowControl::Call => Role::Call,
            FlowControl::Return => Role::Return,
            FlowControl::UnconditionalBranch if insn.near_branch_target() == OTHER => Role::Leave,
            _ => Role::Plain,
        }
    }
    fn has_result(&self) -> bool {
        self.returns
    }
    fn passed(&self, _: &Instruction) -> Passed {
        Passed { registers: 1 << 7 | 1 << 6, ..Passed::default() }
    }
    fn call(&mut self, _: &Instruction, passed: &Carriers) -> Effect {
        let uses = passed.registers != 0;
        Effect {
            uses,
            outcome: Outcome { result: uses && self.result, pointed: self.pointed.clone() },
            clears_result: true,
            reads: passed.objects.clone(),
            ..Effect::default()
        }
    }
    fn store(&mut self, _: &Instruction, to: &UsedMemory) -> Result<u32, String> {
        if to.base() == Register::RBX { Ok(1) } else { Err("unknown".into()) }
    }
    fn pointed(&mut self, _: &Instruction, to: &Pointed) -> Result<u32, String> {
        if to.register == 7 { Ok(1) } else { Err("unknown".into()) }
    }
    fn loads(&mut self, _: &Instruction, from: &UsedMemory, objects: &BTreeSet<u32>) -> BTreeSet<u32> {
        if from.base() == Register::RBX { objects.clone() } else { BTreeSet::new() }
    }
}

fn body(build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Body {
    let mut assembler = CodeAssembler::new(64).unwrap();
    build(&mut assembler).unwrap();
    let bytes = assembler.assemble(BASE).unwrap();
    let code: BTreeMap<u64, Instruction> =
        Decoder::with_ip(64, &bytes, BASE, DecoderOptions::NONE).into_iter().map(|i| (i.ip(), i)).collect();
    let mut successors = BTreeMap::new();
    for insn in code.values() {
        let next = match insn.flow_control() {
            FlowControl::Return => vec![],
            FlowControl::UnconditionalBranch => vec![insn.near_branch_target()],
            FlowControl::ConditionalBranch => vec![insn.next_ip(), insn.near_branch_target()],
            _ => vec![insn.next_ip()],
        };
        successors.insert(insn.ip(), next.into_iter().filter(|ip| code.contains_key(ip)).collect());
    }
    Body { entry: BASE, code, successors }
}

/// Addresses of the instructions of a body, in order.
fn ips(body: &Body) -> Vec<u64> {
    body.code.keys().copied().collect()
}

/// The positions of some addresses.
fn positions(body: &Body, set: impl IntoIterator<Item = u64>) -> Vec<usize> {
    let ips = ips(body);
    set.into_iter().map(|ip| ips.iter().position(|known| *known == ip).unwrap()).collect()
}

fn of(body: &Body, source: usize, world: &mut World) -> Slice {
    let origin = Origin { sources: BTreeSet::from([ips(body)[source]]), ..Origin::default() };
    slice(body, &origin, world)
}

fn check(body: &Body, source: usize, used: &[usize], inside: &[usize]) -> Slice {
    let slice = of(body, source, &mut World::default());
    assert_eq!(positions(body, slice.used.keys().copied()), used, "used");
    assert_eq!(positions(body, slice.inside.iter().copied()), inside, "inside");
    slice
}

#[test]
fn a_comparison_ends_with_its_branch() {
    let body = body(|a| {
        let mut end = a.create_label();
        a.mov(eax, 1)?;
        a.cmp(edi, 32)?;
        a.mov(ecx, 2)?;
        a.jae(end)?;
        a.mov(eax, 5)?;
        a.set_label(&mut end)?;
        a.ret()
    });
    let slice = check(&body, 1, &[1, 3], &[2, 3]);
    assert!(slice.escapes.is_empty() && !slice.returned);
}

#[test]
fn registers_are_followed_until_nobody_reads_them() {
    let body = body(|a| {
        a.mov(ecx, 32)?;
        a.add(ecx, edx)?;
        a.mov(esi, ecx)?;
        a.xor(ecx, ecx)?;
        a.cmp(esi, eax)?;
        a.sete(al)?;
        a.mov(esi, 0)?;
        a.add(eax, edx)?;
        a.mov(eax, 1)?;
        a.ret()
    });
    // The addition reads what the comparison decided; what it gives is overwritten.
    check(&body, 0, &[0, 1, 2, 4, 5, 7], &[1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn slots_of_the_frame_carry_a_value() {
    let body = body(|a| {
        a.push(rbx)?;
        a.sub(rsp, 0x20)?;
        a.mov(dword_ptr(rsp + 8), 32)?;
        a.lea(rcx, qword_ptr(rsp + 8))?;
        a.nop()?;
        a.mov(eax, dword_ptr(rcx))?;
        a.mov(dword_ptr(rsp + 8), 0)?;
        a.cmp(eax, edi)?;
        a.sete(dl)?;
        a.mov(eax, dword_ptr(rsp + 8))?;
        a.add(rsp, 0x20)?;
        a.pop(rbx)?;
        a.ret()
    });
    check(&body, 2, &[2, 5, 7, 8], &[3, 4, 5, 6, 7, 8]);
}

#[test]
fn what_is_pushed_comes_back() {
    let body = body(|a| {
        a.mov(eax, 32)?;
        a.push(rax)?;
        a.mov(eax, 1)?;
        a.pop(rdx)?;
        a.cmp(edx, edi)?;
        a.sete(cl)?;
        a.ret()
    });
    check(&body, 0, &[0, 1, 3, 4, 5], &[1, 2, 3, 4, 5]);
}

#[test]
fn a_loop_carries_a_value_around() {
    let body = body(|a| {
        let mut head = a.create_label();
        a.xor(ecx, ecx)?;
        a.set_label(&mut head)?;
        a.add(ecx, 32)?;
        a.dec(edi)?;
        a.jne(head)?;
        a.mov(eax, ecx)?;
        a.ret()
    });
    let slice = of(&body, 1, &mut World { returns: true, ..World::default() });
    // The addition takes up what it gave the last time.
    assert_eq!(positions(&body, slice.inside.iter().copied()), [1, 2, 3, 4, 5]);
    assert!(slice.returned);
}

#[test]
fn results_of_calls_follow_from_arguments() {
    let program = |a: &mut CodeAssembler| {
        a.mov(edi, 32)?;
        a.call(OTHER)?;
        a.cmp(eax, edx)?;
        a.sete(cl)?;
        a.ret()
    };
    let body = body(program);
    let slice = of(&body, 0, &mut World { result: true, ..World::default() });
    assert_eq!(positions(&body, slice.used.keys().copied()), [0, 1, 2, 3]);
    let slice = of(&body, 0, &mut World::default());
    assert_eq!(positions(&body, slice.used.keys().copied()), [0, 1]);
    // The called function uses it while the address behind the call is all of this function that is on the stack.
    assert_eq!(positions(&body, slice.inside.iter().copied()), [1, 2]);
}

#[test]
fn what_lies_at_a_place_does_not_follow_from_the_place() {
    let body = body(|a| {
        a.mov(ecx, 32)?;
        a.mov(eax, dword_ptr(rdx + rcx * 4))?;
        a.cmp(eax, edi)?;
        a.sete(cl)?;
        a.ret()
    });
    check(&body, 0, &[0, 1], &[1]);
}

#[test]
fn what_is_pushed_for_a_call_is_passed() {
    let program = |pushes: bool| {
        body(move |a| {
            a.sub(rsp, 0x18)?;
            a.mov(dword_ptr(rsp + 8), 32)?;
            a.nop()?;
            a.nop()?;
            if pushes {
                a.push(qword_ptr(rsp + 8))?;
            }
            a.call(OTHER)?;
            a.nop()?;
            a.ret()
        })
    };
    assert!(of(&program(false), 1, &mut World::default()).escapes.is_empty());
    let slice = of(&program(true), 1, &mut World::default());
    assert_eq!(slice.escapes.values().next().unwrap(), &["it is passed on the stack"]);
}

#[test]
fn a_leave_hands_the_value_on() {
    let body = body(|a| {
        a.mov(edi, 32)?;
        a.jmp(OTHER)
    });
    let slice = of(&body, 0, &mut World { result: true, ..World::default() });
    assert!(slice.returned);
    assert_eq!(positions(&body, slice.leaves.iter().copied()), [1]);
}

#[test]
fn members_are_followed_and_unknown_stores_are_not() {
    let body = body(|a| {
        a.mov(dword_ptr(rbx + 0x1c), 32)?;
        a.nop()?;
        a.mov(eax, dword_ptr(rbx + 0x1c))?;
        a.mov(dword_ptr(rdx), eax)?;
        a.ret()
    });
    let slice = of(&body, 0, &mut World::default());
    assert_eq!(positions(&body, slice.used.keys().copied()), [0, 2, 3]);
    assert_eq!(slice.objects, BTreeSet::from([1]));
    assert_eq!(slice.escapes.values().next().unwrap(), &["unknown"]);
}

#[test]
fn an_address_of_the_frame_that_is_passed_is_an_escape() {
    let body = body(|a| {
        a.sub(rsp, 0x18)?;
        a.mov(dword_ptr(rsp + 8), 32)?;
        a.lea(rdi, qword_ptr(rsp))?;
        a.call(OTHER)?;
        a.add(rsp, 0x18)?;
        a.ret()
    });
    let slice = of(&body, 1, &mut World::default());
    assert_eq!(positions(&body, slice.escapes.keys().copied()), [3]);
    assert!(slice.escapes.values().next().unwrap()[0].contains("address of a local variable"));
}

#[test]
fn arguments_carry_a_value_in() {
    let body = body(|a| {
        a.mov(rax, rsi)?;
        a.shr(rdi, 3)?;
        a.cmp(rdi, rdx)?;
        a.jb(BASE)?;
        a.ret()
    });
    let origin = Origin { entry: Carriers::of_registers(1 << 7), ..Origin::default() };
    let slice = slice(&body, &origin, &mut World { returns: true, ..World::default() });
    assert_eq!(positions(&body, slice.used.keys().copied()), [1, 2, 3]);
    // Around the loop the shifted argument is shifted again.
    assert_eq!(positions(&body, slice.inside.iter().copied()), [0, 1, 2, 3]);
    assert!(!slice.returned);
}

#[test]
fn stack_offsets_are_known_where_they_are_always_the_same() {
    let body = body(|a| {
        a.push(rbx)?;
        a.sub(rsp, 0x20)?;
        a.nop()?;
        a.and(rsp, -32)?;
        a.ret()
    });
    let ips = ips(&body);
    let offsets = body.stack_offsets(&World::default());
    assert_eq!(offsets.get(&ips[0]), Some(&0));
    assert_eq!(offsets.get(&ips[2]), Some(&-0x28));
    assert_eq!(offsets.get(&ips[4]), None);
}

/// Calls a function that stores the value where its second argument points to: here, a local variable.
#[test]
fn what_a_call_stores_in_a_local_variable_is_followed() {
    let body = body(|a| {
        a.sub(rsp, 0x18)?; // 0
        a.lea(rsi, ptr(rsp + 8))?; // 1
        a.call(OTHER)?; // 2
        a.mov(ecx, dword_ptr(rsp + 8))?; // 3
        a.mov(edx, dword_ptr(rsp + 12))?; // 4
        a.add(ecx, 1)?; // 5
        a.test(ecx, ecx)?; // 6
        a.add(rsp, 0x18)?; // 7
        a.ret() // 8
    });
    let out = |register| Outcome { result: false, pointed: BTreeSet::from([Pointed { register, offset: 0, size: 4 }]) };
    let origin = |register| Origin { calls: BTreeMap::from([(ips(&body)[2], out(register))]), ..Origin::default() };
    let found = slice(&body, &origin(6), &mut World::default());
    assert_eq!(positions(&body, found.used.keys().copied()), [2, 3, 5, 6]);
    assert!(found.escapes.is_empty(), "{:?}", found.escapes);
    // Where the other argument points to nobody knows but the surroundings, and what is behind a result register nobody.
    assert_eq!(slice(&body, &origin(7), &mut World::default()).objects, BTreeSet::from([1]));
    let lost = slice(&body, &origin(2), &mut World::default());
    assert_eq!(lost.escapes.values().next().unwrap(), &["unknown"]);
}
