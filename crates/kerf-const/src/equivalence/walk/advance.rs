//! One side on its way to its next event: a branch, a call, its end.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use kerf_semantics::{Flow, State, Term, step};

use super::super::facts::{frame_offset, tainted};
use super::super::link::Role;
use super::{Checked, Walk};

/// No path between two points is longer.
const MOST_STEPS: usize = 4000;

/// What a side is about to do.
#[derive(Clone, Debug)]
pub enum Event {
    Branch {
        taken: Term,
        target: u64,
        next: u64,
    },
    StaticKey {
        key: u64,
        target: u64,
        next: u64,
    },
    Call {
        at: u64,
        callee: Callee,
        next: Option<u64>,
    },
    Return,
    Trap {
        next: u64,
    },
    /// An instruction whose meaning is not modelled: it does the same to the same inputs.
    Opaque {
        insn: Instruction,
        next: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    Direct(u64),
    Register(Term),
}

pub fn word(event: &Event) -> &'static str {
    match event {
        Event::Branch { .. } => "a branch",
        Event::StaticKey { .. } => "a static key",
        Event::Call { .. } => "a call",
        Event::Return => "its end",
        Event::Trap { .. } => "a trap",
        Event::Opaque { .. } => "an instruction that is not modelled",
    }
}

impl Walk<'_> {
    /// Runs one side to its next event.
    pub(super) fn advance(&mut self, side: usize, state: &mut State, ip: &mut u64) -> Checked<Event> {
        for _ in 0..MOST_STEPS {
            let Some((insn, role)) = self.sides[side].code.get(ip).copied() else {
                return Err("control leaves the function in an unknown way".into());
            };
            let next = insn.next_ip();
            match role {
                Role::Nothing => {
                    *ip = next;
                    continue;
                }
                Role::StaticKey { target, key } => return Ok(Event::StaticKey { key, target, next }),
                Role::Return => return Ok(Event::Return),
                Role::Thunk(register, calls) => {
                    let target = state.read(&mut self.arena, register).ok_or("a thunk of an unknown register")?;
                    return Ok(Event::Call {
                        at: insn.ip(),
                        callee: Callee::Register(target),
                        next: calls.then_some(next),
                    });
                }
                Role::Operation(operation) => {
                    let factor = self.arena.constant(u128::from(operation.factor as u64), 64);
                    let addend = self.arena.constant(u128::from(operation.addend as u64), 64);
                    let done = operation.execute(&mut self.arena, state, factor, addend);
                    done.ok_or("an operation has no result there")?;
                    *ip = next;
                    continue;
                }
                Role::Plain => {}
            }
            if insn.mnemonic() == Mnemonic::Ret {
                return Ok(Event::Return);
            }
            if let Some(event) = self.transfer(side, state, &insn)? {
                match event {
                    Ok(event) => return Ok(event),
                    Err(target) => {
                        *ip = target;
                        continue;
                    }
                }
            }
            if self.fills_frame(side, state, &insn) {
                *ip = next;
                continue;
            }
            let before = state.clone();
            state.accesses.clear();
            match step(&mut self.arena, state, &insn, &self.sides[side].overrides) {
                Ok(Flow::Next) => *ip = next,
                Ok(Flow::Branch { taken, target }) => {
                    let taken = self.assumed.simplify(&mut self.arena, taken);
                    match self.arena.as_constant(taken) {
                        Some(0) => *ip = next,
                        Some(_) => *ip = target,
                        None => return Ok(Event::Branch { taken, target, next }),
                    }
                }
                Ok(Flow::Trap) => return Ok(Event::Trap { next }),
                Ok(_) => return Err(format!("{:?} is not followed", insn.code())),
                Err(_) => {
                    *state = before;
                    return Ok(Event::Opaque { insn, next });
                }
            }
            self.note_accesses(side, state)?;
        }
        Err("a path without branch or call is too long".into())
    }

    /// Calls and jumps: an event, or the address where control goes on.
    pub(super) fn transfer(
        &mut self,
        side: usize,
        state: &State,
        insn: &Instruction,
    ) -> Checked<Option<Result<Event, u64>>> {
        let near = matches!(insn.op0_kind(), OpKind::NearBranch64);
        match insn.mnemonic() {
            Mnemonic::Call if near => {
                let callee = Callee::Direct(insn.near_branch_target());
                Ok(Some(Ok(Event::Call { at: insn.ip(), callee, next: Some(insn.next_ip()) })))
            }
            Mnemonic::Jmp if near => {
                let target = insn.near_branch_target();
                if self.sides[side].code.contains_key(&target) {
                    return Ok(Some(Err(target)));
                }
                Ok(Some(Ok(Event::Call { at: insn.ip(), callee: Callee::Direct(target), next: None })))
            }
            Mnemonic::Call | Mnemonic::Jmp => {
                let register = insn.op0_register();
                if insn.op0_kind() != OpKind::Register {
                    // Calls through memory (paravirtual operations) name the pointer's place, which has to be the same.
                    let address = self.arena.constant(u128::from(insn.memory_displacement64()), 64);
                    let known = insn.memory_base() == Register::RIP || insn.memory_base() == Register::None;
                    let next = (insn.mnemonic() == Mnemonic::Call).then(|| insn.next_ip());
                    return if known && insn.memory_index() == Register::None {
                        Ok(Some(Ok(Event::Call { at: insn.ip(), callee: Callee::Register(address), next })))
                    } else {
                        Err("a call through memory".into())
                    };
                }
                let target = state.read(&mut self.arena, register).ok_or("a call through an unknown register")?;
                let next = (insn.mnemonic() == Mnemonic::Call).then(|| insn.next_ip());
                Ok(Some(Ok(Event::Call { at: insn.ip(), callee: Callee::Register(target), next })))
            }
            _ => Ok(None),
        }
    }

    /// Notes the stack slots that the last instruction used, and refuses addresses in the frame that are not known.
    pub(super) fn note_accesses(&mut self, side: usize, state: &mut State) -> Checked<()> {
        for access in std::mem::take(&mut state.accesses) {
            if let Some(offset) = frame_offset(&mut self.arena, state, access.address) {
                let mut at = offset;
                let mut left = access.bytes;
                while left > 0 {
                    let size = if left >= 4 { 4 } else { left.min(2) };
                    self.slots.insert((side as u8, at, size as u8));
                    at += i64::from(size);
                    left -= size;
                }
            } else if tainted(&self.arena, access.address) {
                return Err("memory in the frame is used through a computed address".into());
            }
        }
        Ok(())
    }
}
