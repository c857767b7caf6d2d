//! Addition, subtraction, logic, multiplication and division, with their flags.

use iced_x86::{Mnemonic, OpKind, Register};

use crate::operand::{Result, Step};
use crate::state::Flag;
use crate::term::Term;

impl Step<'_> {
    /// Whether the instruction belongs to this family; then it has been executed.
    pub(crate) fn arithmetic(&mut self) -> Result<bool> {
        match self.insn.mnemonic() {
            Mnemonic::Add => {
                let (a, b) = (self.read(0)?, self.read(1)?);
                let sum = self.add_with_flags(a, b);
                self.write(0, sum)?;
            }
            Mnemonic::Sub => {
                let (a, b) = (self.read(0)?, self.read(1)?);
                let difference = self.sub_with_flags(a, b);
                self.write(0, difference)?;
            }
            Mnemonic::Cmp => {
                let (a, b) = (self.read(0)?, self.read(1)?);
                self.sub_with_flags(a, b);
            }
            Mnemonic::Adc => self.with_carry(false)?,
            Mnemonic::Sbb => self.with_carry(true)?,
            Mnemonic::Neg => {
                let a = self.read(0)?;
                let zero = self.arena.constant(0, self.arena.width(a));
                let negated = self.sub_with_flags(zero, a);
                self.write(0, negated)?;
            }
            Mnemonic::Inc | Mnemonic::Dec => {
                let (a, carry) = (self.read(0)?, self.state.flags.cf);
                let one = self.arena.constant(1, self.arena.width(a));
                let increment = self.insn.mnemonic() == Mnemonic::Inc;
                let result = if increment { self.add_with_flags(a, one) } else { self.sub_with_flags(a, one) };
                self.state.flags.cf = carry;
                self.write(0, result)?;
            }
            Mnemonic::Not => {
                let a = self.read(0)?;
                let complement = self.arena.not(a);
                self.write(0, complement)?;
            }
            Mnemonic::And | Mnemonic::Or | Mnemonic::Xor | Mnemonic::Test | Mnemonic::Andn => self.logic()?,
            Mnemonic::Xadd => {
                let (a, b) = (self.read(0)?, self.read(1)?);
                let sum = self.add_with_flags(a, b);
                // The address may need the register that is about to change; a register written twice keeps the sum.
                if self.insn.op_kind(0) == OpKind::Memory {
                    self.write(0, sum)?;
                    self.write(1, a)?;
                } else {
                    self.write(1, a)?;
                    self.write(0, sum)?;
                }
            }
            Mnemonic::Cmpxchg => self.cmpxchg()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// AF is the carry into bit 4: `a ^ b ^ result` there.
    fn set_adjust(&mut self, a: Term, b: Term, result: Term) {
        let (a, b, result) = (self.arena.bit(a, 4), self.arena.bit(b, 4), self.arena.bit(result, 4));
        let mixed = self.arena.xor(a, b);
        self.state.flags.af = self.arena.xor(mixed, result);
    }

    pub(crate) fn add_with_flags(&mut self, a: Term, b: Term) -> Term {
        let width = self.arena.width(a);
        let sum = self.arena.add(a, b);
        self.set_result_flags(sum);
        self.set_adjust(a, b, sum);
        let sign = self.state.flags.sf;
        // With a constant, adding is comparing with its negative.
        let (value, other) = match (self.arena.as_constant(a), self.arena.as_constant(b)) {
            (_, Some(value)) => (Some(value), a),
            (Some(value), _) => (Some(value), b),
            _ => (None, a),
        };
        match value {
            Some(value) if value != 0 && value != 1 << (width - 1) => {
                let negative = self.arena.constant(value.wrapping_neg(), width);
                let below = self.arena.ult(other, negative);
                self.state.flags.cf = self.arena.not(below);
                let less = self.arena.slt(other, negative);
                self.state.flags.of = self.arena.xor(less, sign);
            }
            _ => {
                self.state.flags.cf = self.arena.ult(sum, a.min(b));
                self.state.flags.of = self.add_overflow(a, b, sum);
            }
        }
        sum
    }

    /// Both operands differ from the result in sign.
    fn add_overflow(&mut self, a: Term, b: Term, sum: Term) -> Term {
        let (a, b, sum) = (self.arena.sign(a), self.arena.sign(b), self.arena.sign(sum));
        let (first, second) = (self.arena.xor(a, sum), self.arena.xor(b, sum));
        self.arena.and(first, second)
    }

    pub(crate) fn sub_with_flags(&mut self, a: Term, b: Term) -> Term {
        let difference = self.arena.sub(a, b);
        self.set_result_flags(difference);
        self.set_adjust(a, b, difference);
        self.state.flags.cf = self.arena.ult(a, b);
        // OF is chosen so that SF ^ OF, the condition `l`, is the comparison itself.
        let less = self.arena.slt(a, b);
        self.state.flags.of = self.arena.xor(less, self.state.flags.sf);
        difference
    }

    fn with_carry(&mut self, borrow: bool) -> Result<()> {
        let (a, b) = (self.read(0)?, self.read(1)?);
        let width = self.arena.width(a);
        let wide = |step: &mut Self, term: Term| step.arena.zext(term, width + 1);
        let (x, y, carry) = (wide(self, a), wide(self, b), self.state.flags.cf);
        let carry = wide(self, carry);
        let sum = if borrow {
            let first = self.arena.sub(x, y);
            self.arena.sub(first, carry)
        } else {
            let first = self.arena.add(x, y);
            self.arena.add(first, carry)
        };
        let result = self.arena.extract(sum, width - 1, 0);
        self.set_result_flags(result);
        self.set_adjust(a, b, result);
        self.state.flags.cf = self.arena.bit(sum, width);
        let minuend = if borrow { self.arena.not(b) } else { b };
        self.state.flags.of = self.add_overflow(a, minuend, result);
        self.write(0, result)
    }

    fn logic(&mut self) -> Result<()> {
        let mnemonic = self.insn.mnemonic();
        let first = u32::from(mnemonic == Mnemonic::Andn);
        let (a, b) = (self.read(first)?, self.read(first + 1)?);
        let result = match mnemonic {
            Mnemonic::Or => self.arena.or(a, b),
            Mnemonic::Xor => self.arena.xor(a, b),
            Mnemonic::Andn => {
                let complement = self.arena.not(a);
                self.arena.and(complement, b)
            }
            _ => self.arena.and(a, b),
        };
        self.set_result_flags(result);
        let zero = self.arena.bool(false);
        self.state.flags.cf = zero;
        self.state.flags.of = zero;
        self.undefine(&[Flag::Adjust], &[a, b]);
        if mnemonic == Mnemonic::Andn {
            self.undefine(&[Flag::Parity], &[a, b]);
        }
        if mnemonic == Mnemonic::Test { Ok(()) } else { self.write(0, result) }
    }

    fn cmpxchg(&mut self) -> Result<()> {
        let accumulator = match self.width(0)? {
            8 => Register::AL,
            16 => Register::AX,
            32 => Register::EAX,
            _ => Register::RAX,
        };
        let (old, new, expected) = (self.read(0)?, self.read(1)?, self.register(accumulator)?);
        self.sub_with_flags(expected, old);
        let equal = self.state.flags.zf;
        let stored = self.arena.ite(equal, new, old);
        let in_memory = self.insn.op_kind(0) == OpKind::Memory;
        if in_memory {
            self.write(0, stored)?;
        }
        // The accumulator is written only on failure: a 32-bit success leaves its upper half alone.
        let before = self.register(Register::RAX)?;
        self.set_register(accumulator, old)?;
        let after = self.register(Register::RAX)?;
        let rax = self.arena.ite(equal, before, after);
        self.set_register(Register::RAX, rax)?;
        if in_memory { Ok(()) } else { self.write_exchanged(stored, equal) }
    }

    /// The destination register of `cmpxchg`: on failure, processors differ on whether the upper half of a 32-bit one
    /// is cleared.
    fn write_exchanged(&mut self, stored: Term, equal: Term) -> Result<()> {
        self.write(0, stored)?;
        if self.arena.width(stored) == 32 {
            let full = self.insn.op0_register().full_register();
            let written = self.register(full)?;
            let high = self.undefined("high", &[written, equal], 32);
            let unclear = self.arena.concat(high, stored);
            let value = self.arena.ite(equal, written, unclear);
            self.set_register(full, value)?;
        }
        Ok(())
    }

    /// Whether the instruction belongs to this family; then it has been executed.
    pub(crate) fn multiplication(&mut self) -> Result<bool> {
        match (self.insn.mnemonic(), self.insn.op_count()) {
            (Mnemonic::Imul, 1) => self.wide_multiplication(true)?,
            (Mnemonic::Mul, _) => self.wide_multiplication(false)?,
            (Mnemonic::Imul, count) => {
                let first = count - 2;
                let (a, b) = (self.read(first)?, self.read(first + 1)?);
                let width = self.arena.width(a);
                let product = self.product(a, b, true);
                let low = self.arena.extract(product, width - 1, 0);
                self.set_product_flags(product, low, true, &[a, b]);
                self.write(0, low)?;
            }
            (Mnemonic::Div, _) => self.division(false)?,
            (Mnemonic::Idiv, _) => self.division(true)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The product in twice the width.
    fn product(&mut self, a: Term, b: Term, signed: bool) -> Term {
        let width = 2 * self.arena.width(a);
        let extend = |step: &mut Self, term: Term| {
            if signed { step.arena.sext(term, width) } else { step.arena.zext(term, width) }
        };
        let (a, b) = (extend(self, a), extend(self, b));
        self.arena.mul(a, b)
    }

    /// CF and OF say that the upper half carries information; the others are undefined.
    fn set_product_flags(&mut self, product: Term, low: Term, signed: bool, inputs: &[Term]) {
        let width = self.arena.width(product);
        let extended = if signed { self.arena.sext(low, width) } else { self.arena.zext(low, width) };
        let fits = self.arena.eq(product, extended);
        let overflow = self.arena.not(fits);
        self.state.flags.cf = overflow;
        self.state.flags.of = overflow;
        self.undefine(&[Flag::Sign, Flag::Zero, Flag::Adjust, Flag::Parity], inputs);
    }

    /// The registers that hold the low and the high half for one-operand forms; 8-bit ones use `ax` alone.
    fn halves(&self, width: u32) -> (Register, Register) {
        match width {
            8 => (Register::AL, Register::AH),
            16 => (Register::AX, Register::DX),
            32 => (Register::EAX, Register::EDX),
            _ => (Register::RAX, Register::RDX),
        }
    }

    fn wide_multiplication(&mut self, signed: bool) -> Result<()> {
        let b = self.read(0)?;
        let width = self.arena.width(b);
        let (low_register, high_register) = self.halves(width);
        let a = self.register(low_register)?;
        let product = self.product(a, b, signed);
        let (low, high) =
            (self.arena.extract(product, width - 1, 0), self.arena.extract(product, 2 * width - 1, width));
        self.set_product_flags(product, low, signed, &[a, b]);
        self.set_register(low_register, low)?;
        self.set_register(high_register, high)
    }

    fn division(&mut self, signed: bool) -> Result<()> {
        let divisor = self.read(0)?;
        let width = self.arena.width(divisor);
        let (low_register, high_register) = self.halves(width);
        let (low, high) = (self.register(low_register)?, self.register(high_register)?);
        let dividend = self.arena.concat(high, low);
        let (quotient, remainder) = if signed {
            let wide = self.arena.sext(divisor, 2 * width);
            (self.arena.sdiv(dividend, wide), self.arena.srem(dividend, wide))
        } else {
            let wide = self.arena.zext(divisor, 2 * width);
            (self.arena.udiv(dividend, wide), self.arena.urem(dividend, wide))
        };
        let (result, rest) = (self.arena.extract(quotient, width - 1, 0), self.arena.extract(remainder, width - 1, 0));
        let extended = if signed { self.arena.sext(result, 2 * width) } else { self.arena.zext(result, 2 * width) };
        let fits = self.arena.eq(extended, quotient);
        let zero = self.arena.constant(0, width);
        let (by_zero, too_big) = (self.arena.eq(divisor, zero), self.arena.not(fits));
        // -2^(2n-1) / -1 wraps in the double width and so does not fit either.
        let raised = self.arena.or(by_zero, too_big);
        self.state.trap = self.arena.or(self.state.trap, raised);
        self.undefine(&Flag::ALL, &[dividend, divisor]);
        self.set_register(low_register, result)?;
        self.set_register(high_register, rest)
    }

    /// The immediate or register that gives a shift its count, as 8 bits.
    pub(crate) fn count(&mut self, index: u32) -> Result<Term> {
        if self.insn.op_count() <= index {
            return Ok(self.arena.constant(1, 8));
        }
        match self.insn.op_kind(index) {
            OpKind::Register | OpKind::Immediate8 => self.read(index),
            _ => self.unsupported("shift count of an unusual kind"),
        }
    }
}
