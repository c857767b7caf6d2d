//! Single bits and counts of bits: `bt` and its family, scans, `popcnt`, and the BMI1 forms.

use iced_x86::{Mnemonic, OpKind};

use crate::operand::{Result, Step};
use crate::state::Flag;
use crate::term::Term;

impl Step<'_> {
    /// Whether the instruction belongs to this family; then it has been executed.
    pub(crate) fn bit_ops(&mut self) -> Result<bool> {
        match self.insn.mnemonic() {
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc => self.bit_test()?,
            Mnemonic::Bsf | Mnemonic::Bsr => self.scan()?,
            Mnemonic::Tzcnt | Mnemonic::Lzcnt => self.count_zeros()?,
            Mnemonic::Popcnt => self.population()?,
            Mnemonic::Blsr | Mnemonic::Blsi | Mnemonic::Blsmsk => self.lowest_bit()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn bit_test(&mut self) -> Result<()> {
        let offset = self.read(1)?;
        // A register can point beyond the operand: memory is then a string of bits.
        let place = match (self.insn.op_kind(0), self.insn.op_kind(1)) {
            (OpKind::Memory, OpKind::Register) => Some(self.bit_string_address(offset)?),
            _ => None,
        };
        let value = match place {
            Some(address) => {
                let bytes = self.width(0)? / 8;
                self.load(address, bytes)?
            }
            None => self.read(0)?,
        };
        let width = self.arena.width(value);
        let low = self.arena.extract(offset, width.trailing_zeros() - 1, 0);
        let amount = self.arena.zext(low, width);
        let shifted = self.arena.lshr(value, amount);
        self.state.flags.cf = self.arena.bit(shifted, 0);
        self.undefine(&[Flag::Overflow, Flag::Sign, Flag::Adjust, Flag::Parity], &[value, offset]);
        let one = self.arena.constant(1, width);
        let bit = self.arena.shl(one, amount);
        let result = match self.insn.mnemonic() {
            Mnemonic::Bts => self.arena.or(value, bit),
            Mnemonic::Btr => {
                let others = self.arena.not(bit);
                self.arena.and(value, others)
            }
            Mnemonic::Btc => self.arena.xor(value, bit),
            _ => return Ok(()),
        };
        match place {
            Some(address) => {
                self.save(address, result);
                Ok(())
            }
            None => self.write(0, result),
        }
    }

    /// The address of the operand-sized word that holds bit `offset`, a signed number, counted from the operand.
    fn bit_string_address(&mut self, offset: Term) -> Result<Term> {
        let width = self.arena.width(offset);
        let word = self.arena.extract(offset, width - 1, width.trailing_zeros());
        let word = self.arena.sext(word, 64);
        let distance = self.arena.scale(word, u128::from(width / 8));
        self.address_with_offset(distance)
    }

    /// The number of the lowest (highest) set bit, `none` if there is none; all `width` bits wide.
    fn find_bit(&mut self, value: Term, highest: bool, none: Term) -> Term {
        let width = self.arena.width(value);
        let mut result = none;
        for step in 0..width {
            // The bit looked at last takes precedence.
            let index = if highest { step } else { width - 1 - step };
            let (bit, number) = (self.arena.bit(value, index), self.arena.constant(u128::from(index), width));
            result = self.arena.ite(bit, number, result);
        }
        result
    }

    fn scan(&mut self) -> Result<()> {
        let value = self.read(1)?;
        let old = self.read(0)?;
        let width = self.arena.width(value);
        let highest = self.insn.mnemonic() == Mnemonic::Bsr;
        let zero = self.arena.constant(0, width);
        let empty = self.arena.eq(value, zero);
        // Without a set bit the destination stays as it was. Manuals differ on the upper half of 32-bit forms.
        let found = self.find_bit(value, highest, old);
        let register = self.insn.op0_register();
        let before = self.register(register.full_register())?;
        self.state.flags.zf = empty;
        let others = [Flag::Carry, Flag::Overflow, Flag::Sign, Flag::Adjust, Flag::Parity];
        self.undefine(&others, &[value]);
        self.write(0, found)?;
        if width == 32 {
            let low = self.arena.extract(before, 31, 0);
            let high = self.undefined("high", &[value, before], 32);
            let kept = self.arena.concat(high, low);
            let written = self.register(register.full_register())?;
            let whole = self.arena.ite(empty, kept, written);
            self.set_register(register.full_register(), whole)?;
        }
        Ok(())
    }

    fn count_zeros(&mut self) -> Result<()> {
        let value = self.read(1)?;
        let width = self.arena.width(value);
        let zero = self.arena.constant(0, width);
        let empty = self.arena.eq(value, zero);
        let leading = self.insn.mnemonic() == Mnemonic::Lzcnt;
        // With no bit set the answer is the width; leading zeros are counted down from the highest number.
        let none = self.arena.constant(if leading { u128::MAX } else { u128::from(width) }, width);
        let mut result = self.find_bit(value, leading, none);
        if leading {
            let top = self.arena.constant(u128::from(width - 1), width);
            result = self.arena.sub(top, result);
        }
        self.state.flags.cf = empty;
        self.state.flags.zf = self.arena.eq(result, zero);
        self.undefine(&[Flag::Overflow, Flag::Sign, Flag::Adjust, Flag::Parity], &[value]);
        self.write(0, result)
    }

    fn population(&mut self) -> Result<()> {
        let value = self.read(1)?;
        let width = self.arena.width(value);
        let mut result = self.arena.constant(0, width);
        for index in 0..width {
            let bit = self.arena.bit(value, index);
            let bit = self.arena.zext(bit, width);
            result = self.arena.add(result, bit);
        }
        let zero = self.arena.constant(0, width);
        let clear = self.arena.bool(false);
        for flag in Flag::ALL {
            self.state.flags.set(flag, clear);
        }
        self.state.flags.zf = self.arena.eq(value, zero);
        self.write(0, result)
    }

    fn lowest_bit(&mut self) -> Result<()> {
        let value = self.read(1)?;
        let zero = self.arena.constant(0, self.arena.width(value));
        let empty = self.arena.eq(value, zero);
        let less = self.arena.add_constant(value, u128::MAX);
        let (result, carry) = match self.insn.mnemonic() {
            Mnemonic::Blsr => (self.arena.and(value, less), empty),
            Mnemonic::Blsmsk => (self.arena.xor(value, less), empty),
            _ => {
                let negated = self.arena.neg(value);
                (self.arena.and(value, negated), self.arena.not(empty))
            }
        };
        self.set_result_flags(result);
        self.state.flags.cf = carry;
        self.state.flags.of = self.arena.bool(false);
        self.undefine(&[Flag::Adjust, Flag::Parity], &[value]);
        self.write(0, result)
    }
}
