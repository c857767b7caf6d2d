//! Updates as operations of their own: what has to be done to the state that a deployed instruction leaves, so that it is
//! the state that the instruction with another number would have left.
//!
//! The arithmetic is written here a second time, independently of the instruction semantics: the proof compares the two.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use kerf_semantics::{Arena, Flag, State, Term};

use crate::align::{self, Slot};
use crate::entry::UpdateKind;

/// A number in an instruction that gets another value.
pub struct Update<'a> {
    /// The deployed instruction.
    pub insn: &'a Instruction,
    /// Which of its numbers.
    pub slot: Slot,
    /// The number that it holds, 64 bits wide.
    pub old: Term,
    /// The number that it should hold, 64 bits wide.
    pub new: Term,
    /// What may be used.
    pub kind: UpdateKind,
}

/// The result of an operation and the flags that it defines.
type Outcome = (Option<Term>, Vec<(Flag, Term)>);

impl Update<'_> {
    /// Does the update. `before` is the state before the deployed instruction, of which only a capture may look at what
    /// the instruction destroys; `after` the one that it left. Returns the flags that have a defined value now; `None`
    /// if there is no such update.
    pub fn apply(&self, arena: &mut Arena, before: &State, after: &mut State) -> Option<Vec<Flag>> {
        if self.slot.is_factor() {
            return None;
        }
        match self.kind {
            UpdateKind::Overwrite => self.overwrite(arena, before, after),
            UpdateKind::Flags => {
                let left = self.read(arena, after)?;
                let (_, flags) = self.operate(arena, left, after)?;
                Some(set(after, flags))
            }
            UpdateKind::Reverse => {
                let result = self.read(arena, after)?;
                let left = self.undo(arena, result)?;
                self.again(arena, left, before, after)
            }
            UpdateKind::Capture if self.insn.mnemonic() == Mnemonic::Push => {
                let pushed = self.new;
                after.memory = arena.store_bytes(after.memory, after.gpr[4], pushed);
                Some(Vec::new())
            }
            UpdateKind::Capture if self.insn.mnemonic() == Mnemonic::Imul => self.overwrite(arena, before, after),
            UpdateKind::Capture => {
                let left = self.read(arena, before)?;
                self.again(arena, left, before, after)
            }
            UpdateKind::Store => self.store(arena, before, after),
        }
    }

    /// Bits of the operation.
    fn bits(&self) -> u32 {
        match self.insn.op0_kind() {
            OpKind::Register => self.insn.op0_register().size() as u32 * 8,
            _ => self.insn.memory_size().size() as u32 * 8,
        }
    }

    fn number(&self, arena: &mut Arena, number: Term) -> Option<Term> {
        let bits = self.bits();
        (1..=64).contains(&bits).then(|| arena.extract(number, bits - 1, 0))
    }

    fn overwrite(&self, arena: &mut Arena, before: &State, after: &mut State) -> Option<Vec<Flag>> {
        let (target, bits) = (self.insn.op0_register(), self.bits());
        let (old, new) = (self.number(arena, self.old)?, self.number(arena, self.new)?);
        match (self.insn.mnemonic(), self.slot) {
            (Mnemonic::Mov, Slot::Immediate) => after.write(arena, target, new)?,
            // The address is known but for the difference of the displacements.
            (Mnemonic::Lea, Slot::Displacement) => {
                let result = after.read(arena, target)?;
                let difference = arena.sub(new, old);
                let moved = arena.add(result, difference);
                after.write(arena, target, moved)?;
            }
            (Mnemonic::Imul, Slot::Immediate) if self.insn.op_count() == 3 => {
                let source = match self.insn.op1_kind() {
                    OpKind::Memory => {
                        let address = address(arena, before, self.insn)?;
                        arena.load_bytes(before.memory, address, bits / 8)
                    }
                    _ => before.read(arena, self.insn.op1_register())?,
                };
                let product = arena.mul(source, new);
                after.write(arena, target, product)?;
                let [a, b, c] = [source, new, product].map(|t| arena.sext(t, 2 * bits));
                let whole = arena.mul(a, b);
                let fits = arena.eq(whole, c);
                let lost = arena.not(fits);
                return Some(set(after, vec![(Flag::Carry, lost), (Flag::Overflow, lost)]));
            }
            _ => return None,
        }
        Some(Flag::ALL.to_vec())
    }

    /// The first operand as a state has it.
    fn read(&self, arena: &mut Arena, state: &State) -> Option<Term> {
        match self.insn.op0_kind() {
            OpKind::Register => state.read(arena, self.insn.op0_register()),
            OpKind::Memory => {
                let address = address(arena, state, self.insn)?;
                Some(arena.load_bytes(state.memory, address, self.bits() / 8))
            }
            _ => None,
        }
    }

    /// What the operand was before the deployed number was combined with it.
    fn undo(&self, arena: &mut Arena, result: Term) -> Option<Term> {
        let old = self.number(arena, self.old)?;
        match self.insn.mnemonic() {
            Mnemonic::Add => Some(arena.sub(result, old)),
            Mnemonic::Sub => Some(arena.add(result, old)),
            Mnemonic::Xor => Some(arena.xor(result, old)),
            Mnemonic::Rol => Some(self.turned(arena, result, old, false)),
            Mnemonic::Ror => Some(self.turned(arena, result, old, true)),
            _ => None,
        }
    }

    /// A rotation to the left or to the right by the low bits of a count.
    fn turned(&self, arena: &mut Arena, value: Term, count: Term, left: bool) -> Term {
        let bits = self.bits();
        let low = arena.constant(u128::from(bits - 1), bits);
        let count = arena.and(count, low);
        let opposite = arena.neg(count);
        let rest = arena.and(opposite, low);
        let (up, down) = if left { (count, rest) } else { (rest, count) };
        let (up, down) = (arena.shl(value, up), arena.lshr(value, down));
        arena.or(up, down)
    }

    /// The operation once more, on a known first operand.
    fn again(&self, arena: &mut Arena, left: Term, before: &State, after: &mut State) -> Option<Vec<Flag>> {
        let (result, flags) = self.operate(arena, left, before)?;
        after.write(arena, self.insn.op0_register(), result?)?;
        Some(set(after, flags))
    }

    fn store(&self, arena: &mut Arena, before: &State, after: &mut State) -> Option<Vec<Flag>> {
        if self.slot != Slot::Immediate {
            return None;
        }
        // The destination is memory: the registers that address it are as they were.
        let address = address(arena, after, self.insn)?;
        let (value, flags) = match self.insn.mnemonic() {
            Mnemonic::Mov => (self.number(arena, self.new)?, None),
            mnemonic => {
                let left = match mnemonic {
                    Mnemonic::Add | Mnemonic::Sub | Mnemonic::Xor => {
                        let held = self.read(arena, after)?;
                        self.undo(arena, held)?
                    }
                    _ => self.read(arena, before)?,
                };
                let (result, flags) = self.operate(arena, left, before)?;
                (result?, Some(flags))
            }
        };
        after.memory = arena.store_bytes(after.memory, address, value);
        Some(flags.map_or(Flag::ALL.to_vec(), |flags| set(after, flags)))
    }

    /// `left` combined with the new number, and the flags of that.
    fn operate(&self, arena: &mut Arena, left: Term, before: &State) -> Option<Outcome> {
        if self.slot != Slot::Immediate {
            return None;
        }
        let right = self.number(arena, self.new)?;
        match self.insn.mnemonic() {
            Mnemonic::Add => Some(sum(arena, left, right, false, true)),
            Mnemonic::Sub => Some(sum(arena, left, right, true, true)),
            Mnemonic::Cmp => Some(sum(arena, left, right, true, false)),
            Mnemonic::And => Some(logic(arena, Arena::and, left, right, true)),
            Mnemonic::Test => Some(logic(arena, Arena::and, left, right, false)),
            Mnemonic::Or => Some(logic(arena, Arena::or, left, right, true)),
            Mnemonic::Xor => Some(logic(arena, Arena::xor, left, right, true)),
            Mnemonic::Bt => {
                let bits = self.bits();
                let low = arena.constant(u128::from(bits - 1), bits);
                let at = arena.and(right, low);
                let shifted = arena.lshr(left, at);
                let bit = arena.bit(shifted, 0);
                Some((None, vec![(Flag::Carry, bit)]))
            }
            Mnemonic::Shl | Mnemonic::Sal | Mnemonic::Shr | Mnemonic::Sar => self.shift(arena, left, right, before),
            Mnemonic::Rol => Some((Some(self.turned(arena, left, right, true)), Vec::new())),
            Mnemonic::Ror => Some((Some(self.turned(arena, left, right, false)), Vec::new())),
            _ => None,
        }
    }

    /// Shifts by less than 32, or 64, as the processor masks the count; by nothing they keep the flags.
    fn shift(&self, arena: &mut Arena, left: Term, right: Term, before: &State) -> Option<Outcome> {
        let bits = self.bits();
        let mask = arena.constant(if bits == 64 { 63 } else { 31 }, bits);
        let count = arena.and(right, mask);
        let result = match self.insn.mnemonic() {
            Mnemonic::Shr => arena.lshr(left, count),
            Mnemonic::Sar => arena.ashr(left, count),
            _ => arena.shl(left, count),
        };
        let nothing = arena.constant(0, bits);
        let none = arena.eq(count, nothing);
        let mut flags = of_result(arena, result);
        for (flag, value) in &mut flags {
            *value = arena.ite(none, before.flags.get(*flag), *value);
        }
        Some((Some(result), flags))
    }
}

fn set(state: &mut State, flags: Vec<(Flag, Term)>) -> Vec<Flag> {
    flags
        .into_iter()
        .map(|(flag, value)| {
            state.flags.set(flag, value);
            flag
        })
        .collect()
}

/// ZF, SF and PF of a result.
fn of_result(arena: &mut Arena, result: Term) -> Vec<(Flag, Term)> {
    let bits = arena.width(result);
    let nothing = arena.constant(0, bits);
    let low = arena.extract(result, 7, 0);
    let zero = arena.eq(result, nothing);
    let negative = arena.bit(result, bits - 1);
    let parity = arena.parity(low);
    vec![(Flag::Zero, zero), (Flag::Sign, negative), (Flag::Parity, parity)]
}

/// Addition or subtraction: carry and overflow are what one bit more would have held.
fn sum(arena: &mut Arena, left: Term, right: Term, minus: bool, keeps: bool) -> Outcome {
    let bits = arena.width(left);
    let combine = |arena: &mut Arena, a: Term, b: Term| if minus { arena.sub(a, b) } else { arena.add(a, b) };
    let result = combine(arena, left, right);
    let (a, b) = (arena.zext(left, bits + 1), arena.zext(right, bits + 1));
    let unsigned = combine(arena, a, b);
    let (a, b) = (arena.sext(left, bits + 1), arena.sext(right, bits + 1));
    let whole = combine(arena, a, b);
    let mut flags = of_result(arena, result);
    flags.push((Flag::Carry, arena.bit(unsigned, bits)));
    let (top, below) = (arena.bit(whole, bits), arena.bit(whole, bits - 1));
    flags.push((Flag::Overflow, arena.xor(top, below)));
    (keeps.then_some(result), flags)
}

fn logic(
    arena: &mut Arena,
    combine: fn(&mut Arena, Term, Term) -> Term,
    left: Term,
    right: Term,
    keeps: bool,
) -> Outcome {
    let result = combine(arena, left, right);
    let mut flags = of_result(arena, result);
    let no = arena.bool(false);
    flags.extend([(Flag::Carry, no), (Flag::Overflow, no)]);
    (keeps.then_some(result), flags)
}

/// The address of the memory operand.
fn address(arena: &mut Arena, state: &State, insn: &Instruction) -> Option<Term> {
    let mut sum = arena.constant(u128::from(insn.memory_displacement64()), 64);
    let (base, index) = (insn.memory_base(), insn.memory_index());
    for (register, scale) in [(base, 1), (index, insn.memory_index_scale())] {
        if register == Register::None || register == Register::RIP {
            continue;
        }
        if !register.is_gpr64() {
            return None;
        }
        let value = state.read(arena, register)?;
        let scale = arena.constant(u128::from(scale), 64);
        let part = arena.mul(value, scale);
        sum = arena.add(sum, part);
    }
    Some(match insn.memory_segment() {
        Register::GS => arena.add(sum, state.gs_base),
        Register::FS => arena.add(sum, state.fs_base),
        _ => sum,
    })
}

/// How an instruction can be brought to another number.
pub fn kind(insn: &Instruction, slot: Slot) -> UpdateKind {
    let memory = insn.op_count() > 0 && insn.op0_kind() == OpKind::Memory;
    match insn.mnemonic() {
        _ if slot.is_factor() => match crate::operation::placed(insn, slot) {
            Some(o) if o.source.full_register() != o.target.full_register() => UpdateKind::Overwrite,
            _ => UpdateKind::Capture,
        },
        Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Bt => UpdateKind::Flags,
        _ if memory => UpdateKind::Store,
        Mnemonic::Mov | Mnemonic::Lea | Mnemonic::Movzx => UpdateKind::Overwrite,
        // The factor is still there unless the product took its place.
        Mnemonic::Imul if insn.op_count() == 3 => match insn.op1_kind() {
            OpKind::Register if insn.op1_register().full_register() == insn.op0_register().full_register() => {
                UpdateKind::Capture
            }
            _ => UpdateKind::Overwrite,
        },
        Mnemonic::Add | Mnemonic::Sub | Mnemonic::Xor | Mnemonic::Rol | Mnemonic::Ror => UpdateKind::Reverse,
        _ => UpdateKind::Capture,
    }
}

/// The index of the operand that holds a number.
pub fn operand(insn: &Instruction, slot: Slot) -> Option<u32> {
    match slot {
        Slot::Immediate => align::immediate_operand(insn),
        Slot::Displacement => (0..insn.op_count()).find(|n| insn.op_kind(*n) == OpKind::Memory),
        Slot::Factor | Slot::Second => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};
    use kerf_semantics::{Overrides, Prover, Verdict, step};

    fn decode(bytes: &[u8]) -> Instruction {
        Decoder::with_ip(64, bytes, 0x1000, DecoderOptions::NONE).decode()
    }

    /// Whether the update brings a deployed instruction to what it would have done with any number; the flags that the
    /// update does not define are left out. `None` if there is no such update.
    fn holds(insn: &Instruction, slot: Slot, kind: UpdateKind) -> Option<bool> {
        let mut arena = Arena::new();
        let mut before = State::symbolic(&mut arena);
        before.undefined = kerf_semantics::Undefined::Named("test".into());
        let new = arena.var("IV", 64);
        let (mut template, mut updated) = (before.clone(), before.clone());
        let mut overrides = Overrides::new();
        overrides.insert(insn.ip(), operand(insn, slot)?, new);
        step(&mut arena, &mut template, insn, &overrides).unwrap();
        step(&mut arena, &mut updated, insn, &Overrides::new()).unwrap();
        let old = match slot {
            Slot::Immediate => insn.try_immediate(align::immediate_operand(insn)?).ok()?,
            _ => insn.memory_displacement64(),
        };
        let old = arena.constant(u128::from(old), 64);
        let flags = Update { insn, slot, old, new, kind }.apply(&mut arena, &before, &mut updated)?;
        let mut equal = vec![arena.eq(updated.memory, template.memory)];
        equal.extend((0..16).map(|n| arena.eq(updated.gpr[n], template.gpr[n])));
        equal.extend(flags.into_iter().map(|f| arena.eq(updated.flags.get(f), template.flags.get(f))));
        let claim = arena.all(&equal);
        Some(matches!(Prover::start().unwrap().valid(&arena, &[], claim), Ok(Verdict::Proved)))
    }

    const IMMEDIATES: [&[u8]; 17] = [
        &[0xba, 0x20, 0, 0, 0],                // mov $32, %edx
        &[0x48, 0xc7, 0xc0, 0x20, 0, 0, 0],    // mov $32, %rax
        &[0x83, 0xc0, 0x40],                   // add $64, %eax
        &[0x48, 0x83, 0xe8, 0x05],             // sub $5, %rax
        &[0x83, 0xf3, 0x11],                   // xor $17, %ebx
        &[0x83, 0xe0, 0xe0],                   // and $-32, %eax
        &[0x83, 0xc9, 0x08],                   // or $8, %ecx
        &[0x83, 0xfa, 0x3f],                   // cmp $63, %edx
        &[0xa8, 0x20],                         // test $32, %al
        &[0x83, 0xbb, 0xd8, 0x13, 0, 0, 0x40], // cmpl $64, 0x13d8(%rbx)
        &[0xc7, 0x43, 0x10, 0x0a, 0, 0, 0],    // movl $10, 0x10(%rbx)
        &[0x83, 0x43, 0x10, 0x0a],             // addl $10, 0x10(%rbx)
        &[0x48, 0x83, 0x4b, 0x10, 0x0a],       // orq $10, 0x10(%rbx)
        &[0x48, 0xc1, 0xe8, 0x03],             // shr $3, %rax
        &[0xc1, 0xf8, 0x02],                   // sar $2, %eax
        &[0x6b, 0xc1, 0x0c],                   // imul $12, %ecx, %eax
        &[0x6a, 0x20],                         // push $32
    ];

    #[test]
    fn updates_bring_what_the_instruction_would_have_done() {
        for bytes in IMMEDIATES {
            let insn = decode(bytes);
            assert_eq!(holds(&insn, Slot::Immediate, kind(&insn, Slot::Immediate)), Some(true), "{insn}");
        }
        let lea = decode(&[0x8d, 0x48, 0x0a]);
        assert_eq!(holds(&lea, Slot::Displacement, kind(&lea, Slot::Displacement)), Some(true));
    }

    #[test]
    fn an_update_of_another_kind_is_no_update() {
        let overwritten = decode(&[0x83, 0xc0, 0x40]);
        assert_eq!(holds(&overwritten, Slot::Immediate, UpdateKind::Overwrite), None, "{overwritten}");
        let lost = decode(&[0x83, 0xe0, 0xe0]);
        assert_eq!(holds(&lost, Slot::Immediate, UpdateKind::Reverse), None, "{lost}");
        let kept = decode(&[0x83, 0xc0, 0x40]);
        assert_eq!(holds(&kept, Slot::Immediate, UpdateKind::Flags), Some(false), "{kept}");
        let address = decode(&[0x8b, 0x43, 0x10]);
        assert_eq!(holds(&address, Slot::Displacement, UpdateKind::Overwrite), None, "{address}");
    }
}
