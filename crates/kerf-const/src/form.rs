//! Forms: how a number in the code follows from the constant's value V, fitted over compiled variants.

use std::fmt;

use serde::{Deserialize, Serialize};

/// IV as a function of V. All arithmetic is exact; the result is then cut to the operand's width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "kebab-case")]
pub enum Form {
    /// `a·V + b`.
    Affine {
        /// Factor.
        #[serde(with = "crate::exact")]
        a: i128,
        /// Summand.
        #[serde(with = "crate::exact")]
        b: i128,
    },
    /// `factor·(⌊(V + b) / a⌋ + c)`; a ceiling division has `b = a − 1`.
    Quotient {
        /// What the quotient is multiplied by, not 0; 1 is left out where it is stored.
        #[serde(with = "crate::exact", default = "one", skip_serializing_if = "is_one")]
        factor: i128,
        /// Divisor, at least 2.
        #[serde(with = "crate::exact")]
        a: i128,
        /// Added before the division.
        #[serde(with = "crate::exact")]
        b: i128,
        /// Added after it.
        #[serde(with = "crate::exact")]
        c: i128,
    },
    /// `⌊(m·V + b) / a⌋`, as percentages give it.
    Ratio {
        /// Factor of V, not 0.
        #[serde(with = "crate::exact")]
        m: i128,
        /// Divisor, at least 2 and without a common divisor with `m`.
        #[serde(with = "crate::exact")]
        a: i128,
        /// Added before the division.
        #[serde(with = "crate::exact")]
        b: i128,
    },
    /// `⌊a / V⌋ + b`.
    Reciprocal {
        /// Dividend.
        #[serde(with = "crate::exact")]
        a: i128,
        /// Summand.
        #[serde(with = "crate::exact")]
        b: i128,
    },
    /// `a·2^V + b`.
    Power {
        /// Factor.
        #[serde(with = "crate::exact")]
        a: i128,
        /// Summand.
        #[serde(with = "crate::exact")]
        b: i128,
    },
    /// `⌊log2 V⌋ + b`.
    Logarithm {
        /// Summand.
        #[serde(with = "crate::exact")]
        b: i128,
    },
    /// `⌊log2 ⌊a / V⌋⌋ + b`.
    ReciprocalLogarithm {
        /// Dividend.
        #[serde(with = "crate::exact")]
        a: i128,
        /// Summand.
        #[serde(with = "crate::exact")]
        b: i128,
    },
}

fn one() -> i128 {
    1
}

fn is_one(factor: &i128) -> bool {
    *factor == 1
}

impl Form {
    /// 1, whatever V is.
    pub const ONE: Form = Form::Affine { a: 0, b: 1 };

    /// IV for a value of V; `None` where the form has no value (division by zero, too large a shift).
    pub fn apply(&self, v: i128) -> Option<i128> {
        match *self {
            Form::Affine { a, b } => a.checked_mul(v)?.checked_add(b),
            Form::Quotient { factor, a, b, c } => {
                v.checked_add(b)?.checked_div_euclid(a)?.checked_add(c)?.checked_mul(factor)
            }
            Form::Ratio { m, a, b } => m.checked_mul(v)?.checked_add(b)?.checked_div_euclid(a),
            Form::Reciprocal { a, b } => (v > 0).then(|| a / v + b),
            Form::Power { a, b } => {
                a.checked_mul(1i128.checked_shl(u32::try_from(v).ok().filter(|s| *s < 100)?)?)?.checked_add(b)
            }
            Form::Logarithm { b } => (v > 0).then(|| i128::from(v.ilog2()) + b),
            Form::ReciprocalLogarithm { a, b } => (v > 0 && a / v > 0).then(|| i128::from((a / v).ilog2()) + b),
        }
    }

    /// The word that JSON uses and the two main parameters.
    pub fn parts(&self) -> (&'static str, i128, i128) {
        match *self {
            Form::Affine { a, b } => ("affine", a, b),
            Form::Quotient { a, b, .. } => ("quotient", a, b),
            Form::Ratio { m, b, .. } => ("ratio", m, b),
            Form::Reciprocal { a, b } => ("reciprocal", a, b),
            Form::Power { a, b } => ("power", a, b),
            Form::Logarithm { b } => ("logarithm", 1, b),
            Form::ReciprocalLogarithm { a, b } => ("reciprocal-logarithm", a, b),
        }
    }

    /// Whether the compiled values leave the form's parameters no freedom, so that it holds between them too.
    ///
    /// Dividends are only known to lie in an interval, and so is an offset that is neither floor, ceiling nor rounding.
    pub fn is_pinned(&self) -> bool {
        match *self {
            Form::Affine { .. } | Form::Power { .. } | Form::Logarithm { .. } => true,
            Form::Quotient { a, b, .. } => b == 0 || b == a - 1,
            Form::Ratio { .. } | Form::Reciprocal { .. } | Form::ReciprocalLogarithm { .. } => false,
        }
    }

    /// The same, where `values` are known to give what the compiler has, and others up to `most` are of interest: a ratio is pinned if no
    /// other simple one with a usual rounding gives the same numbers at `values` and another one elsewhere.
    pub fn is_pinned_by(&self, values: &[i128], most: i128) -> bool {
        let Form::Ratio { .. } = *self else { return self.is_pinned() };
        let mut others = self.others(values);
        // Between so many values, and among so many ratios, nobody looks for a difference.
        if most > MOST_TELLING || others.len() >= MOST_OTHERS {
            return others.is_empty();
        }
        others.retain(|other| self.differs(other, most).is_some());
        others.is_empty()
    }

    /// Some values up to `most` at which the form differs from others that give the same numbers at `values`.
    pub fn telling(&self, values: &[i128], most: i128) -> Vec<i128> {
        let differs = |other: &Form| self.differs(other, most.min(MOST_TELLING));
        let mut found: Vec<i128> = self.others(values).iter().filter_map(differs).collect();
        found.sort_unstable();
        found.dedup();
        found.truncate(MOST_AT_ONCE);
        found
    }

    /// Other ratios that give the same numbers at `values`.
    fn others(&self, values: &[i128]) -> Vec<Form> {
        let Form::Ratio { a, .. } = *self else { return Vec::new() };
        let points: Option<Vec<(i128, i128)>> = values.iter().map(|v| Some((*v, self.apply(*v)?))).collect();
        let Some(points) = points.filter(|points| points.len() > 1) else { return Vec::new() };
        let all = ratios(&points, 2..=MOST_OTHER_PARTS.max(a)).flat_map(usual);
        all.filter(|other| other != self).take(MOST_OTHERS).collect()
    }

    /// The first value at which two forms differ.
    fn differs(&self, other: &Form, most: i128) -> Option<i128> {
        (1..=most).find(|v| other.apply(*v) != self.apply(*v))
    }

    /// Values of V around `near` where a step form changes its result: the places at which a wrong form shows.
    pub fn steps(&self, near: i128) -> Vec<i128> {
        match *self {
            Form::Quotient { a, b, .. } => {
                let multiple = (near + b).div_euclid(a) + 1;
                let edge = multiple * a - b;
                vec![edge - 1, edge]
            }
            Form::Ratio { m, a, .. } if m.abs() < a => {
                let last = a / m.abs() + 1;
                let edge = (near..=near + last).find(|v| self.apply(*v) != self.apply(v + 1));
                edge.map(|v| vec![v, v + 1]).unwrap_or_default()
            }
            Form::Reciprocal { a, .. } | Form::ReciprocalLogarithm { a, .. } if near > 0 && a > 0 => {
                let edge = a / (a / near).max(1);
                vec![edge, edge + 1]
            }
            _ => Vec::new(),
        }
    }
}

fn scaled(f: &mut fmt::Formatter<'_>, a: i128, what: &str) -> fmt::Result {
    match a {
        1 => f.write_str(what),
        -1 => write!(f, "−{what}"),
        a if a < 0 => write!(f, "−{}{what}", -a),
        a => write!(f, "{a}{what}"),
    }
}

fn plus(f: &mut fmt::Formatter<'_>, b: i128) -> fmt::Result {
    match b {
        0 => Ok(()),
        b if b < 0 => write!(f, " − {}", -b),
        b => write!(f, " + {b}"),
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Form::Affine { a: 0, b } => write!(f, "{b}"),
            Form::Affine { a: -1, b: -1 } => f.write_str("~V"),
            Form::Affine { a, b } => {
                scaled(f, a, "V")?;
                plus(f, b)
            }
            Form::Quotient { factor, a, b, c } => {
                let step = match b {
                    0 => format!("⌊V / {a}⌋"),
                    b if b == a - 1 => format!("⌈V / {a}⌉"),
                    b => format!("⌊({}) / {a}⌋", Form::Affine { a: 1, b }),
                };
                scaled(f, factor, &step)?;
                plus(f, factor * c)
            }
            Form::Ratio { m, a, b } => match (b.div_euclid(a), b.rem_euclid(a)) {
                (whole, 0) => {
                    write!(f, "⌊{} / {a}⌋", Form::Affine { a: m, b: 0 })?;
                    plus(f, whole)
                }
                (whole, rest) if rest == a - 1 => {
                    write!(f, "⌈{} / {a}⌉", Form::Affine { a: m, b: 0 })?;
                    plus(f, whole)
                }
                _ => write!(f, "⌊({}) / {a}⌋", Form::Affine { a: m, b }),
            },
            Form::Reciprocal { a, b } => {
                write!(f, "⌊{a} / V⌋")?;
                plus(f, b)
            }
            Form::Power { a, b } => {
                if a == 1 {
                    f.write_str("2^V")?
                } else {
                    scaled(f, a, "·2^V")?
                }
                plus(f, b)
            }
            Form::Logarithm { b } => {
                f.write_str("⌊log2 V⌋")?;
                plus(f, b)
            }
            Form::ReciprocalLogarithm { a, b } => {
                write!(f, "⌊log2 ⌊{a} / V⌋⌋")?;
                plus(f, b)
            }
        }
    }
}

/// Cuts a number to `bits` and reads it as signed.
pub fn wrap(value: i128, bits: u32) -> i64 {
    let bits = bits.clamp(1, 64);
    let cut = (value as u64) << (64 - bits);
    (cut as i64) >> (64 - bits)
}

/// One observation: V and the number in the code, sign-extended.
pub type Point = (i128, i64);

fn reproduces(form: &Form, points: &[Point], bits: u32) -> bool {
    points.iter().all(|(v, iv)| form.apply(*v).is_some_and(|x| wrap(x, bits) == wrap(i128::from(*iv), bits)))
}

/// Fits a form over at least three points of different V: the first that reproduces all of them, simplest first.
///
/// `bits` is the width of the operand. Returns `None` if no form does: the number is shown as not understood.
pub fn fit(points: &[Point], bits: u32) -> Option<Form> {
    let mut points = points.to_vec();
    points.sort();
    points.dedup();
    if points.windows(2).any(|w| w[0].0 == w[1].0) || points.len() < 3 {
        return None;
    }
    let readings = [points.clone(), points.iter().map(|(v, iv)| (*v, unsigned(*iv, bits))).collect()];
    let mut candidates = Vec::new();
    for reading in &readings {
        candidates.extend(affine(reading, bits));
    }
    for reading in &readings {
        candidates.extend(reciprocals(reading));
        candidates.extend(powers(reading));
        candidates.extend(logarithms(reading));
        candidates.extend(quotients(reading));
        candidates.extend(multiples(reading));
    }
    candidates.extend(readings.iter().filter_map(|reading| ratio(reading)));
    candidates.into_iter().find(|form| reproduces(form, &points, bits))
}

fn unsigned(iv: i64, bits: u32) -> i64 {
    if bits >= 64 { iv } else { (iv as u64 & ((1u64 << bits) - 1)) as i64 }
}

fn affine(points: &[Point], bits: u32) -> Vec<Form> {
    let mut found = Vec::new();
    for pair in points.windows(2) {
        let ((v0, i0), (v1, i1)) = (pair[0], pair[1]);
        let (dv, di) = (v1 - v0, i128::from(i1) - i128::from(i0));
        // The numbers may have wrapped at the operand's width between the two points.
        let turn = 1i128 << bits.min(64);
        for di in [di, di + turn, di - turn] {
            if di % dv == 0 {
                let a = di / dv;
                found.push(Form::Affine { a, b: i128::from(i0) - a * v0 });
            }
        }
    }
    found.sort_by_key(|f| match f {
        Form::Affine { a, .. } => a.unsigned_abs(),
        _ => u128::MAX,
    });
    found.dedup();
    found
}

fn quotients(points: &[Point]) -> Vec<Form> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    let rise = i128::from(last.1) - i128::from(first.1);
    if rise <= 0 {
        return Vec::new();
    }
    let span = last.0 - first.0;
    let (low, high) = (span / (rise + 1), span / (rise - 1).max(1) + 1);
    let mut found = Vec::new();
    for a in low.max(2)..=high.min(low + 4096) {
        for c in [0, -1, 1] {
            // Each point confines b to a interval of `a` numbers; the form is known when they meet in a usual one.
            let lower = points.iter().map(|(v, iv)| (i128::from(*iv) - c) * a - v).max().unwrap_or(0);
            let upper = points.iter().map(|(v, iv)| (i128::from(*iv) - c) * a - v + a - 1).min().unwrap_or(-1);
            if lower > upper {
                continue;
            }
            let usual = [0, a - 1, a / 2].into_iter().find(|b| (lower..=upper).contains(b));
            if let Some(b) = usual.or((lower == upper && points.len() >= 6).then_some(lower)) {
                found.push(Form::Quotient { factor: 1, a, b, c });
            }
        }
    }
    found
}

/// Quotients of which the numbers are a common multiple, or the negative.
fn multiples(points: &[Point]) -> Vec<Form> {
    let common = points.iter().fold(0u64, |common, (_, iv)| gcd(common, iv.unsigned_abs()));
    let Some(common) = i64::try_from(common).ok().filter(|c| *c != 0) else { return Vec::new() };
    let scaled = |factor: i64| {
        let parts: Vec<Point> = points.iter().map(|(v, iv)| (*v, iv / factor)).collect();
        // With a factor to choose, only the usual divisions say something.
        quotients(&parts).into_iter().filter(Form::is_pinned).filter_map(move |form| match form {
            Form::Quotient { a, b, c, .. } => Some(Form::Quotient { factor: factor.into(), a, b, c }),
            _ => None,
        })
    };
    [common, -common].into_iter().filter(|factor| *factor != 1).flat_map(scaled).collect()
}

/// The largest divisor of a ratio that is looked for: percentages are written, and parts of a thousand.
const MOST_PARTS: i128 = 1000;
/// The largest divisor of another ratio that would make one uncertain, in lowest terms.
const MOST_OTHER_PARTS: i128 = 128;
/// Other ratios are told apart at values up to this, as far as one looks.
const MOST_TELLING: i128 = 1 << 16;
/// So many others are looked at.
const MOST_OTHERS: usize = 256;
/// So many values are named that tell them apart.
const MOST_AT_ONCE: usize = 8;
/// Fewer numbers have too many ratios.
const LEAST_POINTS: usize = 6;

/// The simplest ratio that gives the numbers, with a usual rounding.
fn ratio(points: &[Point]) -> Option<Form> {
    if points.len() < LEAST_POINTS {
        return None;
    }
    let wide: Vec<(i128, i128)> = points.iter().map(|(v, iv)| (*v, (*iv).into())).collect();
    // Parts of a power of ten or two, in lowest terms, before those that nobody writes.
    let written = |a: &i128| 1000 % a == 0 || a.is_positive() && (*a as u128).is_power_of_two();
    let (written, others): (Vec<i128>, Vec<i128>) = (2..=MOST_PARTS).partition(written);
    ratios(&wide, written.into_iter().chain(others)).flat_map(usual).next()
}

/// Those of a ratio's summands that round down, up, or to the nearest.
fn usual((m, a, lower, upper): (i128, i128, i128, i128)) -> impl Iterator<Item = Form> {
    // Some numbers in a row have all remainders among them.
    let summands = lower..=upper.min(lower + a - 1);
    summands.filter(move |b| [0, a - 1, a / 2].contains(&b.rem_euclid(a))).map(move |b| Form::Ratio { m, a, b })
}

/// Ratios in lowest terms that give the numbers, in the order of the divisors: factor, divisor, and the least and greatest summand.
fn ratios(
    points: &[(i128, i128)],
    divisors: impl Iterator<Item = i128>,
) -> impl Iterator<Item = (i128, i128, i128, i128)> {
    let (first, last) = (points.iter().min().copied(), points.iter().max().copied());
    let (span, rise) = match first.zip(last) {
        Some((first, last)) => (last.0 - first.0, last.1 - first.1),
        None => (0, 0),
    };
    let divisors = divisors.filter(move |_| span > 0);
    // Each of both numbers is less than one above what the division would give exactly.
    let factors = move |a: i128| ((rise - 1) * a).div_euclid(span) + 1..=((rise + 1) * a - 1).div_euclid(span);
    divisors.flat_map(move |a| factors(a).map(move |m| (m, a))).filter_map(move |(m, a)| {
        if m == 0 || gcd(m.unsigned_abs() as u64, a as u64) != 1 {
            return None;
        }
        let lower = points.iter().map(|(v, iv)| iv * a - m * v).max()?;
        let upper = points.iter().map(|(v, iv)| iv * a - m * v + a - 1).min()?;
        (lower <= upper).then_some((m, a, lower, upper))
    })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn reciprocals(points: &[Point]) -> Vec<Form> {
    if points.iter().any(|(v, iv)| *v <= 0 || *iv < -1) {
        return Vec::new();
    }
    [0, -1, 1]
        .into_iter()
        .filter_map(|b| {
            let lower = points.iter().map(|(v, iv)| (i128::from(*iv) - b) * v).max()?;
            let upper = points.iter().map(|(v, iv)| (i128::from(*iv) - b + 1) * v - 1).min()?;
            (lower <= upper).then(|| Form::Reciprocal { a: round_number(lower, upper), b })
        })
        .collect()
}

/// The roundest number of an interval: the one that a person would have written.
fn round_number(lower: i128, upper: i128) -> i128 {
    let mut step = 1i128;
    while let Some(next) = step.checked_mul(10) {
        if upper.div_euclid(next) * next < lower {
            break;
        }
        step = next;
    }
    upper.div_euclid(step) * step
}

fn powers(points: &[Point]) -> Vec<Form> {
    let (Some(p), Some(q)) = (points.first(), points.get(1)) else { return Vec::new() };
    if p.0 < 0 || points.iter().any(|(v, _)| *v > 62) {
        return Vec::new();
    }
    let rise = i128::from(q.1) - i128::from(p.1);
    let unit = (1i128 << q.0) - (1i128 << p.0);
    if unit == 0 || rise % unit != 0 || rise == 0 {
        return Vec::new();
    }
    let a = rise / unit;
    vec![Form::Power { a, b: i128::from(p.1) - a * (1i128 << p.0) }]
}

fn logarithms(points: &[Point]) -> Vec<Form> {
    let Some((v, iv)) = points.iter().find(|(v, _)| *v > 0) else { return Vec::new() };
    let mut found = vec![Form::Logarithm { b: i128::from(*iv) - i128::from(v.ilog2()) }];
    for b in [0, -1, 1] {
        // 2^(iv−b) ≤ a / V < 2^(iv−b+1) confines the dividend.
        let bound = |extra: i128| {
            points.iter().map(move |(v, iv)| {
                let exponent = u32::try_from(i128::from(*iv) - b + extra).ok().filter(|e| *e < 64)?;
                Some(v.checked_mul(1i128 << exponent)? - extra)
            })
        };
        let lower: Option<Vec<i128>> = bound(0).collect();
        let upper: Option<Vec<i128>> = bound(1).collect();
        if let (Some(lower), Some(upper)) = (lower, upper)
            && let (Some(l), Some(u)) = (lower.iter().max(), upper.iter().min())
            && l <= u
        {
            found.push(Form::ReciprocalLogarithm { a: round_number(*l, *u), b });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points(form: Form, values: &[i128], bits: u32) -> Vec<Point> {
        values.iter().map(|v| (*v, wrap(form.apply(*v).unwrap(), bits))).collect()
    }

    #[test]
    fn the_plug_limit_is_minus_v_and_twice_v() {
        assert_eq!(fit(&[(32, -32), (33, -33), (4, -4), (63, -63)], 32), Some(Form::Affine { a: -1, b: 0 }));
        assert_eq!(fit(&[(32, 64), (33, 66), (4, 8)], 32), Some(Form::Affine { a: 2, b: 0 }));
    }

    #[test]
    fn milliseconds_to_jiffies_is_a_ceiling() {
        let seen = [(2, 1), (3, 1), (5, 2), (8, 2), (100, 25), (2000, 500)];
        assert_eq!(fit(&seen, 64), Some(Form::Quotient { factor: 1, a: 4, b: 3, c: 0 }));
        assert_eq!(fit(&seen, 64).unwrap().to_string(), "⌈V / 4⌉");
    }

    #[test]
    fn multiples_and_negatives_of_quotients_are_found() {
        let seen = [(2, 64), (3, 64), (128, 2048), (250, 4032), (499, 8000), (500, 8000), (501, 8064), (1000, 16000)];
        assert_eq!(fit(&seen, 32), Some(Form::Quotient { factor: 64, a: 4, b: 3, c: 0 }));
        assert_eq!(fit(&seen, 32).unwrap().to_string(), "64⌈V / 4⌉");
        let negative = seen.map(|(v, iv)| (v, -iv / 64));
        assert_eq!(fit(&negative, 32).unwrap().to_string(), "−⌈V / 4⌉");
    }

    #[test]
    fn parts_of_a_hundred_are_ratios() {
        // A rest of a weight of 2^16, by a constant in percent.
        let left = |v: i128| (v, 65536 - (65536 * v / 100) as i64);
        let seen = [50, 49, 51, 53, 47, 37, 62, 75].map(left);
        let form = fit(&seen, 32).unwrap();
        assert_eq!(form, Form::Ratio { m: -16384, a: 25, b: 65536 * 25 + 24 });
        assert_eq!(form.to_string(), "⌈−16384V / 25⌉ + 65536");
        assert_eq!(fit(&seen[..3], 32), None, "three numbers have many ratios");
        let most = [5, 6, 4, 10, 2, 63, 9, 128].map(|v: i128| (v, (v * 3 / 4) as i64));
        assert_eq!(fit(&most, 32).unwrap().to_string(), "⌊3V / 4⌋");
        assert_eq!(fit(&most, 32).unwrap().steps(20), [21, 22]);
        // Where another one would differ can be asked, until none is left.
        let mut values = vec![49, 50, 51];
        assert!(!form.is_pinned_by(&values, 99));
        for _ in 0..8 {
            values.extend(form.telling(&values, 99));
        }
        assert!(form.is_pinned_by(&values, 99) && values.iter().all(|v| (1..=99).contains(v)), "{values:?}");
    }

    #[test]
    fn clamped_values_fit_nothing() {
        assert_eq!(fit(&[(1, 1), (2, 2), (3, 3), (100, 100), (200, 128), (300, 128)], 32), None);
    }

    #[test]
    fn two_points_prove_nothing() {
        assert_eq!(fit(&[(1, 1), (2, 2)], 32), None);
    }

    #[test]
    fn packed_fields_are_affine() {
        let seen = [(50, 0x32_0000_00fa), (51, 0x33_0000_00fa), (100, 0x64_0000_00fa)];
        assert_eq!(fit(&seen, 64), Some(Form::Affine { a: 1 << 32, b: 0xfa }));
    }

    proptest! {
        #[test]
        fn affine_forms_are_found_even_when_they_wrap(a in -70000i128..70000, b in -70000i128..70000, bits in prop_oneof![Just(16u32), Just(32), Just(64)]) {
            prop_assume!(a != 0);
            let values = [1, 2, 3, 10, 11, 1000, 4097];
            let seen = points(Form::Affine { a, b }, &values, bits);
            let found = fit(&seen, bits).unwrap();
            for v in 0..5000 {
                prop_assert_eq!(wrap(found.apply(v).unwrap_or(i128::MAX), bits), wrap(a * v + b, bits));
            }
        }

        #[test]
        fn ratios_are_found_or_nothing_is(m in -3000i128..3000, a in 2i128..200, b in 0i128..4000) {
            let form = Form::Ratio { m, a, b };
            let values: Vec<i128> = vec![50, 49, 51, 53, 47, 37, 62, 75, 25, 100, 1000, 2, 3];
            if let Some(found) = fit(&points(form, &values, 64), 64) {
                for v in values {
                    prop_assert_eq!(found.apply(v), form.apply(v));
                }
            }
        }

        #[test]
        fn every_fit_reproduces_its_points(ivs in proptest::collection::vec(any::<i16>(), 5)) {
            let seen: Vec<Point> = ivs.iter().enumerate().map(|(n, iv)| (n as i128 * 7 + 1, i64::from(*iv))).collect();
            if let Some(form) = fit(&seen, 64) {
                for (v, iv) in seen {
                    prop_assert_eq!(form.apply(v), Some(i128::from(iv)));
                }
            }
        }

        #[test]
        fn step_forms_are_found(a in 2i128..300, kind in 0..2) {
            let form = Form::Quotient { factor: 1, a, b: if kind == 0 { 0 } else { a - 1 }, c: 0 };
            let values: Vec<i128> = [1, a - 1, a, a + 1, 2 * a - 1, 2 * a, 2 * a + 1, 1000 * a, 1000 * a + 1].to_vec();
            let mut values = values; values.sort(); values.dedup();
            prop_assert_eq!(fit(&points(form, &values, 64), 64), Some(form));
        }
    }
}
