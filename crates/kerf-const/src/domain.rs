//! The certified domain: the values for which the template stands for what the compiler makes.

use std::collections::BTreeMap;

use crate::entry::Interval;
use crate::error::ConstError;

/// How often further values may be compiled to find the ends of the domain.
const MOST_ROUNDS: u32 = 4;

/// What is known of a value: it agrees, or why not.
pub type Verdicts = BTreeMap<i128, Result<(), String>>;

/// The values of an interval that are known to agree.
pub fn agreeing(known: &Verdicts, interval: Interval) -> impl Iterator<Item = i128> + '_ {
    let inside = known.iter().filter(move |(v, _)| (interval.min..=interval.max).contains(*v));
    inside.filter(|(_, verdict)| verdict.is_ok()).map(|(v, _)| *v)
}

/// Finds the interval around the deployed value in which every compiled value agrees.
///
/// `judge` compiles values and judges them, several at once. The ends are drawn nearer by dividing the gap to the first
/// value that does not agree; what lies beyond is not certified, even if single values there agree.
pub fn certify(
    value: i128,
    known: &mut Verdicts,
    mut judge: impl FnMut(&[i128]) -> Result<Verdicts, ConstError>,
) -> Result<Interval, ConstError> {
    for _ in 0..MOST_ROUNDS {
        let gaps: Vec<(i128, i128)> = [1, -1].iter().filter_map(|way| gap(value, known, *way)).collect();
        let mut probes: Vec<i128> = match gaps[..] {
            [] => break,
            // The second is judged only if the first agrees.
            [(good, bad)] => vec![between(good, bad, (1, 3)), between(good, bad, (2, 3))],
            ref both => both.iter().map(|(good, bad)| between(*good, *bad, (1, 2))).collect(),
        };
        probes.dedup();
        known.extend(judge(&probes)?);
    }
    Ok(Interval { min: frontier(value, known, -1).0, max: frontier(value, known, 1).0 })
}

/// The last value in a direction that agrees and the first that does not, if there are others in between.
fn gap(value: i128, known: &Verdicts, direction: i128) -> Option<(i128, i128)> {
    let (good, bad) = frontier(value, known, direction);
    bad.filter(|bad| (bad - good).abs() > 1).map(|bad| (good, bad))
}

/// Cuts an interval down to what is certain where a form's parameters are not: between two neighbouring values that
/// agree, only if all such forms have the same number at both. `level` gives those numbers.
pub fn certain(
    interval: Interval,
    known: &Verdicts,
    value: i128,
    level: impl Fn(i128) -> Vec<Option<i128>>,
) -> Vec<Interval> {
    let mut agreeing: Vec<i128> = known.iter().filter(|(_, r)| r.is_ok()).map(|(v, _)| *v).collect();
    agreeing.push(value);
    agreeing.retain(|v| (interval.min..=interval.max).contains(v));
    agreeing.sort();
    agreeing.dedup();
    let mut found: Vec<Interval> = Vec::new();
    for v in agreeing {
        match found.last_mut() {
            // All forms are monotonic: equal at both ends is equal in between.
            Some(last) if level(last.max) == level(v) || last.max + 1 == v => last.max = v,
            _ => found.push(Interval { min: v, max: v }),
        }
    }
    found
}

/// The last value in a direction before the first that does not agree, and that one.
fn frontier(value: i128, known: &Verdicts, direction: i128) -> (i128, Option<i128>) {
    let mut good = value;
    let ahead: Vec<(&i128, &Result<(), String>)> =
        if direction > 0 { known.range(value + 1..).collect() } else { known.range(..value).rev().collect() };
    for (v, result) in ahead {
        match result {
            Ok(()) => good = *v,
            Err(_) => return (good, Some(*v)),
        }
    }
    (good, None)
}

/// A value between two others, at some part of the way: by magnitude where they are far apart.
fn between(good: i128, bad: i128, (part, parts): (u32, u32)) -> i128 {
    let (low, high) = (good.min(bad), good.max(bad));
    if low > 0 && high / low >= 4 {
        let exponent = low.ilog2() + (high.ilog2() - low.ilog2()) * part / parts;
        return (1i128 << exponent).clamp(low + 1, high - 1);
    }
    (low + (high - low) * i128::from(part) / i128::from(parts)).clamp(low + 1, high - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(value: i128, samples: &[i128], good: impl Fn(i128) -> bool) -> Interval {
        let judge = |v: i128| if good(v) { Ok(()) } else { Err("no".to_string()) };
        let mut known: Verdicts = samples.iter().map(|v| (*v, judge(*v))).collect();
        certify(value, &mut known, |values| Ok(values.iter().map(|v| (*v, judge(*v))).collect())).unwrap()
    }

    #[test]
    fn the_domain_ends_before_the_first_value_that_disagrees() {
        let found = run(32, &[1, 2, 33, 64, 128, 1000], |v| (2..=100).contains(&v));
        assert_eq!(found, Interval { min: 2, max: 100 });
    }

    #[test]
    fn no_value_is_judged_twice() {
        let mut judged = Vec::new();
        let mut known: Verdicts = [(9, Ok(())), (11, Err("no".to_string()))].into();
        let found = certify(8, &mut known, |values| {
            judged.extend_from_slice(values);
            Ok(values.iter().map(|v| (*v, Err("no".to_string()))).collect())
        });
        assert_eq!((found.unwrap(), judged), (Interval { min: 8, max: 9 }, vec![10]));
    }

    #[test]
    fn steps_that_are_not_pinned_certify_only_their_levels() {
        let known: Verdicts = [10, 19, 20, 29, 40].into_iter().map(|v| (v, Ok(()))).collect();
        let found = certain(Interval { min: 10, max: 40 }, &known, 15, |v| vec![Some(v / 10)]);
        let pairs: Vec<(i128, i128)> = found.iter().map(|i| (i.min, i.max)).collect();
        assert_eq!(pairs, [(10, 29), (40, 40)]);
    }

    #[test]
    fn it_never_reaches_beyond_what_was_compiled() {
        assert_eq!(run(32, &[16, 64], |_| true), Interval { min: 16, max: 64 });
        assert_eq!(run(32, &[], |_| true), Interval { min: 32, max: 32 });
    }

    proptest! {
        #[test]
        fn a_value_known_to_disagree_is_never_inside(samples in proptest::collection::btree_set(1i128..10000, 0..20), low in 1i128..500, high in 500i128..10000) {
            let samples: Vec<i128> = samples.into_iter().filter(|v| *v != 500).collect();
            let found = run(500, &samples, |v| (low..=high).contains(&v));
            prop_assert!(found.min <= 500 && 500 <= found.max);
            for v in samples {
                prop_assert!((low..=high).contains(&v) || !(found.min..=found.max).contains(&v));
            }
        }
    }
}
