//! What could have been seen: the effect that so many rounds show, and the rounds that an effect needs.

use crate::distribution::student_quantile;

/// How far a normal distribution reaches to the side in four cases of five.
const OFTEN: f64 = 0.841_621_233_6;

/// More rounds than anybody makes.
const MOST: usize = 100_000;

/// The effect that so many rounds show in four cases of five, when the differences of single rounds have this standard deviation.
///
/// This is the formula of the t-test, which the permutation test comes close to; `alpha` is divided by the number of values, as the
/// correction does with the clearest one.
pub fn visible(deviation: f64, rounds: usize, values: usize, alpha: f64) -> f64 {
    if rounds < 2 {
        return f64::INFINITY;
    }
    let level = alpha / values.max(1) as f64;
    let steps = student_quantile(1.0 - level / 2.0, rounds - 1) + OFTEN;
    steps * deviation / (rounds as f64).sqrt()
}

/// The fewest rounds that show an effect of this size; `None` if they are too many to be made.
pub fn rounds_for(effect: f64, deviation: f64, values: usize, alpha: f64) -> Option<usize> {
    let enough = |rounds: usize| visible(deviation, rounds, values, alpha) <= effect;
    let (mut low, mut high) = (crate::fewest_rounds(values, alpha), MOST);
    if !enough(high) {
        return None;
    }
    while low < high {
        let middle = usize::midpoint(low, high);
        if enough(middle) { high = middle } else { low = middle + 1 }
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sizes() {
        // One standard deviation needs 10 rounds of a paired t-test for 80 % (as tables of Cohen's d have it).
        assert_eq!(rounds_for(1.0, 1.0, 1, 0.05), Some(10));
        // A fifth of one: 199 in the same tables.
        let many = rounds_for(0.2, 1.0, 1, 0.05).unwrap();
        assert!((196..=201).contains(&many), "{many}");
        assert!(rounds_for(1.0, 1.0, 5, 0.05) > rounds_for(1.0, 1.0, 1, 0.05));
    }

    #[test]
    fn often_is_four_times_of_five() {
        assert!((crate::distribution::normal(OFTEN) - 0.8).abs() < 1e-9);
    }

    #[test]
    fn rounds_and_effect_agree() {
        let effect = visible(4.0, 25, 2, 0.05);
        assert_eq!(rounds_for(effect, 4.0, 2, 0.05), Some(25));
        assert_eq!(rounds_for(1e-9, 1.0, 1, 0.05), None);
        assert_eq!(rounds_for(1.0, 0.0, 1, 0.05), Some(4));
        assert_eq!(visible(1.0, 1, 1, 0.05), f64::INFINITY);
    }
}
