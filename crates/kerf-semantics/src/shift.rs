//! Shifts and rotations, with exact flags for constant and for variable counts.
//!
//! The count is masked to 5 bits (6 for 64-bit operands); a masked count of zero changes nothing, flags included.

use iced_x86::Mnemonic;

use crate::operand::{Result, Step};
use crate::state::{Flag, Flags};
use crate::term::Term;

impl Step<'_> {
    /// Whether the instruction belongs to this family; then it has been executed.
    pub(crate) fn shifts(&mut self) -> Result<bool> {
        match self.insn.mnemonic() {
            Mnemonic::Shl | Mnemonic::Sal | Mnemonic::Shr | Mnemonic::Sar => self.plain_shift()?,
            Mnemonic::Rol | Mnemonic::Ror => self.rotation()?,
            Mnemonic::Shld | Mnemonic::Shrd => self.double_shift()?,
            Mnemonic::Shlx | Mnemonic::Shrx | Mnemonic::Sarx => self.flagless_shift()?,
            Mnemonic::Rorx => {
                let (value, count) = (self.read(1)?, self.read(2)?);
                let width = self.arena.width(value);
                let count = self.masked(count, width);
                let rotated = self.rotate(value, count, false);
                self.write(0, rotated)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// An 8-bit count as the processor takes it for operands of `width` bits, extended to `width` bits.
    fn masked(&mut self, count: Term, width: u32) -> Term {
        let bits = if width == 64 { 6 } else { 5 };
        let low = self.arena.extract(count, bits - 1, 0);
        self.arena.zext(low, width)
    }

    fn is(&mut self, count: Term, value: u128) -> Term {
        let value = self.arena.constant(value, self.arena.width(count));
        self.arena.eq(count, value)
    }

    /// Puts back the old flags where the count is zero.
    fn keep_flags_if_zero(&mut self, count: Term, before: Flags) {
        let zero = self.is(count, 0);
        for flag in Flag::ALL {
            let value = self.arena.ite(zero, before.get(flag), self.state.flags.get(flag));
            self.state.flags.set(flag, value);
        }
    }

    /// OF, which is only defined for a count of one.
    fn set_overflow(&mut self, count: Term, defined: Term, inputs: &[Term]) {
        let one = self.is(count, 1);
        let undefined = self.undefined("of", inputs, 1);
        self.state.flags.of = self.arena.ite(one, defined, undefined);
    }

    fn plain_shift(&mut self) -> Result<()> {
        let (value, count) = (self.read(0)?, self.count(1)?);
        let before = self.state.flags;
        let width = self.arena.width(value);
        let count = self.masked(count, width);
        let sign = self.arena.sign(value);
        let (result, carry, overflow) = match self.insn.mnemonic() {
            Mnemonic::Shr => {
                let carry = self.last_out_right(value, count, false);
                (self.arena.lshr(value, count), carry, sign)
            }
            Mnemonic::Sar => {
                let carry = self.last_out_right(value, count, true);
                (self.arena.ashr(value, count), carry, self.arena.bool(false))
            }
            _ => {
                let carry = self.last_out_left(value, count);
                let result = self.arena.shl(value, count);
                let top = self.arena.sign(result);
                (result, carry, self.arena.xor(top, carry))
            }
        };
        let inputs = [value, count];
        self.set_result_flags(result);
        self.state.flags.cf = carry;
        if self.insn.mnemonic() != Mnemonic::Sar && width < 32 {
            self.undefine_carry(count, width, &inputs);
        }
        self.set_overflow(count, overflow, &inputs);
        self.undefine(&[Flag::Adjust], &inputs);
        self.keep_flags_if_zero(count, before);
        self.write(0, result)
    }

    /// Narrow operands can be shifted by their width and more; then CF is undefined.
    fn undefine_carry(&mut self, count: Term, width: u32, inputs: &[Term]) {
        let limit = self.arena.constant(u128::from(width), width);
        let within = self.arena.ult(count, limit);
        let undefined = self.undefined("cf", inputs, 1);
        self.state.flags.cf = self.arena.ite(within, self.state.flags.cf, undefined);
    }

    /// The last bit that a shift to the left moves out, for counts of at least 1.
    fn last_out_left(&mut self, value: Term, count: Term) -> Term {
        let width = self.arena.width(value);
        let (wide, count) = (self.arena.zext(value, width + 1), self.arena.zext(count, width + 1));
        let shifted = self.arena.shl(wide, count);
        self.arena.bit(shifted, width)
    }

    /// The last bit that a shift to the right moves out, for counts of at least 1.
    fn last_out_right(&mut self, value: Term, count: Term, signed: bool) -> Term {
        let one_less = self.arena.add_constant(count, u128::MAX);
        let shifted = if signed { self.arena.ashr(value, one_less) } else { self.arena.lshr(value, one_less) };
        self.arena.bit(shifted, 0)
    }

    /// `value` rotated by `count`, which is less than 2·width and as wide as the value.
    fn rotate(&mut self, value: Term, count: Term, left: bool) -> Term {
        let width = self.arena.width(value);
        let bits = width.trailing_zeros();
        // Widths are powers of two, so the count modulo the width is its low bits.
        let low = self.arena.extract(count, bits - 1, 0);
        let amount = self.arena.zext(low, width);
        if let Some(amount) = self.arena.as_constant(amount) {
            let amount = amount as u32;
            let left = if left { amount } else { width - amount } % width;
            if left == 0 {
                return value;
            }
            let (high, low) =
                (self.arena.extract(value, width - left - 1, 0), self.arena.extract(value, width - 1, width - left));
            return self.arena.concat(high, low);
        }
        let whole = self.arena.constant(u128::from(width), width);
        // A shift by the whole width gives zero, so a rotation by zero comes out right.
        let rest = self.arena.sub(whole, amount);
        let (to_left, to_right) = if left { (amount, rest) } else { (rest, amount) };
        let (a, b) = (self.arena.shl(value, to_left), self.arena.lshr(value, to_right));
        self.arena.or(a, b)
    }

    fn rotation(&mut self) -> Result<()> {
        let (value, count) = (self.read(0)?, self.count(1)?);
        let before = self.state.flags;
        let width = self.arena.width(value);
        let left = self.insn.mnemonic() == Mnemonic::Rol;
        let count = self.masked(count, width);
        let result = self.rotate(value, count, left);
        let top = self.arena.sign(result);
        let second = if left { self.arena.bit(result, 0) } else { self.arena.bit(result, width - 2) };
        self.state.flags.cf = if left { second } else { top };
        let overflow = self.arena.xor(top, second);
        self.set_overflow(count, overflow, &[value, count]);
        self.keep_flags_if_zero(count, before);
        self.write(0, result)
    }

    fn double_shift(&mut self) -> Result<()> {
        let (value, filler, count) = (self.read(0)?, self.read(1)?, self.count(2)?);
        let before = self.state.flags;
        let width = self.arena.width(value);
        let left = self.insn.mnemonic() == Mnemonic::Shld;
        let count = self.masked(count, width);
        let wide_count = self.arena.zext(count, 2 * width);
        let (mut result, carry);
        if left {
            let joined = self.arena.concat(value, filler);
            let shifted = self.arena.shl(joined, wide_count);
            result = self.arena.extract(shifted, 2 * width - 1, width);
            carry = self.last_out_left(value, count);
        } else {
            let joined = self.arena.concat(filler, value);
            let shifted = self.arena.lshr(joined, wide_count);
            result = self.arena.extract(shifted, width - 1, 0);
            carry = self.last_out_right(value, count, false);
        }
        let inputs = [value, filler, count];
        let mut past = None;
        if width == 16 {
            let limit = self.arena.constant(16, width);
            let within = self.arena.ule(count, limit);
            let undefined = self.undefined("result", &inputs, width);
            result = self.arena.ite(within, result, undefined);
            past = Some(self.arena.not(within));
        }
        self.set_result_flags(result);
        self.state.flags.cf = carry;
        let (old_sign, new_sign) = (self.arena.sign(value), self.arena.sign(result));
        let overflow = self.arena.xor(old_sign, new_sign);
        self.set_overflow(count, overflow, &inputs);
        self.undefine(&[Flag::Adjust], &inputs);
        if let Some(past) = past {
            for flag in [Flag::Carry, Flag::Parity, Flag::Zero, Flag::Sign] {
                let undefined = self.undefined(flag.name(), &inputs, 1);
                let value = self.arena.ite(past, undefined, self.state.flags.get(flag));
                self.state.flags.set(flag, value);
            }
        }
        self.keep_flags_if_zero(count, before);
        self.write(0, result)
    }

    fn flagless_shift(&mut self) -> Result<()> {
        let (value, count) = (self.read(1)?, self.read(2)?);
        let width = self.arena.width(value);
        let count = self.masked(count, width);
        let result = match self.insn.mnemonic() {
            Mnemonic::Shlx => self.arena.shl(value, count),
            Mnemonic::Shrx => self.arena.lshr(value, count),
            _ => self.arena.ashr(value, count),
        };
        self.write(0, result)
    }
}
