//! What is said of a value in the end.

use serde::Serialize;

/// Which numbers are the good ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Lower ones: times, misses.
    #[default]
    Lower,
    /// Higher ones: rates, hits.
    Higher,
}

impl Direction {
    /// `lower` or `higher`.
    pub fn word(self) -> &'static str {
        match self {
            Direction::Lower => "lower",
            Direction::Higher => "higher",
        }
    }

    /// How much better a difference is: positive if it is.
    pub fn gain(self, difference: f64) -> f64 {
        match self {
            Direction::Lower => -difference,
            Direction::Higher => difference,
        }
    }
}

/// A value against the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is better, and chance does not explain it.
    Better,
    /// It is worse, and chance does not explain it.
    Worse,
    /// Chance explains what was seen.
    NoDifference,
}

impl Verdict {
    /// Two looks must agree: the permutation test, corrected for the number of values, asks whether chance explains the difference,
    /// and the interval, which knows how the rounds vary, must not hold 0. A few wild rounds can fool one of them, not both.
    pub fn of(difference: f64, interval: (f64, f64), corrected: f64, alpha: f64, direction: Direction) -> Verdict {
        let excluded = interval.0 > 0.0 || interval.1 < 0.0;
        if !(corrected < alpha && excluded) {
            Verdict::NoDifference
        } else if direction.gain(difference) > 0.0 {
            Verdict::Better
        } else {
            Verdict::Worse
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::NoDifference => "no difference seen",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_must_agree() {
        let of = |interval, corrected, direction| Verdict::of(-2.0, interval, corrected, 0.05, direction);
        assert_eq!(of((-3.0, -1.0), 0.01, Direction::Lower), Verdict::Better);
        assert_eq!(of((-3.0, -1.0), 0.01, Direction::Higher), Verdict::Worse);
        assert_eq!(of((-3.0, -1.0), 0.05, Direction::Lower), Verdict::NoDifference);
        assert_eq!(of((-5.0, 1.0), 0.01, Direction::Lower), Verdict::NoDifference);
        assert_eq!(of((-5.0, 0.0), 0.01, Direction::Lower), Verdict::NoDifference);
        assert_eq!(of((-5.0, 0.0), f64::NAN, Direction::Lower), Verdict::NoDifference);
    }
}
