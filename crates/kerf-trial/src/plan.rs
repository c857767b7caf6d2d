//! Which value is in force in which run: rounds that hold every value once and stock twice, each in its own random order.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use serde::{Serialize, Serializer};

use crate::Generator;

/// What is in force in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arm {
    /// The baseline.
    Stock,
    /// The baseline once more: the two of a round say how much the metric varies by itself.
    Again,
    /// One of the values that are tried, by its position.
    Value(usize),
}

impl Arm {
    /// The position of the value, if it is one.
    pub fn value(self) -> Option<usize> {
        match self {
            Arm::Value(value) => Some(value),
            Arm::Stock | Arm::Again => None,
        }
    }
}

impl Serialize for Arm {
    /// The position of the value; `null` is the baseline.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

/// The order of all runs.
///
/// A drift of the metric meets every value alike, since each round's order is drawn anew; and what the order alone can do to a
/// difference is known exactly, since the permutation test draws from the same orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    rounds: Vec<Vec<Arm>>,
}

impl Plan {
    /// The plan that this seed gives.
    pub fn new(values: usize, rounds: usize, seed: u64) -> Plan {
        let mut generator = Generator::seed_from_u64(seed);
        let round = |_| {
            let mut arms: Vec<Arm> = [Arm::Stock, Arm::Again].into_iter().chain((0..values).map(Arm::Value)).collect();
            arms.shuffle(&mut generator);
            arms
        };
        Plan { rounds: (0..rounds).map(round).collect() }
    }

    /// The rounds, each with its runs in order.
    pub fn rounds(&self) -> &[Vec<Arm>] {
        &self.rounds
    }

    /// All runs in order, with the number of their round.
    pub fn runs(&self) -> impl Iterator<Item = (usize, Arm)> {
        self.rounds.iter().enumerate().flat_map(|(round, arms)| arms.iter().map(move |arm| (round, *arm)))
    }
}

/// How many rounds it takes until the smallest p-value that the permutation test can give, corrected for so many values, is below
/// `alpha`. In a round, a value can take the place of either run of stock: n rounds have 3^n arrangements, of which the clearest effect
/// is the lowest or the highest.
pub fn fewest_rounds(values: usize, alpha: f64) -> usize {
    let values = values.max(1) as f64;
    // Two rounds are the least that have a spread.
    (2..64).find(|rounds| 2.0 * values / 3f64.powi(*rounds) < alpha).unwrap_or(64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_round_is_balanced(values in 0usize..8, rounds in 0usize..30, seed: u64) {
            let plan = Plan::new(values, rounds, seed);
            prop_assert_eq!(plan.rounds().len(), rounds);
            for arms in plan.rounds() {
                let count = |arm: Arm| arms.iter().filter(|other| **other == arm).count();
                prop_assert_eq!(arms.len(), values + 2);
                prop_assert!(count(Arm::Stock) == 1 && count(Arm::Again) == 1);
                prop_assert!((0..values).all(|value| count(Arm::Value(value)) == 1));
            }
            prop_assert_eq!(plan, Plan::new(values, rounds, seed));
        }
    }

    #[test]
    fn every_arm_comes_at_every_place() {
        let plan = Plan::new(2, 400, 1);
        for arm in [Arm::Stock, Arm::Again, Arm::Value(0), Arm::Value(1)] {
            for place in 0..4 {
                let times = plan.rounds().iter().filter(|arms| arms[place] == arm).count();
                assert!((70..=130).contains(&times), "{arm:?} at {place}: {times} of 400");
            }
        }
        assert_ne!(plan, Plan::new(2, 400, 2));
    }

    #[test]
    fn so_many_rounds_are_needed() {
        assert_eq!(fewest_rounds(1, 0.05), 4);
        assert_eq!(fewest_rounds(4, 0.05), 5);
        assert_eq!(fewest_rounds(1, 0.5), 2);
        assert_eq!(fewest_rounds(10, 0.001), 10);
    }
}
