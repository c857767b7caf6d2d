//! Divisions by constants, brought back from the multiplications by reciprocals that compilers make of them. Solvers
//! do not find these equalities; arithmetic does.
//!
//! With e = d·M - 2^s > 0:
//! - unsigned, 0 ≤ x ≤ N: x·M/2^s = x/d + x·e/(d·2^s), so if N·e < 2^s, what is added is less than 1/d and
//!   ⌊x·M/2^s⌋ = ⌊x/d⌋.
//! - signed, |x| ≤ N: if N·e ≤ 2^s, the same holds for x ≥ 0, and for x < 0 the floor is one below the quotient
//!   rounded towards zero: ⌊x·M/2^s⌋ = x/d - [x < 0].

use crate::term::{Arena, DivOp, Node, Term, mask, signed};

/// ⌊x·factor / 2^shift⌋
struct Scaled {
    x: Term,
    signed: bool,
    factor: u128,
    shift: u32,
}

impl Scaled {
    /// The divisor that the factor is the reciprocal of, for all values of x, of which `width` bits can be ones.
    fn divisor(&self, width: u32) -> Option<u128> {
        if self.shift > 126 || self.factor < 2 {
            return None;
        }
        let power = 1u128 << self.shift;
        let divisor = power.div_ceil(self.factor);
        let excess = divisor.checked_mul(self.factor)?.checked_sub(power)?;
        let exact = if self.signed {
            excess.checked_mul(1 << (width - 1))? <= power && divisor < 1 << (width - 1)
        } else {
            excess.checked_mul(mask(width))? < power && divisor <= mask(width)
        };
        (exact && excess > 0 && divisor > 1).then_some(divisor)
    }
}

impl Arena {
    /// Bits `hi..lo` of the sum `Σ terms` (`hi + 1` bits wide), if they are those of a quotient.
    pub(crate) fn quotient(&mut self, terms: &[(Term, u128)], hi: u32, lo: u32) -> Option<Term> {
        let scaled = self.scaled(terms, hi, lo)?;
        let (width, wanted) = (self.width(scaled.x), hi - lo + 1);
        let divisor = scaled.divisor(if scaled.signed { width } else { self.significant_bits(scaled.x) })?;
        if scaled.signed {
            // Fewer bits would hide the sum from the addition of the sign that follows.
            let floor = (wanted >= width).then(|| self.signed_floor(scaled.x, divisor))?;
            return Some(self.sext(floor, wanted));
        }
        let divisor = self.constant(divisor, width);
        let quotient = self.udiv(scaled.x, divisor);
        Some(if wanted <= width { self.extract(quotient, wanted - 1, 0) } else { self.zext(quotient, wanted) })
    }

    /// Bits `hi..lo` of `sum`, extended by their sign to `width`, if they are those of a signed quotient.
    pub(crate) fn extended_quotient(&mut self, sum: Term, hi: u32, lo: u32, width: u32) -> Option<Term> {
        let Node::Sum(terms, 0) = self.node(sum).clone() else { return None };
        let scaled = self.scaled(&terms, hi, lo)?;
        let from = self.width(scaled.x);
        let divisor = scaled.divisor(from)?;
        let largest = (1u128 << (from - 1)) / divisor + 1;
        if !scaled.signed || hi + 1 != self.width(sum) || largest > 1 << (hi - lo) {
            return None;
        }
        let floor = self.signed_floor(scaled.x, divisor);
        Some(if width <= from { self.extract(floor, width - 1, 0) } else { self.sext(floor, width) })
    }

    /// ⌊x / divisor⌋ for signed x that is no multiple of the divisor below zero: x/d - [x < 0].
    fn signed_floor(&mut self, x: Term, divisor: u128) -> Term {
        let width = self.width(x);
        let divisor = self.constant(divisor, width);
        let (quotient, sign) = (self.sdiv(x, divisor), self.sign(x));
        let sign = self.zext(sign, width);
        self.sub(quotient, sign)
    }

    /// The product that bits `hi..lo` of a sum are the upper part of.
    fn scaled(&mut self, terms: &[(Term, u128)], hi: u32, lo: u32) -> Option<Scaled> {
        match terms {
            [(term, factor)] => match *self.node(*term) {
                // An unsigned product must not have lost bits above `hi`.
                Node::Zext(x) => {
                    let fits = factor.checked_mul(mask(self.width(x))).is_some_and(|most| most <= mask(hi + 1));
                    fits.then_some(Scaled { x, signed: false, factor: *factor, shift: lo })
                }
                Node::Sext(x) => Some(Scaled { x, signed: true, factor: *factor, shift: lo }),
                _ => None,
            },
            &[(a, 1), (b, 1)] => self
                .scaled_signed(a, b, hi, lo)
                .or_else(|| self.scaled_signed(b, a, hi, lo))
                .or_else(|| self.scaled_average(a, b, hi, lo))
                .or_else(|| self.scaled_average(b, a, hi, lo)),
            _ => None,
        }
    }

    /// x + ⌊x·m/2^b⌋ = ⌊x·(2^b + m)/2^b⌋, for factors that do not fit with their sign.
    fn scaled_signed(&self, x: Term, t: Term, hi: u32, lo: u32) -> Option<Scaled> {
        let Node::Extract(sum, top, shift) = *self.node(t) else { return None };
        let Node::Sum(terms, 0) = self.node(sum) else { return None };
        let &[(term, factor)] = terms.as_ref() else { return None };
        let width = self.width(x);
        let upper_half = self.width(sum) == top + 1 && width == top - shift + 1;
        if *self.node(term) != Node::Sext(x) || !upper_half || hi + 1 != width || shift + lo > 126 {
            return None;
        }
        let factor = signed(factor, width + shift).checked_add(1 << shift)?;
        let factor = u128::try_from(factor).ok()?;
        Some(Scaled { x, signed: true, factor, shift: shift + lo })
    }

    /// t + ⌊(x - t)/2⌋ = ⌊(x + t)/2⌋ with t = ⌊x·m/2^b⌋ ≤ x, for factors of one bit more than x has. Both terms are
    /// known by their lowest `hi + 1` bits.
    fn scaled_average(&mut self, t: Term, half: Term, hi: u32, lo: u32) -> Option<Scaled> {
        let Node::Extract(sum, _, shift) = *self.node(t) else { return None };
        let Node::Sum(terms, 0) = self.node(sum) else { return None };
        let &[(term, factor)] = terms.as_ref() else { return None };
        let Node::Zext(x) = *self.node(term) else { return None };
        let width = self.width(x);
        if hi >= width || width + shift > 128 || shift + lo + 1 > 126 || factor > 1 << shift {
            return None;
        }
        let (wide, by) = (self.zext(x, width + shift), self.constant(factor, width + shift));
        let product = self.mul(wide, by);
        let whole = self.extract(product, width + shift - 1, shift);
        // x may be a sum itself, whose terms are then among those of the difference.
        let difference = self.sub(x, whole);
        let halved = self.extract(difference, width - 1, 1);
        let halved = self.zext(halved, width);
        let [whole, halved] = [whole, halved].map(|term| self.extract(term, hi, 0));
        let factor = factor.checked_add(1 << shift)?;
        (whole == t && halved == half).then_some(Scaled { x, signed: false, factor, shift: shift + lo + 1 })
    }

    /// Bits that an unsigned quotient by a constant can have.
    fn quotient_bits(&self, dividend: Term, divisor: u128) -> u32 {
        let most = mask(self.width(dividend)).checked_div(divisor).unwrap_or(u128::MAX);
        128 - most.leading_zeros()
    }

    /// Unsigned division by a constant that is not zero: shifts before it become part of the divisor, and only the
    /// bits that a quotient can have are kept.
    pub(crate) fn udiv_constant(&mut self, a: Term, divisor: u128) -> Term {
        let width = self.width(a);
        if let Node::Extract(source, hi, lo) = *self.node(a)
            && lo > 0
            && hi + 1 == self.width(source)
        {
            let total = divisor.checked_shl(lo).filter(|total| total >> lo == divisor && *total <= mask(hi + 1));
            let Some(total) = total else { return self.constant(0, width) };
            let quotient = self.udiv_constant(source, total);
            return self.extract(quotient, width - 1, 0);
        }
        let by = self.constant(divisor, width);
        let raw = self.intern(Node::Divide(DivOp::Udiv, a, by), width);
        self.extract_quotient(raw, a, divisor, width - 1, 0)
    }

    /// Bits `hi..lo` of the division node `raw`, which divides `a` by the constant `divisor`.
    pub(crate) fn extract_quotient(&mut self, raw: Term, a: Term, divisor: u128, hi: u32, lo: u32) -> Term {
        let width = self.width(a);
        if lo > 0 {
            // ⌊⌊a/d⌋/2^lo⌋ = ⌊a/(d·2^lo)⌋
            let total = divisor.checked_shl(lo).filter(|total| total >> lo == divisor && *total <= mask(width));
            let Some(total) = total else { return self.constant(0, hi - lo + 1) };
            let quotient = self.udiv_constant(a, total);
            return self.extract(quotient, hi - lo, 0);
        }
        let bits = self.quotient_bits(a, divisor);
        if bits == 0 {
            return self.constant(0, hi + 1);
        }
        let kept = bits.min(hi + 1);
        let low = if kept == width { raw } else { self.intern(Node::Extract(raw, kept - 1, 0), kept) };
        self.zext(low, hi + 1)
    }
}
