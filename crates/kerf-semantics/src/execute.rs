//! One instruction's effect on a machine state: which family it belongs to, and moves and control flow.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use crate::error::Unsupported;
use crate::operand::{Overrides, Result, Step};
use crate::state::State;
use crate::term::{Arena, Term};

/// Where execution goes after an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next instruction.
    Next,
    /// To `target` where `taken` is 1, else to the next instruction.
    Branch {
        /// 1-bit term.
        taken: Term,
        /// Address of the target.
        target: u64,
    },
    /// To this address.
    Jump(u64),
    /// To an address from a register or from memory.
    Indirect,
    /// Into a function, whose address is given if the call is direct. The return address has been pushed.
    Call(Option<u64>),
    /// Back to the caller. The return address has been popped.
    Return,
    /// Into an exception: `ud2`, `int3`.
    Trap,
}

/// Executes one instruction on `state`.
///
/// On an error `state` may be half changed; whoever needs it later keeps a copy.
pub fn step(
    arena: &mut Arena,
    state: &mut State,
    insn: &Instruction,
    overrides: &Overrides,
) -> std::result::Result<Flow, Unsupported> {
    Step { arena, state, insn, overrides }.run()
}

impl Step<'_> {
    fn run(&mut self) -> Result<Flow> {
        if self.insn.has_rep_prefix() && self.insn.is_string_instruction()
            || self.insn.has_repne_prefix() && self.insn.is_string_instruction()
        {
            return self.unsupported("repeated string instruction");
        }
        if let Some(flow) = self.control()? {
            return Ok(flow);
        }
        let known =
            self.moves()? || self.arithmetic()? || self.multiplication()? || self.shifts()? || self.bit_ops()?;
        if known { Ok(Flow::Next) } else { self.unsupported("instruction outside the modelled set") }
    }

    fn control(&mut self) -> Result<Option<Flow>> {
        let insn = self.insn;
        let flow = match insn.mnemonic() {
            Mnemonic::Jmp => match direct_target(insn) {
                Some(target) => Flow::Jump(target),
                None => {
                    self.read(0)?;
                    Flow::Indirect
                }
            },
            Mnemonic::Call => {
                let target = direct_target(insn);
                if target.is_none() {
                    self.read(0)?;
                }
                let back = self.arena.constant(u128::from(insn.next_ip()), 64);
                self.push(back)?;
                Flow::Call(target)
            }
            Mnemonic::Ret if matches!(insn.code(), Code::Retnq | Code::Retnq_imm16) => {
                self.pop()?;
                if insn.op_count() > 0 {
                    let rsp = self.register(Register::RSP)?;
                    let rsp = self.arena.add_constant(rsp, u128::from(insn.immediate16()));
                    self.set_register(Register::RSP, rsp)?;
                }
                Flow::Return
            }
            Mnemonic::Ud2 | Mnemonic::Int3 => Flow::Trap,
            Mnemonic::Jrcxz => {
                let rcx = self.register(Register::RCX)?;
                let zero = self.arena.constant(0, 64);
                Flow::Branch { taken: self.arena.eq(rcx, zero), target: insn.near_branch_target() }
            }
            _ if insn.is_jcc_short_or_near() => {
                let taken = self.condition()?;
                Flow::Branch { taken, target: insn.near_branch_target() }
            }
            _ => return Ok(None),
        };
        Ok(Some(flow))
    }

    /// The condition of `jcc`, `setcc` or `cmovcc`.
    fn condition(&mut self) -> Result<Term> {
        use iced_x86::ConditionCode as Cc;
        let flags = self.state.flags;
        let arena = &mut *self.arena;
        let term = match self.insn.condition_code() {
            Cc::o => flags.of,
            Cc::no => arena.not(flags.of),
            Cc::b => flags.cf,
            Cc::ae => arena.not(flags.cf),
            Cc::e => flags.zf,
            Cc::ne => arena.not(flags.zf),
            Cc::be => arena.or(flags.cf, flags.zf),
            Cc::a => {
                let not_above = arena.or(flags.cf, flags.zf);
                arena.not(not_above)
            }
            Cc::s => flags.sf,
            Cc::ns => arena.not(flags.sf),
            Cc::p => flags.pf,
            Cc::np => arena.not(flags.pf),
            Cc::l => arena.xor(flags.sf, flags.of),
            Cc::ge => {
                let less = arena.xor(flags.sf, flags.of);
                arena.not(less)
            }
            Cc::le => {
                let less = arena.xor(flags.sf, flags.of);
                arena.or(less, flags.zf)
            }
            Cc::g => {
                let less = arena.xor(flags.sf, flags.of);
                let not_greater = arena.or(less, flags.zf);
                arena.not(not_greater)
            }
            Cc::None => return self.unsupported("condition that is not known"),
        };
        Ok(term)
    }

    fn moves(&mut self) -> Result<bool> {
        let insn = self.insn;
        match insn.mnemonic() {
            Mnemonic::Mov => {
                let value = self.read(1)?;
                self.write(0, value)?;
            }
            Mnemonic::Movzx => {
                let (value, width) = (self.read(1)?, self.width(0)?);
                let value = self.arena.zext(value, width);
                self.write(0, value)?;
            }
            Mnemonic::Movsx | Mnemonic::Movsxd => {
                let (value, width) = (self.read(1)?, self.width(0)?);
                let value = self.arena.sext(value, width);
                self.write(0, value)?;
            }
            Mnemonic::Lea => {
                let (address, width) = (self.address(1, false)?, self.width(0)?);
                let value = self.arena.extract(address, width - 1, 0);
                self.write(0, value)?;
            }
            Mnemonic::Xchg => {
                let (a, b) = (self.read(0)?, self.read(1)?);
                self.write(0, b)?;
                self.write(1, a)?;
            }
            Mnemonic::Bswap => self.bswap()?,
            Mnemonic::Cbw => self.extend_accumulator(Register::AL, Register::AX)?,
            Mnemonic::Cwde => self.extend_accumulator(Register::AX, Register::EAX)?,
            Mnemonic::Cdqe => self.extend_accumulator(Register::EAX, Register::RAX)?,
            Mnemonic::Cwd => self.spread_sign(Register::AX, Register::DX)?,
            Mnemonic::Cdq => self.spread_sign(Register::EAX, Register::EDX)?,
            Mnemonic::Cqo => self.spread_sign(Register::RAX, Register::RDX)?,
            Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Pause => {}
            Mnemonic::Lfence | Mnemonic::Mfence | Mnemonic::Sfence => {}
            Mnemonic::Prefetchnta
            | Mnemonic::Prefetcht0
            | Mnemonic::Prefetcht1
            | Mnemonic::Prefetcht2
            | Mnemonic::Prefetchw => {}
            _ => return Ok(self.stack_moves()? || self.conditional_moves()?),
        }
        Ok(true)
    }

    fn stack_moves(&mut self) -> Result<bool> {
        let insn = self.insn;
        match insn.mnemonic() {
            Mnemonic::Push => {
                let width = if insn.op_kind(0) == OpKind::Immediate16 { 16 } else { self.width(0)? };
                if width != 64 {
                    return self.unsupported("push of less than 8 bytes");
                }
                let value = self.read(0)?;
                self.push(value)?;
            }
            Mnemonic::Pop => {
                if self.width(0)? != 64 {
                    return self.unsupported("pop of less than 8 bytes");
                }
                let value = self.pop()?;
                self.write(0, value)?;
            }
            Mnemonic::Leave if insn.code() == Code::Leaveq => {
                let rbp = self.register(Register::RBP)?;
                self.set_register(Register::RSP, rbp)?;
                let value = self.pop()?;
                self.set_register(Register::RBP, value)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn conditional_moves(&mut self) -> Result<bool> {
        let insn = self.insn;
        if insn.condition_code() == iced_x86::ConditionCode::None {
            return Ok(false);
        }
        match insn.op_count() {
            1 => {
                let condition = self.condition()?;
                let value = self.arena.zext(condition, 8);
                self.write(0, value)?;
            }
            2 if insn.op_kind(0) == OpKind::Register => {
                let condition = self.condition()?;
                let (old, new) = (self.read(0)?, self.read(1)?);
                let value = self.arena.ite(condition, new, old);
                self.write(0, value)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn bswap(&mut self) -> Result<()> {
        let width = self.width(0)?;
        if width < 32 {
            return self.unsupported("16-bit bswap, which is undefined");
        }
        let value = self.read(0)?;
        let mut swapped = self.arena.extract(value, 7, 0);
        for lo in (8..width).step_by(8) {
            let byte = self.arena.extract(value, lo + 7, lo);
            swapped = self.arena.concat(swapped, byte);
        }
        self.write(0, swapped)
    }

    fn extend_accumulator(&mut self, from: Register, to: Register) -> Result<()> {
        let value = self.register(from)?;
        let value = self.arena.sext(value, to.size() as u32 * 8);
        self.set_register(to, value)
    }

    fn spread_sign(&mut self, from: Register, to: Register) -> Result<()> {
        let value = self.register(from)?;
        let width = self.arena.width(value);
        let sign = self.arena.sign(value);
        let value = self.arena.sext(sign, width);
        self.set_register(to, value)
    }

    fn push(&mut self, value: Term) -> Result<()> {
        let rsp = self.register(Register::RSP)?;
        let rsp = self.arena.add_constant(rsp, 8u128.wrapping_neg());
        self.save(rsp, value);
        self.set_register(Register::RSP, rsp)
    }

    fn pop(&mut self) -> Result<Term> {
        let rsp = self.register(Register::RSP)?;
        let value = self.load(rsp, 8)?;
        let rsp = self.arena.add_constant(rsp, 8);
        self.set_register(Register::RSP, rsp)?;
        Ok(value)
    }
}

/// The target of a direct near jump or call.
pub(crate) fn direct_target(insn: &Instruction) -> Option<u64> {
    matches!(insn.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
        .then(|| insn.near_branch_target())
}
