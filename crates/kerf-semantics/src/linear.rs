//! Sums and products: every sum is kept as Σ coefficient·term + constant, which makes `lea`, `add`, `sub`, `neg`,
//! shifts to the left and multiplications by constants agree on one form.

use crate::term::{Arena, DivOp, Node, Term, mask, signed};

/// A sum taken apart: terms ascending with their coefficients, and the constant.
pub(crate) struct Linear {
    pub terms: Vec<(Term, u128)>,
    pub constant: u128,
}

impl Arena {
    /// `term` as a sum; what is no sum is one term with coefficient 1.
    pub(crate) fn linear(&self, term: Term) -> Linear {
        let mut own = [(term, 1)];
        let (terms, constant) = self.parts(term, &mut own);
        Linear { terms: terms.to_vec(), constant }
    }

    /// `a - b` where it is the same number whatever the variables are; makes no term.
    pub(crate) fn constant_difference(&self, a: Term, b: Term) -> Option<u128> {
        let ones = mask(self.same_width(a, b));
        let (mut left, mut right) = ([(a, 1)], [(b, 1)]);
        let (left, first) = self.parts(a, &mut left);
        let (right, second) = self.parts(b, &mut right);
        // The terms of a sum are in one order, so that equal sums have equal parts.
        (left == right).then(|| first.wrapping_sub(second) & ones)
    }

    /// The terms and the constant of a sum; `own` is the term with coefficient 1, for what is none.
    pub(crate) fn parts<'a>(&'a self, term: Term, own: &'a mut [(Term, u128); 1]) -> (&'a [(Term, u128)], u128) {
        match self.node(term) {
            Node::Constant(value) => (&[], *value),
            Node::Sum(terms, constant) => (terms, *constant),
            // Two's complement: ~x = -x - 1.
            Node::Not(inner) => {
                let ones = mask(self.width(term));
                *own = [(*inner, ones)];
                (own, ones)
            }
            _ => (own, 0),
        }
    }

    /// The term for a sum whose terms may repeat and be in any order.
    pub(crate) fn sum_of(&mut self, mut linear: Linear, width: u32) -> Term {
        let ones = mask(width);
        linear.terms.sort_unstable_by_key(|&(term, _)| term);
        let mut terms: Vec<(Term, u128)> = Vec::with_capacity(linear.terms.len());
        for (term, coefficient) in linear.terms {
            match terms.last_mut() {
                Some((last, total)) if *last == term => *total = total.wrapping_add(coefficient) & ones,
                _ => terms.push((term, coefficient & ones)),
            }
        }
        terms.retain(|&(_, coefficient)| coefficient != 0);
        let constant = linear.constant & ones;
        match terms.as_slice() {
            [] => self.constant(constant, width),
            [(term, 1)] if constant == 0 => *term,
            [(term, coefficient)] if *coefficient == ones && constant == ones => self.intern(Node::Not(*term), width),
            _ => self.intern(Node::Sum(terms.into(), constant), width),
        }
    }

    fn combine(&mut self, a: Term, b: Term, factor: u128) -> Term {
        let width = self.same_width(a, b);
        if width == 1 {
            return self.xor(a, b);
        }
        let (mut left, right) = (self.linear(a), self.linear(b));
        left.terms.extend(right.terms.iter().map(|&(term, coefficient)| (term, coefficient.wrapping_mul(factor))));
        left.constant = left.constant.wrapping_add(right.constant.wrapping_mul(factor));
        self.sum_of(left, width)
    }

    /// `a + b`, modulo 2^width.
    pub fn add(&mut self, a: Term, b: Term) -> Term {
        self.combine(a, b, 1)
    }

    /// `a - b`, modulo 2^width.
    pub fn sub(&mut self, a: Term, b: Term) -> Term {
        self.combine(a, b, u128::MAX)
    }

    /// `-a`, modulo 2^width.
    pub fn neg(&mut self, a: Term) -> Term {
        self.scale(a, u128::MAX)
    }

    /// `a + value`, modulo 2^width.
    pub fn add_constant(&mut self, a: Term, value: u128) -> Term {
        let value = self.constant(value, self.width(a));
        self.add(a, value)
    }

    /// `a` times a constant, modulo 2^width.
    pub(crate) fn scale(&mut self, a: Term, factor: u128) -> Term {
        let width = self.width(a);
        if width == 1 {
            return if factor & 1 == 1 { a } else { self.constant(0, 1) };
        }
        let mut linear = self.linear(a);
        for (_, coefficient) in &mut linear.terms {
            *coefficient = coefficient.wrapping_mul(factor);
        }
        linear.constant = linear.constant.wrapping_mul(factor);
        self.sum_of(linear, width)
    }

    /// `a * b`, modulo 2^width.
    pub fn mul(&mut self, a: Term, b: Term) -> Term {
        let width = self.same_width(a, b);
        if width == 1 {
            return self.and(a, b);
        }
        if let Some(factor) = self.as_constant(a) {
            return self.scale(b, factor);
        }
        if let Some(factor) = self.as_constant(b) {
            return self.scale(a, factor);
        }
        let (a, first) = self.factor_out(a);
        let (b, second) = self.factor_out(b);
        let product = self.intern(Node::Product(a.min(b), a.max(b)), width);
        self.scale(product, first.wrapping_mul(second))
    }

    /// `k·x` as `(x, k)`.
    fn factor_out(&self, term: Term) -> (Term, u128) {
        match self.node(term) {
            Node::Sum(terms, 0) => match terms.as_ref() {
                [(inner, coefficient)] => (*inner, *coefficient),
                _ => (term, 1),
            },
            _ => (term, 1),
        }
    }

    /// `a / b`, unsigned; all ones when `b` is zero.
    pub fn udiv(&mut self, a: Term, b: Term) -> Term {
        self.divide(DivOp::Udiv, a, b)
    }

    /// `a mod b`, unsigned; `a` when `b` is zero.
    pub fn urem(&mut self, a: Term, b: Term) -> Term {
        self.divide(DivOp::Urem, a, b)
    }

    /// `a / b`, signed, towards zero; 1 or -1 when `b` is zero, as in SMT-LIB.
    pub fn sdiv(&mut self, a: Term, b: Term) -> Term {
        self.divide(DivOp::Sdiv, a, b)
    }

    /// What `sdiv` leaves over, with the sign of `a`; `a` when `b` is zero.
    pub fn srem(&mut self, a: Term, b: Term) -> Term {
        self.divide(DivOp::Srem, a, b)
    }

    pub(crate) fn divide(&mut self, op: DivOp, a: Term, b: Term) -> Term {
        let width = self.same_width(a, b);
        match (self.as_constant(a), self.as_constant(b)) {
            (Some(x), Some(y)) => return self.constant(divide(op, x, y, width), width),
            (None, Some(1)) if width == 1 => {
                return if op == DivOp::Udiv || op == DivOp::Sdiv { a } else { self.bool(false) };
            }
            (None, Some(y)) if width > 1 && y.is_power_of_two() => {
                let shift = y.trailing_zeros();
                match op {
                    DivOp::Udiv => return self.lshr_by(a, shift),
                    DivOp::Urem if shift == 0 => return self.constant(0, width),
                    DivOp::Urem => {
                        let low = self.extract(a, shift - 1, 0);
                        return self.zext(low, width);
                    }
                    DivOp::Sdiv if shift == 0 => return a,
                    DivOp::Srem if shift == 0 => return self.constant(0, width),
                    DivOp::Sdiv | DivOp::Srem => {}
                }
            }
            _ => {}
        }
        if let Some(narrow) = self.narrow_division(op, a, b) {
            return narrow;
        }
        match (op, self.as_constant(b)) {
            (DivOp::Udiv, Some(divisor)) if divisor != 0 => self.udiv_constant(a, divisor),
            // A remainder is what compilers compute it as.
            (DivOp::Urem | DivOp::Srem, Some(divisor)) if divisor != 0 => {
                let op = if op == DivOp::Urem { DivOp::Udiv } else { DivOp::Sdiv };
                let quotient = self.divide(op, a, b);
                let product = self.scale(quotient, divisor);
                self.sub(a, product)
            }
            _ => self.intern(Node::Divide(op, a, b), width),
        }
    }

    /// Unsigned division of two zero-extended terms happens in their own width.
    fn narrow_division(&mut self, op: DivOp, a: Term, b: Term) -> Option<Term> {
        let width = self.width(a);
        let (Node::Zext(inner), DivOp::Udiv | DivOp::Urem) = (self.node(a).clone(), op) else { return None };
        let narrow = self.width(inner);
        let other = match (self.node(b), self.as_constant(b)) {
            (_, Some(value)) if value != 0 && value <= mask(narrow) => self.constant(value, narrow),
            // A zero divisor gives all ones of the narrow width only, which is not what the wide one gives.
            (Node::Zext(other), _) if op == DivOp::Urem && self.width(*other) == narrow => *other,
            _ => return None,
        };
        let result = self.divide(op, inner, other);
        Some(self.zext(result, width))
    }
}

/// Division of numbers with SMT-LIB's results for zero.
pub(crate) fn divide(op: DivOp, a: u128, b: u128, width: u32) -> u128 {
    let ones = mask(width);
    let (x, y) = (signed(a, width), signed(b, width));
    let result = match op {
        DivOp::Udiv => a.checked_div(b).unwrap_or(ones),
        DivOp::Urem => a.checked_rem(b).unwrap_or(a),
        DivOp::Sdiv if b == 0 => {
            if x < 0 {
                1
            } else {
                ones
            }
        }
        DivOp::Sdiv => x.wrapping_div(y) as u128,
        DivOp::Srem if b == 0 => a,
        DivOp::Srem => x.wrapping_rem(y) as u128,
    };
    result & ones
}
