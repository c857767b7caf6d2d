//! How large an unsigned term can be, from its form alone: compilers use the signed instruction for a number that they
//! know to be positive, and both have to get one form.

use crate::term::{Arena, BitOp, DivOp, Node, ShiftOp, Term, mask};

/// Terms that are nested deeper are not looked into.
const DEPTH: u32 = 12;

impl Arena {
    /// How many low bits of a term can be ones: the others are zeros whatever the variables are.
    pub(crate) fn significant_bits(&self, term: Term) -> u32 {
        let most = self.largest(term, DEPTH);
        128 - most.leading_zeros()
    }

    /// An upper bound, never more than the width's ones.
    fn largest(&self, term: Term, depth: u32) -> u128 {
        let width = self.width(term);
        let ones = mask(width);
        if depth == 0 {
            return ones;
        }
        let inner = |t: Term| self.largest(t, depth - 1);
        let bits = |t: Term| 128 - inner(t).leading_zeros();
        let most = match self.node(term) {
            Node::Constant(value) => *value,
            Node::Zext(t) => inner(*t),
            Node::Product(a, b) => inner(*a).checked_mul(inner(*b)).unwrap_or(ones),
            Node::Sum(terms, constant) => {
                let sum = terms
                    .iter()
                    .try_fold(*constant, |sum, (t, factor)| sum.checked_add(inner(*t).checked_mul(*factor)?));
                // A sum that may wrap can be anything.
                sum.filter(|s| *s <= ones).unwrap_or(ones)
            }
            Node::Divide(DivOp::Udiv, a, b) => match self.as_constant(*b) {
                Some(divisor) if divisor != 0 => inner(*a) / divisor,
                _ => ones,
            },
            Node::Bits(op, terms, constant) => match op {
                BitOp::And => terms.iter().map(|t| inner(*t)).fold(*constant, u128::min),
                BitOp::Or | BitOp::Xor => {
                    let used = terms.iter().map(|t| bits(*t)).max().unwrap_or(0);
                    mask(used.max(128 - constant.leading_zeros()))
                }
            },
            Node::Shift(ShiftOp::Lshr, t, _) => inner(*t),
            Node::Concat(high, low) => inner(*high) << self.width(*low) | mask(self.width(*low)),
            Node::Extract(t, hi, lo) => {
                let whole = inner(*t);
                if whole <= mask(hi + 1) { whole >> lo } else { ones }
            }
            Node::Ite(_, yes, no) => inner(*yes).max(inner(*no)),
            _ => ones,
        };
        most.min(ones)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_narrow_numbers_are_narrow() {
        let mut arena = Arena::new();
        let (x, y) = (arena.var("x", 30), arena.var("y", 32));
        let (x, y) = (arena.zext(x, 64), arena.zext(y, 64));
        let product = arena.mul(x, y);
        assert_eq!(arena.significant_bits(product), 62);
        let half = arena.extract(product, 63, 32);
        assert_eq!(arena.significant_bits(half), 30);
        let one = arena.constant(u128::from(u64::MAX), 64);
        let less = arena.add(product, one);
        assert_eq!(arena.significant_bits(less), 64, "it wraps below zero");
    }

    #[test]
    fn a_division_of_a_positive_number_is_one_form() {
        // x / 107 for x of 62 bits: imul by the signed reciprocal, as compilers do, against the division itself.
        let mut arena = Arena::new();
        let (a, b) = (arena.var("a", 30), arena.var("b", 32));
        let (a, b) = (arena.zext(a, 64), arena.zext(b, 64));
        let x = arena.mul(a, b);
        let wide = arena.sext(x, 128);
        let reciprocal = arena.constant(0x1323_e34a_2b10_bf67, 128);
        let product = arena.mul(wide, reciprocal);
        let high = arena.extract(product, 127, 64);
        let three = arena.constant(3, 64);
        let quotient = arena.ashr(high, three);
        let divisor = arena.constant(107, 64);
        let plain = arena.udiv(x, divisor);
        assert_eq!(quotient, plain, "{} and {}", arena.display(quotient), arena.display(plain));
    }

    #[test]
    fn a_number_that_may_be_negative_keeps_its_sign() {
        let mut arena = Arena::new();
        let x = arena.var("x", 64);
        assert_ne!(arena.sext(x, 128), arena.zext(x, 128));
    }
}
