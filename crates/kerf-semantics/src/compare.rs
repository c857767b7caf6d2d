//! Comparisons and choices. A comparison with a constant has one form: `x < c`, or its negation.

use crate::linear::Linear;
use crate::term::{Arena, Node, Term, mask, signed};

impl Arena {
    /// 1 when `a` and `b` are equal; of memories, when they agree at every address.
    pub fn eq(&mut self, a: Term, b: Term) -> Term {
        let width = self.same_width(a, b);
        if a == b {
            return self.bool(true);
        }
        if width == 0 {
            return self.eq_memory(a, b);
        }
        if width == 1 {
            let differ = self.xor(a, b);
            return self.not(differ);
        }
        let difference = self.sub(a, b);
        match self.as_constant(difference) {
            Some(0) => return self.bool(true),
            Some(_) => return self.bool(false),
            None => {}
        }
        if let Some((condition, yes, no)) = self.two_valued(difference) {
            let (yes, no) = (self.bool(yes == 0), self.bool(no == 0));
            return self.ite(condition, yes, no);
        }
        let (left, right) = self.balance(difference);
        if let Some(narrow) = self.narrow_equality(left, right) {
            return narrow;
        }
        // A constant stands to the right.
        let (left, right) = match (self.as_constant(left), self.as_constant(right)) {
            (Some(_), _) => (right, left),
            (_, Some(_)) => (left, right),
            _ => (left.min(right), left.max(right)),
        };
        self.intern(Node::Eq(left, right), 1)
    }

    /// `d = 0` as `left = right` where both sides add up terms with small coefficients.
    fn balance(&mut self, difference: Term) -> (Term, Term) {
        let width = self.width(difference);
        let half = 1u128 << (width - 1);
        let mut linear = self.linear(difference);
        // Of d and -d, take the one whose first coefficient is small, so that both ways of writing meet.
        if linear.terms.first().is_some_and(|&(_, coefficient)| coefficient > half) {
            for (_, coefficient) in &mut linear.terms {
                *coefficient = coefficient.wrapping_neg() & mask(width);
            }
            linear.constant = linear.constant.wrapping_neg();
        }
        let (plus, minus): (Vec<_>, Vec<_>) = linear.terms.into_iter().partition(|&(_, value)| value <= half);
        let minus = minus.into_iter().map(|(term, value)| (term, value.wrapping_neg())).collect();
        let constant = linear.constant.wrapping_neg();
        let left = self.sum_of(Linear { terms: plus, constant: 0 }, width);
        let right = self.sum_of(Linear { terms: minus, constant }, width);
        (left, right)
    }

    /// Equalities between extended terms happen in the width of what is extended.
    fn narrow_equality(&mut self, left: Term, right: Term) -> Option<Term> {
        let (value, other) = match (self.as_constant(left), self.as_constant(right)) {
            (Some(value), _) => (Some(value), right),
            (_, value) => (value, left),
        };
        let full = self.width(left);
        match (self.node(other).clone(), value) {
            (Node::Zext(inner), Some(value)) => {
                let width = self.width(inner);
                if value > mask(width) {
                    return Some(self.bool(false));
                }
                let value = self.constant(value, width);
                Some(self.eq(inner, value))
            }
            (Node::Sext(inner), Some(value)) => {
                let width = self.width(inner);
                let narrow = self.constant(value, width);
                if signed(value & mask(width), width) as u128 & mask(full) != value {
                    return Some(self.bool(false));
                }
                Some(self.eq(inner, narrow))
            }
            (Node::Concat(high, low), Some(value)) => {
                let split = self.width(low);
                let (top, bottom) = (self.constant(value >> split, full - split), self.constant(value, split));
                let (a, b) = (self.eq(high, top), self.eq(low, bottom));
                Some(self.and(a, b))
            }
            (Node::Sum(terms, 0), Some(value)) => match terms.as_ref() {
                // x << k = c speaks of the bits of x that stay.
                [(inner, coefficient)] if coefficient.is_power_of_two() => {
                    let shift = coefficient.trailing_zeros();
                    if value & mask(shift) != 0 && shift > 0 {
                        return Some(self.bool(false));
                    }
                    let (inner, value) = (*inner, self.constant(value >> shift, full - shift));
                    let low = self.extract(inner, full - shift - 1, 0);
                    Some(self.eq(low, value))
                }
                _ => None,
            },
            (_, Some(_)) => None,
            (Node::Zext(a), None) => match self.node(right).clone() {
                Node::Zext(b) if self.width(a) == self.width(b) => Some(self.eq(a, b)),
                _ => None,
            },
            (Node::Sext(a), None) => match self.node(right).clone() {
                Node::Sext(b) if self.width(a) == self.width(b) => Some(self.eq(a, b)),
                _ => None,
            },
            _ => None,
        }
    }

    /// 1 when `a < b`, unsigned.
    pub fn ult(&mut self, a: Term, b: Term) -> Term {
        let width = self.same_width(a, b);
        if width == 1 {
            let not = self.not(a);
            return self.and(not, b);
        }
        match (self.as_constant(a), self.as_constant(b)) {
            _ if a == b => self.bool(false),
            (Some(x), Some(y)) => self.bool(x < y),
            (Some(x), None) if x == mask(width) => self.bool(false),
            (Some(x), None) => {
                let next = self.constant(x + 1, width);
                let less = self.ult(b, next);
                self.not(less)
            }
            (None, Some(y)) => self.ult_constant(a, y, b),
            (None, None) => match (self.node(a).clone(), self.node(b).clone()) {
                (Node::Zext(x), Node::Zext(y)) if self.width(x) == self.width(y) => self.ult(x, y),
                _ => self.intern(Node::Ult(a, b), 1),
            },
        }
    }

    fn ult_constant(&mut self, a: Term, value: u128, b: Term) -> Term {
        let width = self.width(a);
        match value {
            0 => return self.bool(false),
            1 => {
                let zero = self.constant(0, width);
                return self.eq(a, zero);
            }
            _ if value == mask(width) => {
                let equal = self.eq(a, b);
                return self.not(equal);
            }
            _ => {}
        }
        if let Some((condition, yes, no)) = self.two_valued(a) {
            let (yes, no) = (self.bool(yes < value), self.bool(no < value));
            return self.ite(condition, yes, no);
        }
        if let Node::Zext(inner) = *self.node(a) {
            let narrow = self.width(inner);
            if value > mask(narrow) {
                return self.bool(true);
            }
            let value = self.constant(value, narrow);
            return self.ult(inner, value);
        }
        self.intern(Node::Ult(a, b), 1)
    }

    /// 1 when `a <= b`, unsigned.
    pub fn ule(&mut self, a: Term, b: Term) -> Term {
        let greater = self.ult(b, a);
        self.not(greater)
    }

    /// 1 when `a < b`, signed.
    pub fn slt(&mut self, a: Term, b: Term) -> Term {
        let width = self.same_width(a, b);
        if width == 1 {
            // The one bit is the sign: -1 < 0.
            let not = self.not(b);
            return self.and(a, not);
        }
        let (least, greatest) = (1u128 << (width - 1), mask(width - 1));
        match (self.as_constant(a), self.as_constant(b)) {
            _ if a == b => self.bool(false),
            (Some(x), Some(y)) => self.bool(signed(x, width) < signed(y, width)),
            (Some(x), None) if x == greatest => self.bool(false),
            (Some(x), None) => {
                let next = self.constant(x.wrapping_add(1), width);
                let less = self.slt(b, next);
                self.not(less)
            }
            (None, Some(y)) if y == least => self.bool(false),
            (None, Some(0)) => self.sign(a),
            (None, Some(y)) => {
                if let Some((condition, yes, no)) = self.two_valued(a) {
                    let yes = self.bool(signed(yes, width) < signed(y, width));
                    let no = self.bool(signed(no, width) < signed(y, width));
                    return self.ite(condition, yes, no);
                }
                match self.node(a) {
                    // What is extended by zeros is not negative.
                    Node::Zext(_) if y < least => self.ult(a, b),
                    Node::Zext(_) => self.bool(false),
                    _ => self.intern(Node::Slt(a, b), 1),
                }
            }
            (None, None) => match (self.node(a).clone(), self.node(b).clone()) {
                (Node::Zext(_), Node::Zext(_)) => self.ult(a, b),
                (Node::Sext(x), Node::Sext(y)) if self.width(x) == self.width(y) => self.slt(x, y),
                _ => self.intern(Node::Slt(a, b), 1),
            },
        }
    }

    /// 1 when `a <= b`, signed.
    pub fn sle(&mut self, a: Term, b: Term) -> Term {
        let greater = self.slt(b, a);
        self.not(greater)
    }

    /// `yes` where the 1-bit `condition` is 1, else `no`; bit vectors of one width, or memories.
    pub fn ite(&mut self, condition: Term, yes: Term, no: Term) -> Term {
        let width = self.same_width(yes, no);
        assert_eq!(self.width(condition), 1, "a condition has one bit");
        if yes == no {
            return yes;
        }
        match self.node(condition).clone() {
            Node::Constant(value) => return if value == 1 { yes } else { no },
            Node::Not(inner) => return self.ite(inner, no, yes),
            _ => {}
        }
        // Below the same condition only one arm counts.
        let yes = match *self.node(yes) {
            Node::Ite(inner, first, _) if inner == condition => first,
            _ => yes,
        };
        let no = match *self.node(no) {
            Node::Ite(inner, _, second) if inner == condition => second,
            _ => no,
        };
        match width {
            _ if yes == no => yes,
            0 => self.intern(Node::Ite(condition, yes, no), 0),
            1 => self.ite_boolean(condition, yes, no),
            _ => self.ite_wide(condition, yes, no, width),
        }
    }

    fn ite_boolean(&mut self, condition: Term, yes: Term, no: Term) -> Term {
        let opposite = |arena: &mut Self| arena.not(condition);
        match (self.as_constant(yes), self.as_constant(no)) {
            (Some(1), Some(_)) => condition,
            (Some(_), Some(_)) => opposite(self),
            (Some(1), None) => self.or(condition, no),
            (Some(_), None) => {
                let not = opposite(self);
                self.and(not, no)
            }
            (None, Some(0)) => self.and(condition, yes),
            (None, Some(_)) => {
                let not = opposite(self);
                self.or(not, yes)
            }
            (None, None) => self.intern(Node::Ite(condition, yes, no), 1),
        }
    }

    /// Arms that differ by a constant become a sum: `c ? x + k : x = x + k·c`.
    fn ite_wide(&mut self, condition: Term, yes: Term, no: Term, width: u32) -> Term {
        let difference = self.sub(yes, no);
        if let Some(value) = self.as_constant(difference) {
            let bit = self.intern(Node::Zext(condition), width);
            let step = self.scale(bit, value);
            return self.add(no, step);
        }
        let inner = |arena: &Self, term: Term| match *arena.node(term) {
            Node::Zext(inner) => Some(arena.width(inner)),
            _ => None,
        };
        let fits = |arena: &Self, term: Term, width: u32| match arena.as_constant(term) {
            Some(value) => value <= mask(width),
            None => inner(arena, term) == Some(width),
        };
        if let Some(narrow) = inner(self, yes).or(inner(self, no))
            && fits(self, yes, narrow)
            && fits(self, no, narrow)
        {
            let (yes, no) = (self.extract(yes, narrow - 1, 0), self.extract(no, narrow - 1, 0));
            let choice = self.ite(condition, yes, no);
            return self.zext(choice, width);
        }
        self.intern(Node::Ite(condition, yes, no), width)
    }
}
