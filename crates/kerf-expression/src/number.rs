//! Arithmetic of 64 bits as BPF does it, and of constants, where nothing may get lost.

use crate::ast::{Arithmetic, Order};
use crate::error::Problem;

/// What a BPF program computes: it wraps; a division by zero gives 0 and a remainder by zero the dividend; shifts count modulo 64.
pub fn compute(operator: Arithmetic, signed: bool, left: u64, right: u64) -> u64 {
    let (l, r) = (left as i64, right as i64);
    match operator {
        Arithmetic::Multiply => left.wrapping_mul(right),
        Arithmetic::Add => left.wrapping_add(right),
        Arithmetic::Subtract => left.wrapping_sub(right),
        Arithmetic::Divide if right == 0 => 0,
        Arithmetic::Remainder if right == 0 => left,
        Arithmetic::Divide if signed => l.wrapping_div(r) as u64,
        Arithmetic::Remainder if signed => l.wrapping_rem(r) as u64,
        Arithmetic::Divide => left / right,
        Arithmetic::Remainder => left % right,
        Arithmetic::ShiftLeft => left.wrapping_shl(right as u32),
        Arithmetic::ShiftRight if signed => l.wrapping_shr(right as u32) as u64,
        Arithmetic::ShiftRight => left.wrapping_shr(right as u32),
        Arithmetic::And => left & right,
        Arithmetic::Xor => left ^ right,
        Arithmetic::Or => left | right,
    }
}

/// Whether two numbers are in an order.
pub fn ordered(order: Order, signed: bool, left: u64, right: u64) -> bool {
    let ordering = if signed { (left as i64).cmp(&(right as i64)) } else { left.cmp(&right) };
    holds(order, ordering)
}

/// Whether an order is what an operator asks for.
pub fn holds(order: Order, ordering: std::cmp::Ordering) -> bool {
    match order {
        Order::Less => ordering.is_lt(),
        Order::LessEqual => ordering.is_le(),
        Order::Greater => ordering.is_gt(),
        Order::GreaterEqual => ordering.is_ge(),
    }
}

/// A result that must fit 64 bits, signed or not.
pub fn fitting(value: i128) -> Result<i128, Problem> {
    let fits = (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value);
    if fits { Ok(value) } else { Err(Problem::Overflow) }
}

/// Whether a constant is a signed, or an unsigned, number of 64 bits.
pub fn fits(value: i128, signed: bool) -> bool {
    if signed { i64::try_from(value).is_ok() } else { u64::try_from(value).is_ok() }
}

/// The 64 bits that stand for a constant.
pub fn bits(value: i128) -> u64 {
    value as u64
}

/// What constants give, exactly.
pub fn fold(operator: Arithmetic, left: i128, right: i128) -> Result<i128, Problem> {
    let shift = || u32::try_from(right).ok().filter(|by| *by < 64).ok_or(Problem::Shift);
    let value = match operator {
        // Of two numbers of 64 bits only a product can be too large even for what is computed with here.
        Arithmetic::Multiply => left.checked_mul(right).ok_or(Problem::Overflow)?,
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Divide | Arithmetic::Remainder if right == 0 => return Err(Problem::Zero),
        Arithmetic::Divide => left / right,
        Arithmetic::Remainder => left % right,
        Arithmetic::ShiftLeft => left << shift()?,
        Arithmetic::ShiftRight => left >> shift()?,
        Arithmetic::And => left & right,
        Arithmetic::Xor => left ^ right,
        Arithmetic::Or => left | right,
    };
    fitting(value)
}

/// The complement of a constant: of one that only an unsigned number can be, the unsigned complement.
pub fn complement(value: i128) -> i128 {
    match u64::try_from(value) {
        Ok(value) if value > i64::MAX as u64 => i128::from(!value),
        _ => !value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_as_in_bpf() {
        let min = i64::MIN as u64;
        assert_eq!(compute(Arithmetic::Divide, true, min, u64::MAX), min);
        assert_eq!(compute(Arithmetic::Remainder, true, min, u64::MAX), 0);
        assert_eq!(compute(Arithmetic::Divide, true, 7, 0), 0);
        assert_eq!(compute(Arithmetic::Remainder, false, 7, 0), 7);
        assert_eq!(compute(Arithmetic::ShiftLeft, false, 1, 65), 2);
        assert_eq!(compute(Arithmetic::ShiftRight, true, min, 63), u64::MAX);
        assert_eq!(compute(Arithmetic::Remainder, true, -7i64 as u64, 3), -1i64 as u64);
    }

    #[test]
    fn constants_lose_nothing() {
        assert_eq!(fold(Arithmetic::ShiftLeft, 1, 63), Ok(1 << 63));
        assert_eq!(fold(Arithmetic::ShiftLeft, 1, 64), Err(Problem::Shift));
        assert_eq!(fold(Arithmetic::ShiftRight, 1, -1), Err(Problem::Shift));
        assert_eq!(fold(Arithmetic::Multiply, 1 << 40, 1 << 40), Err(Problem::Overflow));
        assert_eq!(fold(Arithmetic::Divide, 1, 0), Err(Problem::Zero));
        assert_eq!(complement(7), -8);
        assert_eq!(complement(u64::MAX.into()), 0);
    }
}
