//! The certified domain: the values for which the template stands for what the compiler makes.

use std::collections::BTreeMap;

use crate::entry::Interval;
use crate::error::ConstError;

/// How many further values may be compiled to find one end of the domain.
const MOST_STEPS: u32 = 6;

/// What is known of a value: it agrees, or why not.
pub type Verdicts = BTreeMap<i128, Result<(), String>>;

/// Finds the interval around the deployed value in which every compiled value agrees.
///
/// `verdict` compiles one value and judges it. The ends are drawn nearer by halving the gap to the first value that does
/// not agree; what lies beyond is not certified, even if single values there agree.
pub fn certify(
    value: i128,
    known: &mut Verdicts,
    mut verdict: impl FnMut(i128) -> Result<Result<(), String>, ConstError>,
) -> Result<Interval, ConstError> {
    let max = end(value, known, 1, &mut verdict)?;
    let min = end(value, known, -1, &mut verdict)?;
    Ok(Interval { min, max })
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

fn end(
    value: i128,
    known: &mut Verdicts,
    direction: i128,
    verdict: &mut impl FnMut(i128) -> Result<Result<(), String>, ConstError>,
) -> Result<i128, ConstError> {
    for _ in 0..MOST_STEPS {
        let (good, bad) = frontier(value, known, direction);
        let Some(bad) = bad else { return Ok(good) };
        if (bad - good).abs() <= 1 {
            return Ok(good);
        }
        let probe = between(good, bad);
        let result = verdict(probe)?;
        known.insert(probe, result);
    }
    Ok(frontier(value, known, direction).0)
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

/// A value between two others: half way by magnitude where they are far apart, the middle where they are near.
fn between(good: i128, bad: i128) -> i128 {
    let (low, high) = (good.min(bad), good.max(bad));
    if low > 0 && high / low >= 4 {
        let exponent = (low.ilog2() + high.ilog2()) / 2;
        return (1i128 << exponent).clamp(low + 1, high - 1);
    }
    low + (high - low) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(value: i128, samples: &[i128], good: impl Fn(i128) -> bool) -> Interval {
        let judge = |v: i128| if good(v) { Ok(()) } else { Err("no".to_string()) };
        let mut known: Verdicts = samples.iter().map(|v| (*v, judge(*v))).collect();
        certify(value, &mut known, |v| Ok(judge(v))).unwrap()
    }

    #[test]
    fn the_domain_ends_before_the_first_value_that_disagrees() {
        let found = run(32, &[1, 2, 33, 64, 128, 1000], |v| (2..=100).contains(&v));
        assert_eq!(found, Interval { min: 2, max: 100 });
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
