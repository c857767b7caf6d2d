//! What a function still needs at a point of its code: which flags and registers an update must not disturb.

use std::collections::HashMap;

use iced_x86::{Instruction, Mnemonic, Register};
use kerf_semantics::{CallEffect, Cfg, CfgOptions, Flag, LiveSet};

use crate::code::Code;
use crate::equivalence::Signatures;
use crate::equivalence::calls::Call;
use crate::equivalence::link::{self, Bundle, Linker, Role};

/// The general registers that can hold a value: all but the stack pointer.
pub const GENERAL: [Register; 15] = {
    use Register::*;
    [RAX, RCX, RDX, RBX, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15]
};

/// Liveness in one function and the part that the compiler moved out of it.
pub struct Liveness {
    graph: Cfg,
    entry: u64,
}

impl Liveness {
    /// Reads a function of a unit's code. `None` if its references cannot be followed.
    pub fn of(
        code: &Code,
        name: &str,
        calls: &HashMap<String, Vec<Call>>,
        signatures: &Signatures,
    ) -> Option<Liveness> {
        // Live in a part of its own is what is live in the whole; the whole is read by the first part's name.
        let whole = name.strip_suffix(".cold").unwrap_or(name);
        let (mut linker, mut arena) = (Linker::default(), kerf_semantics::Arena::new());
        let mut bundle = link::link(code, whole, &|_, _| None, &mut linker, &mut arena).ok()?;
        bundle.attach_calls(code, whole, calls);
        let mut instructions: Vec<Instruction> = bundle.code.values().map(|(i, role)| outward(*i, *role)).collect();
        instructions.sort_by_key(Instruction::ip);
        let void = signatures.is_void(whole);
        let mut options = CfgOptions::default();
        for (insn, role) in bundle.code.values() {
            if let Role::StaticKey { target, .. } = role {
                options.edges.extend([(insn.ip(), *target), (insn.ip(), insn.next_ip())]);
            }
            if let Some(effect) = effect(insn, *role, &bundle, &linker, code, signatures, void) {
                options.effects.insert(insn.ip(), effect);
            }
        }
        let entry = if name == whole { bundle.entry } else { link::cold_entry() };
        Some(Liveness { graph: Cfg::with_options(&instructions, &options), entry })
    }

    fn after(&self, offset: u64) -> LiveSet {
        self.graph.live_after(self.entry + offset)
    }

    /// Whether a flag is still needed after the instruction at an offset.
    pub fn needs_flag(&self, offset: u64, flag: Flag) -> bool {
        self.after(offset).has_flag(flag)
    }

    /// General registers that hold nothing after the instruction at an offset.
    pub fn free(&self, offset: u64) -> Vec<Register> {
        let live = self.after(offset);
        GENERAL.into_iter().filter(|r| !live.has_register(*r)).collect()
    }
}

/// A jump that stands for a return or an indirect jump goes nowhere in this function.
fn outward(mut insn: Instruction, role: Role) -> Instruction {
    if insn.mnemonic() == Mnemonic::Jmp && matches!(role, Role::Return | Role::Thunk(..)) {
        insn.set_near_branch64(0);
    }
    insn
}

/// What a call or jump out of the function needs and overwrites, where more is known than the worst. `void`: the function
/// gives nothing back.
fn effect(
    insn: &Instruction,
    role: Role,
    bundle: &Bundle,
    linker: &Linker,
    code: &Code,
    signatures: &Signatures,
    void: bool,
) -> Option<CallEffect> {
    let nothing = CallEffect { reads: LiveSet::NONE, kills: LiveSet::NONE };
    match role {
        Role::Nothing => return Some(nothing),
        Role::Return if void => return Some(nothing),
        Role::Return => return Some(CallEffect { reads: LiveSet::of_registers(&[0, 2]), kills: LiveSet::NONE }),
        _ => {}
    }
    let call = bundle.calls.get(&insn.ip())?;
    let mut reads: Vec<usize> = call.registers.iter().map(|(register, _)| *register).collect();
    if let Role::Thunk(register, _) = role {
        reads.push(register.number());
    }
    let direct = matches!(insn.mnemonic(), Mnemonic::Call | Mnemonic::Jmp) && role == Role::Plain;
    let callee = direct.then(|| linker.name(insn.near_branch_target())).flatten();
    // The compiler may know of a function of the same unit that it keeps more registers than it has to.
    let kills = match callee {
        Some(name) if code.function(name).is_none() => CallEffect::system_v().kills,
        Some(name) if !signatures.is_void(name) => LiveSet::of_registers(&[0]),
        _ => LiveSet::NONE,
    };
    let kills = LiveSet { flags: LiveSet::all().flags, ..kills };
    Some(CallEffect { reads: LiveSet::of_registers(&reads), kills })
}
