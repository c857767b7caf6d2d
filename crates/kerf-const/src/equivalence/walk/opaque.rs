//! Instructions that are not modelled: the same one does the same to the same inputs.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use kerf_semantics::{Flag, State};

use super::super::facts::tainted;
use super::{Checked, Frames, Walk};

impl Walk<'_> {
    /// An instruction that is not modelled: equal inputs give equal outputs.
    pub(super) fn opaque(
        &mut self,
        mut states: [State; 2],
        (a, p): (Instruction, u64),
        (b, q): (Instruction, u64),
    ) -> Checked<()> {
        let same = a.code() == b.code() && a.op_count() == b.op_count() && a.code() != Code::INVALID;
        if !same {
            return Err(format!("{:?} and {:?} are not compared", a.code(), b.code()));
        }
        let on_stack = a.op_kinds().any(|kind| kind == OpKind::Memory) && a.memory_base() == Register::RSP;
        if on_stack && self.frames == Frames::Two {
            return Err(format!("{:?} uses the frame", a.mnemonic()));
        }
        if matches!(a.mnemonic(), Mnemonic::Popfq | Mnemonic::Pushfq) {
            return Err("the flags are pushed or popped".into());
        }
        for n in 0..a.op_count() {
            let (x, y) = (a.op_kind(n), b.op_kind(n));
            let equal = x == y
                && match x {
                    OpKind::Register => a.op_register(n) == b.op_register(n),
                    OpKind::Memory => {
                        (
                            a.memory_base(),
                            a.memory_index(),
                            a.memory_displacement64(),
                            a.memory_segment(),
                            a.memory_index_scale(),
                        ) == (
                            b.memory_base(),
                            b.memory_index(),
                            b.memory_displacement64(),
                            b.memory_segment(),
                            b.memory_index_scale(),
                        )
                    }
                    _ => a.try_immediate(n).ok() == b.try_immediate(n).ok(),
                };
            if !equal {
                return Err(format!("operands of {:?} differ", a.mnemonic()));
            }
        }
        let (read, written) = (crate::span::accessed(&a, false), crate::span::accessed(&a, true));
        for register in read.iter().filter(|r| **r != Register::RSP) {
            let number = register.number();
            let (x, y) = (states[0].gpr[number], states[1].gpr[number]);
            if x != y || tainted(&self.arena, x) {
                return Err(format!("{register:?} differs before {:?}", a.mnemonic()));
            }
        }
        let tag = format!("{:x}.{:x}.{}", p, q, self.points);
        self.escape_frames(&mut states, &tag)?;
        let memory = self.arena.memory(&format!("called.{tag}"));
        for register in written.iter().filter(|r| **r != Register::RSP) {
            let value = self.arena.var(&format!("result.{tag}.{register:?}"), 64);
            states.iter_mut().for_each(|s| s.gpr[register.number()] = value);
        }
        for (n, flag) in Flag::ALL.into_iter().enumerate() {
            let value = self.arena.var(&format!("result.{tag}.flag{n}"), 1);
            states.iter_mut().for_each(|s| s.flags.set(flag, value));
        }
        states.iter_mut().for_each(|s| s.memory = memory);
        self.join((p, q), &states)
    }
}
