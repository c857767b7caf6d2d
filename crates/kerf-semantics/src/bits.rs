//! Bitwise operations, kept as sorted sets of operands, with the rules that turn the processor's flag formulas back
//! into comparisons.

use crate::term::{Arena, BitOp, Node, Term, mask};

impl Arena {
    /// Bitwise and.
    pub fn and(&mut self, a: Term, b: Term) -> Term {
        let width = self.same_width(a, b);
        self.bits(BitOp::And, &[a, b], width)
    }

    /// Bitwise or.
    pub fn or(&mut self, a: Term, b: Term) -> Term {
        let width = self.same_width(a, b);
        self.bits(BitOp::Or, &[a, b], width)
    }

    /// Bitwise exclusive or.
    pub fn xor(&mut self, a: Term, b: Term) -> Term {
        let width = self.same_width(a, b);
        self.bits(BitOp::Xor, &[a, b], width)
    }

    /// The conjunction of 1-bit terms, 1 if there are none.
    pub fn all(&mut self, terms: &[Term]) -> Term {
        self.bits(BitOp::And, terms, 1)
    }

    /// The disjunction of 1-bit terms, 0 if there are none.
    pub fn any(&mut self, terms: &[Term]) -> Term {
        self.bits(BitOp::Or, terms, 1)
    }

    /// Bitwise complement; of a 1-bit term, its negation.
    pub fn not(&mut self, a: Term) -> Term {
        if let Some(&known) = self.complements.get(&a) {
            return known;
        }
        let complement = self.complement(a);
        self.complements.insert(a, complement);
        complement
    }

    fn complement(&mut self, a: Term) -> Term {
        let width = self.width(a);
        match self.node(a).clone() {
            Node::Constant(value) => self.constant(!value, width),
            Node::Not(inner) => inner,
            // ~x = -x - 1 keeps sums together.
            Node::Sum(..) => {
                let negated = self.neg(a);
                self.add_constant(negated, u128::MAX)
            }
            Node::Bits(op @ (BitOp::And | BitOp::Or), terms, _) if width == 1 => {
                let terms: Vec<Term> = terms.iter().map(|&term| self.not(term)).collect();
                self.bits(if op == BitOp::And { BitOp::Or } else { BitOp::And }, &terms, 1)
            }
            Node::Ite(condition, yes, no) if width == 1 => {
                let (yes, no) = (self.not(yes), self.not(no));
                self.ite(condition, yes, no)
            }
            _ => self.intern(Node::Not(a), width),
        }
    }

    /// `op` over any number of terms of `width` bits.
    pub(crate) fn bits(&mut self, op: BitOp, operands: &[Term], width: u32) -> Term {
        let ones = mask(width);
        let identity = if op == BitOp::And { ones } else { 0 };
        let (mut terms, mut constant) = (Vec::new(), identity);
        for &operand in operands {
            match self.node(operand) {
                Node::Constant(value) => constant = apply(op, constant, *value),
                Node::Bits(inner, parts, value) if *inner == op => {
                    terms.extend_from_slice(parts);
                    constant = apply(op, constant, *value);
                }
                _ => terms.push(operand),
            }
        }
        if op == BitOp::Xor {
            self.strip_complements(&mut terms, &mut constant, ones);
        }
        terms.sort_unstable();
        if op == BitOp::Xor {
            cancel_pairs(&mut terms);
        } else {
            terms.dedup();
            let absorbing = if op == BitOp::And { 0 } else { ones };
            if constant == absorbing || self.has_complements(&terms) {
                return self.constant(absorbing, width);
            }
            if width == 1
                && let Some(result) = self.simpler_boolean(op, &terms)
            {
                return result;
            }
        }
        self.finish_bits(op, terms, constant, width)
    }

    /// What remains after the operands are collected: trivial cases, masks, narrowing, and else a node.
    fn finish_bits(&mut self, op: BitOp, terms: Vec<Term>, constant: u128, width: u32) -> Term {
        let ones = mask(width);
        let identity = if op == BitOp::And { ones } else { 0 };
        match terms.as_slice() {
            [] => return self.constant(constant, width),
            [only] if constant == identity => return *only,
            [only] if op == BitOp::Xor && constant == ones => return self.not(*only),
            [only] => {
                if let Some((condition, yes, no)) = self.two_valued(*only) {
                    let yes = self.constant(apply(op, yes, constant), width);
                    let no = self.constant(apply(op, no, constant), width);
                    return self.ite(condition, yes, no);
                }
            }
            _ => {}
        }
        if op == BitOp::And
            && let Some(result) = self.select_by_mask(&terms, constant, width)
        {
            return result;
        }
        if let Some(result) = self.narrow_bits(op, &terms, constant, width) {
            return result;
        }
        if op == BitOp::Xor && constant == ones {
            let inner = self.intern(Node::Bits(op, terms.into(), 0), width);
            return self.intern(Node::Not(inner), width);
        }
        self.intern(Node::Bits(op, terms.into(), constant), width)
    }

    /// `x ^ ~y = ~(x ^ y)`: complements move into the constant.
    fn strip_complements(&self, terms: &mut Vec<Term>, constant: &mut u128, ones: u128) {
        let mut again = Vec::new();
        for term in terms.iter_mut() {
            if let Node::Not(inner) = self.node(*term) {
                *constant ^= ones;
                match self.node(*inner) {
                    Node::Bits(BitOp::Xor, parts, value) => {
                        *constant ^= value;
                        let (&first, rest) = parts.split_first().unwrap_or((inner, &[]));
                        *term = first;
                        again.extend_from_slice(rest);
                    }
                    _ => *term = *inner,
                }
            }
        }
        terms.append(&mut again);
    }

    fn has_complements(&self, terms: &[Term]) -> bool {
        terms.iter().any(|&term| match self.node(term) {
            Node::Not(inner) => terms.binary_search(inner).is_ok(),
            _ => false,
        })
    }

    /// An operand that is all ones or all zeros, as `sbb r,r` leaves it, selects: `mask & y = b ? y : 0`.
    fn select_by_mask(&mut self, terms: &[Term], constant: u128, width: u32) -> Option<Term> {
        if width == 1 {
            return None;
        }
        let (at, condition, yes, no) = terms.iter().enumerate().find_map(|(at, &term)| {
            let (condition, yes, no) = self.two_valued(term)?;
            let full = |value| value == 0 || value == mask(width);
            (full(yes) && full(no)).then_some((at, condition, yes, no))
        })?;
        let mut rest = terms.to_vec();
        rest.remove(at);
        let rest = self.finish_bits(BitOp::And, rest, constant, width);
        let zero = self.constant(0, width);
        let arm = |value| if value == 0 { zero } else { rest };
        Some(self.ite(condition, arm(yes), arm(no)))
    }

    /// Bits that are zero at the top or, under a mask, at the bottom, are left out of the operation.
    fn narrow_bits(&mut self, op: BitOp, terms: &[Term], constant: u128, width: u32) -> Option<Term> {
        let used = |arena: &Self, term: Term| match arena.node(term) {
            Node::Zext(inner) => arena.width(*inner),
            _ => width,
        };
        let of_constant = (128 - constant.leading_zeros()).max(1);
        let widths = terms.iter().map(|&term| used(self, term));
        let narrow = match op {
            BitOp::And => widths.min().unwrap_or(width).min(of_constant),
            _ => widths.max().unwrap_or(width).max(of_constant),
        };
        let low = if op == BitOp::And { constant.trailing_zeros().min(narrow - 1) } else { 0 };
        if narrow == width && low == 0 {
            return None;
        }
        let mut parts: Vec<Term> = terms.iter().map(|&term| self.extract(term, narrow - 1, low)).collect();
        parts.push(self.constant(constant >> low, narrow - low));
        let inner = self.bits(op, &parts, narrow - low);
        let wide = self.zext(inner, width);
        Some(self.scale(wide, 1 << low))
    }

    /// The rules for 1-bit operands, once for each set of them: they look at operands' operands, over and over.
    fn simpler_boolean(&mut self, op: BitOp, terms: &[Term]) -> Option<Term> {
        let key = (op, terms.into());
        if let Some(known) = self.booleans.get(&key) {
            return *known;
        }
        let simpler = self.simplify_boolean(op, terms);
        self.booleans.insert(key, simpler);
        simpler
    }

    /// Rules for 1-bit operands: comparisons that a pair of flags stands for, and `xy | x~y = x`.
    fn simplify_boolean(&mut self, op: BitOp, terms: &[Term]) -> Option<Term> {
        for (at, &term) in terms.iter().enumerate() {
            let Some((partner, result)) = self.comparison_pair(op, term) else { continue };
            if let Ok(other) = terms.binary_search(&partner)
                && other != at
            {
                let mut rest: Vec<Term> = terms.to_vec();
                rest.retain(|&kept| kept != term && kept != partner);
                rest.push(result);
                return Some(self.bits(op, &rest, 1));
            }
        }
        self.absorb(op, terms)
    }

    /// For a comparison in `op`: the partner that makes the two one comparison, and that comparison.
    fn comparison_pair(&mut self, op: BitOp, term: Term) -> Option<(Term, Term)> {
        if matches!(self.node(term), Node::Bits(..) | Node::Ite(..)) {
            return None;
        }
        // a | b is worked out on complements: ~a & ~b = ~(a | b).
        if op == BitOp::And {
            let (partner, result) = {
                let complement = self.not(term);
                self.comparison_pair(BitOp::Or, complement)?
            };
            return Some((self.not(partner), self.not(result)));
        }
        match self.node(term).clone() {
            // a < b or a = b
            Node::Ult(a, b) => {
                let (equal, swapped) = (self.eq(a, b), self.ult(b, a));
                Some((equal, self.not(swapped)))
            }
            Node::Slt(a, b) => {
                let (equal, swapped) = (self.eq(a, b), self.slt(b, a));
                Some((equal, self.not(swapped)))
            }
            // The sign is x < 0; together with x = 0, x < 1.
            Node::Extract(x, hi, lo) if hi == lo && hi + 1 == self.width(x) && hi > 0 => {
                let (zero, one) = (self.constant(0, hi + 1), self.constant(1, hi + 1));
                Some((self.eq(x, zero), self.slt(x, one)))
            }
            // c <= x or x = c - 1
            Node::Not(inner) => match self.node(inner).clone() {
                Node::Ult(x, c) => {
                    let below = self.as_constant(c).filter(|&value| value > 0)?.wrapping_sub(1);
                    let below = self.constant(below, self.width(c));
                    let (equal, less) = (self.eq(x, below), self.ult(x, below));
                    Some((equal, self.not(less)))
                }
                Node::Slt(x, c) => {
                    let below = self.as_constant(c)?.wrapping_sub(1);
                    let below = self.constant(below, self.width(c));
                    let (equal, less) = (self.eq(x, below), self.slt(x, below));
                    Some((equal, self.not(less)))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// `x | xy = x`, `xy | x~y = x`, and the duals.
    fn absorb(&mut self, op: BitOp, terms: &[Term]) -> Option<Term> {
        let dual = if op == BitOp::And { BitOp::Or } else { BitOp::And };
        for (at, &term) in terms.iter().enumerate() {
            let Node::Bits(inner, parts, _) = self.node(term).clone() else { continue };
            if inner != dual {
                continue;
            }
            let mut without = terms.to_vec();
            without.remove(at);
            if parts.iter().any(|part| terms.binary_search(part).is_ok()) {
                return Some(self.bits(op, &without, 1));
            }
            for &part in parts.iter() {
                let complement = self.not(part);
                let rest: Vec<Term> = parts.iter().copied().filter(|&kept| kept != part).collect();
                // x | ~x y = x | y
                if terms.binary_search(&complement).is_ok() {
                    let rest = self.bits(dual, &rest, 1);
                    without.push(rest);
                    return Some(self.bits(op, &without, 1));
                }
                let sibling: Vec<Term> = rest.iter().copied().chain([complement]).collect();
                let sibling = self.bits(dual, &sibling, 1);
                if terms.binary_search(&sibling).is_ok() {
                    without.retain(|&kept| kept != sibling);
                    without.push(self.bits(dual, &rest, 1));
                    return Some(self.bits(op, &without, 1));
                }
            }
        }
        None
    }
}

fn apply(op: BitOp, a: u128, b: u128) -> u128 {
    match op {
        BitOp::And => a & b,
        BitOp::Or => a | b,
        BitOp::Xor => a ^ b,
    }
}

/// Removes equal neighbours in pairs.
fn cancel_pairs(terms: &mut Vec<Term>) {
    let mut kept: Vec<Term> = Vec::with_capacity(terms.len());
    for &term in terms.iter() {
        if kept.last() == Some(&term) {
            kept.pop();
        } else {
            kept.push(term);
        }
    }
    *terms = kept;
}
