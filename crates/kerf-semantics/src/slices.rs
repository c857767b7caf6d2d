//! Slices of terms: extraction, concatenation, extension, and the shifts that are made of them.

use crate::linear::Linear;
use crate::term::{Arena, DivOp, Node, ShiftOp, Term, mask, signed};

impl Arena {
    /// Bits `hi` down to `lo` of `term`, `hi - lo + 1` bits wide.
    pub fn extract(&mut self, term: Term, hi: u32, lo: u32) -> Term {
        let width = self.width(term);
        assert!(lo <= hi && hi < width, "bits {hi}..{lo} lie within {width} bits");
        if lo == 0 && hi == width - 1 {
            return term;
        }
        if let Some(&known) = self.extracts.get(&(term, hi, lo)) {
            return known;
        }
        let result = self.extract_new(term, hi, lo);
        self.extracts.insert((term, hi, lo), result);
        result
    }

    fn extract_new(&mut self, term: Term, hi: u32, lo: u32) -> Term {
        let width = hi - lo + 1;
        if let Some((condition, yes, no)) = self.two_valued(term) {
            let (yes, no) = (self.constant(yes >> lo, width), self.constant(no >> lo, width));
            return self.ite(condition, yes, no);
        }
        match self.node(term).clone() {
            Node::Constant(value) => self.constant(value >> lo, width),
            Node::Sum(terms, constant) => self.extract_sum(term, &terms, constant, hi, lo),
            Node::Product(a, b) if hi + 1 < self.width(term) || lo == 0 => {
                let (a, b) = (self.extract(a, hi, 0), self.extract(b, hi, 0));
                let product = self.mul(a, b);
                self.extract(product, hi, lo)
            }
            Node::Bits(op, terms, constant) => {
                let mut parts: Vec<Term> = terms.iter().map(|&part| self.extract(part, hi, lo)).collect();
                parts.push(self.constant(constant >> lo, width));
                self.bits(op, &parts, width)
            }
            Node::Not(inner) => {
                let inner = self.extract(inner, hi, lo);
                self.not(inner)
            }
            Node::Concat(high, low) => {
                let split = self.width(low);
                if hi < split {
                    self.extract(low, hi, lo)
                } else if lo >= split {
                    self.extract(high, hi - split, lo - split)
                } else {
                    let (high, low) = (self.extract(high, hi - split, 0), self.extract(low, split - 1, lo));
                    self.concat(high, low)
                }
            }
            Node::Extract(inner, _, base) => self.extract(inner, hi + base, lo + base),
            Node::Divide(DivOp::Udiv, a, b) if self.as_constant(b).is_some_and(|divisor| divisor != 0) => {
                let divisor = self.as_constant(b).unwrap_or(1);
                self.extract_quotient(term, a, divisor, hi, lo)
            }
            Node::Zext(inner) => {
                let top = self.width(inner) - 1;
                if lo > top {
                    return self.constant(0, width);
                }
                let part = self.extract(inner, hi.min(top), lo);
                self.zext(part, width)
            }
            Node::Sext(inner) => {
                let top = self.width(inner) - 1;
                let part = self.extract(inner, hi.min(top), lo.min(top));
                self.sext(part, width)
            }
            Node::Ite(condition, yes, no) => {
                let (yes, no) = (self.extract(yes, hi, lo), self.extract(no, hi, lo));
                self.ite(condition, yes, no)
            }
            _ => self.intern(Node::Extract(term, hi, lo), width),
        }
    }

    /// Bits of a sum: what lies above them does not matter, and common factors of two cancel against `lo`.
    fn extract_sum(&mut self, term: Term, terms: &[(Term, u128)], constant: u128, hi: u32, lo: u32) -> Term {
        if hi + 1 < self.width(term) || lo == 0 {
            let parts = terms.iter().map(|&(part, coefficient)| (self.extract(part, hi, 0), coefficient)).collect();
            let narrow =
                if hi == 0 { self.extract_parity_of_sum(parts, constant) } else { self.resum(parts, constant, hi + 1) };
            return self.extract(narrow, hi, lo);
        }
        let zeros = terms.iter().map(|&(_, coefficient)| coefficient).chain([constant]);
        let zeros = zeros.filter(|&value| value != 0).map(u128::trailing_zeros).min().unwrap_or(0);
        if zeros > 0 && zeros <= lo {
            let terms = terms.iter().map(|&(part, coefficient)| (part, coefficient >> zeros)).collect();
            let inner = self.sum_of(Linear { terms, constant: constant >> zeros }, self.width(term));
            return self.extract(inner, hi - zeros, lo - zeros);
        }
        if zeros > hi {
            return self.constant(0, hi - lo + 1);
        }
        if constant == 0
            && let Some(quotient) = self.quotient(terms, hi, lo)
        {
            return quotient;
        }
        self.intern(Node::Extract(term, hi, lo), hi - lo + 1)
    }

    /// The lowest bit of a sum is the exclusive or of the lowest bits with odd coefficients.
    fn extract_parity_of_sum(&mut self, parts: Vec<(Term, u128)>, constant: u128) -> Term {
        let mut bit = self.constant(constant & 1, 1);
        for (part, coefficient) in parts {
            if coefficient & 1 == 1 {
                bit = self.xor(bit, part);
            }
        }
        bit
    }

    /// Adds up parts that may themselves be sums.
    fn resum(&mut self, parts: Vec<(Term, u128)>, constant: u128, width: u32) -> Term {
        let mut sum = Linear { terms: Vec::new(), constant };
        for (part, factor) in parts {
            let inner = self.linear(part);
            sum.constant = sum.constant.wrapping_add(inner.constant.wrapping_mul(factor));
            sum.terms.extend(inner.terms.iter().map(|&(term, value)| (term, value.wrapping_mul(factor))));
        }
        self.sum_of(sum, width)
    }

    /// `hi` followed by `lo`, as wide as both together (at most 128 bits).
    pub fn concat(&mut self, hi: Term, lo: Term) -> Term {
        let (low, width) = (self.width(lo), self.width(hi) + self.width(lo));
        match (self.node(hi).clone(), self.as_constant(lo)) {
            (Node::Constant(0), _) => return self.zext(lo, width),
            (Node::Zext(inner), _) => {
                let inner = self.concat(inner, lo);
                return self.zext(inner, width);
            }
            (_, Some(0)) => {
                let wide = self.zext(hi, width);
                return self.scale(wide, 1 << low);
            }
            _ => {}
        }
        if let Some(joined) = self.join(hi, lo) {
            return joined;
        }
        // Concatenations lean to the right, so that neighbouring slices meet.
        if let Node::Concat(first, second) = self.node(hi).clone() {
            let rest = self.concat(second, lo);
            return self.concat(first, rest);
        }
        if let Node::Concat(second, rest) = self.node(lo).clone()
            && let Some(joined) = self.join(hi, second)
        {
            return self.concat(joined, rest);
        }
        self.intern(Node::Concat(hi, lo), width)
    }

    /// The term that `hi` and `lo` are neighbouring slices of, if that can be seen.
    fn join(&mut self, hi: Term, lo: Term) -> Option<Term> {
        let (low, width) = (self.width(lo), self.width(hi) + self.width(lo));
        if let Some((condition, yes, 0)) = self.two_valued(hi)
            && yes == mask(self.width(hi))
            && self.sign(lo) == condition
        {
            return Some(self.sext(lo, width));
        }
        match (self.node(hi).clone(), self.node(lo).clone()) {
            (Node::Constant(a), Node::Constant(b)) => Some(self.constant((a << low) | b, width)),
            (Node::Extract(a, top, bottom), Node::Extract(b, middle, lowest)) if a == b && bottom == middle + 1 => {
                Some(self.extract(a, top, lowest))
            }
            // The lower slice may have been simplified away from its form as a slice.
            (Node::Extract(a, top, bottom), _) if bottom == low && self.extract(a, low - 1, 0) == lo => {
                Some(self.extract(a, top, 0))
            }
            (Node::Ite(c, a, b), Node::Ite(d, x, y)) if c == d => {
                let (yes, no) = (self.concat(a, x), self.concat(b, y));
                Some(self.ite(c, yes, no))
            }
            (Node::Not(a), Node::Not(b)) => {
                let inner = self.join(a, b)?;
                Some(self.not(inner))
            }
            (Node::Bits(op, first, a), Node::Bits(other, second, b)) if op == other && first.len() == second.len() => {
                let mut left = second.to_vec();
                let mut parts = vec![self.constant((a << low) | b, width)];
                for &part in first.iter() {
                    let found = left.iter().enumerate().find_map(|(at, &low)| Some((at, self.join(part, low)?)));
                    let (at, joined) = found?;
                    left.swap_remove(at);
                    parts.push(joined);
                }
                Some(self.bits(op, &parts, width))
            }
            _ => None,
        }
    }

    /// `term` with zeros in front, up to `width` bits.
    pub fn zext(&mut self, term: Term, width: u32) -> Term {
        let from = self.width(term);
        assert!(from <= width, "an extension from {from} to {width} bits does not shrink");
        if from == width {
            return term;
        }
        if from > 1
            && let Some((condition, yes, no)) = self.two_valued(term)
        {
            let (yes, no) = (self.constant(yes, width), self.constant(no, width));
            return self.ite(condition, yes, no);
        }
        match self.node(term).clone() {
            Node::Constant(value) => self.constant(value, width),
            Node::Zext(inner) => self.zext(inner, width),
            _ => self.intern(Node::Zext(term), width),
        }
    }

    /// `term` with copies of its highest bit in front, up to `width` bits.
    pub fn sext(&mut self, term: Term, width: u32) -> Term {
        let from = self.width(term);
        assert!(from <= width, "an extension from {from} to {width} bits does not shrink");
        if from == width {
            return term;
        }
        if let Some((condition, yes, no)) = self.two_valued(term) {
            let yes = self.constant(signed(yes, from) as u128, width);
            let no = self.constant(signed(no, from) as u128, width);
            return self.ite(condition, yes, no);
        }
        match self.node(term).clone() {
            Node::Constant(value) => self.constant(signed(value, from) as u128, width),
            Node::Sext(inner) => self.sext(inner, width),
            Node::Zext(inner) => self.zext(inner, width),
            _ if self.significant_bits(term) < from => self.zext(term, width),
            Node::Extract(sum, hi, lo) => match self.extended_quotient(sum, hi, lo, width) {
                Some(quotient) => quotient,
                None => self.intern(Node::Sext(term), width),
            },
            _ => self.intern(Node::Sext(term), width),
        }
    }

    /// `(condition, value if it holds, value if not)` for terms that take two values only.
    pub(crate) fn two_valued(&self, term: Term) -> Option<(Term, u128, u128)> {
        let width = self.width(term);
        let bit = |term: Term| match self.node(term) {
            Node::Zext(inner) if self.width(*inner) == 1 => Some(*inner),
            _ => None,
        };
        match self.node(term) {
            Node::Constant(_) => None,
            _ if width == 1 => Some((term, 1, 0)),
            Node::Not(inner) => bit(*inner).map(|bit| (bit, mask(width) ^ 1, mask(width))),
            Node::Sum(terms, constant) => match terms.as_ref() {
                [(inner, coefficient)] => bit(*inner).map(|bit| {
                    let yes = constant.wrapping_add(*coefficient) & mask(width);
                    (bit, yes, *constant)
                }),
                _ => None,
            },
            _ => bit(term).map(|bit| (bit, 1, 0)),
        }
    }

    /// `a << b`; zero when `b` is the width or more. Both have the same width.
    pub fn shl(&mut self, a: Term, b: Term) -> Term {
        self.shift(ShiftOp::Shl, a, b)
    }

    /// `a >> b` with zeros from above. Both have the same width.
    pub fn lshr(&mut self, a: Term, b: Term) -> Term {
        self.shift(ShiftOp::Lshr, a, b)
    }

    /// `a >> b` with copies of the sign from above. Both have the same width.
    pub fn ashr(&mut self, a: Term, b: Term) -> Term {
        self.shift(ShiftOp::Ashr, a, b)
    }

    pub(crate) fn shift(&mut self, op: ShiftOp, a: Term, b: Term) -> Term {
        let width = self.same_width(a, b);
        let Some(amount) = self.as_constant(b) else {
            return match self.as_constant(a) {
                Some(0) => a,
                _ => self.intern(Node::Shift(op, a, b), width),
            };
        };
        let amount = u32::try_from(amount).unwrap_or(u32::MAX);
        match op {
            ShiftOp::Shl if amount >= width => self.constant(0, width),
            ShiftOp::Shl => self.scale(a, 1 << amount),
            ShiftOp::Lshr => self.lshr_by(a, amount),
            ShiftOp::Ashr => {
                let high = self.extract(a, width - 1, amount.min(width - 1));
                self.sext(high, width)
            }
        }
    }

    /// `a >> amount` with zeros from above.
    pub(crate) fn lshr_by(&mut self, a: Term, amount: u32) -> Term {
        let width = self.width(a);
        if amount >= width {
            return self.constant(0, width);
        }
        let high = self.extract(a, width - 1, amount);
        self.zext(high, width)
    }

    /// Bit `index` of `term`.
    pub fn bit(&mut self, term: Term, index: u32) -> Term {
        self.extract(term, index, index)
    }

    /// The highest bit of `term`.
    pub fn sign(&mut self, term: Term) -> Term {
        let top = self.width(term) - 1;
        self.bit(term, top)
    }

    /// 1 when an 8-bit term has an even number of ones.
    pub fn parity(&mut self, term: Term) -> Term {
        assert_eq!(self.width(term), 8, "parity is of a byte");
        match self.as_constant(term) {
            Some(value) => self.bool(value.count_ones() & 1 == 0),
            None => self.intern(Node::Parity(term), 1),
        }
    }
}
