//! The permutation test: how often would the plan's order alone have given a difference this large?

use rand::{RngExt, SeedableRng};

use crate::{Generator, Round};

/// Up to so many arrangements all are looked at; of more, this many are drawn.
const ALL: usize = 60_000;
const DRAWS: usize = 20_000;

/// How likely the plan's order alone makes the mean as far from 0 as it was seen, measured in its own standard errors.
///
/// Each element is a round: the contribution that was seen first, then those that the other orders of that round would have given.
/// Arrangements are compared by their t-statistic, since with the sum alone an effect would hide itself: it is also in the
/// arrangements that it is compared with. The result is twice the share of those on the same side that are as extreme.
pub fn p_value(rounds: &[Vec<f64>], seed: u64) -> f64 {
    let mut seen = Sums::default();
    rounds.iter().filter_map(|round| round.first()).for_each(|number| seen = seen.with(*number));
    let arrangements = rounds.iter().try_fold(1usize, |all, round| all.checked_mul(round.len().max(1)));
    let (below, above) = match arrangements.filter(|all| *all <= ALL) {
        Some(all) => {
            let mut tails = Tails::new(seen);
            tails.count(rounds, Sums::default());
            (tails.below as f64 / all as f64, tails.above as f64 / all as f64)
        }
        None => drawn(rounds, seen, seed),
    };
    (2.0 * below.min(above)).min(1.0)
}

/// The sum of contributions and that of their squares.
#[derive(Clone, Copy, Default)]
struct Sums {
    sum: f64,
    squares: f64,
}

impl Sums {
    fn with(self, number: f64) -> Sums {
        Sums { sum: self.sum + number, squares: self.squares + number * number }
    }

    /// Grows as the t-statistic does, and is finite where all contributions are equal.
    fn statistic(self) -> f64 {
        if self.squares > 0.0 { self.sum * self.sum.abs() / self.squares } else { 0.0 }
    }
}

/// How many arrangements are as low or as high as what was seen.
struct Tails {
    low: f64,
    high: f64,
    below: usize,
    above: usize,
}

impl Tails {
    fn new(seen: Sums) -> Tails {
        // Sums in another order differ in their last bits; equal ones must count.
        let (statistic, slack) = (seen.statistic(), 1e-9 * (1.0 + seen.statistic().abs()));
        Tails { low: statistic + slack, high: statistic - slack, below: 0, above: 0 }
    }

    fn add(&mut self, sums: Sums) {
        let statistic = sums.statistic();
        self.below += usize::from(statistic <= self.low);
        self.above += usize::from(statistic >= self.high);
    }

    /// Adds all arrangements of these rounds, on top of the sums of others.
    fn count(&mut self, rounds: &[Vec<f64>], sums: Sums) {
        match rounds.split_first() {
            None => self.add(sums),
            Some((round, rest)) if round.is_empty() => self.count(rest, sums),
            Some((round, rest)) => round.iter().for_each(|number| self.count(rest, sums.with(*number))),
        }
    }
}

/// The shares of both tails among arrangements that are drawn.
fn drawn(rounds: &[Vec<f64>], seen: Sums, seed: u64) -> (f64, f64) {
    let mut generator = Generator::seed_from_u64(seed);
    let mut tails = Tails::new(seen);
    for _ in 0..DRAWS {
        let pick = |round: &Vec<f64>| round.get(generator.random_range(0..round.len().max(1))).copied();
        tails.add(rounds.iter().filter_map(pick).fold(Sums::default(), Sums::with));
    }
    // The arrangement that was seen is one of them, so that no share is ever 0.
    let share = |count: usize| (count + 1) as f64 / (DRAWS + 1) as f64;
    (share(tails.below), share(tails.above))
}

/// What a value's difference to the mean of the two runs of stock is, and what it would be with the value in the place of either.
pub fn against_stock(round: &Round, value: f64) -> Vec<f64> {
    let [one, two] = round.stock;
    let difference = |value: f64, stock: [f64; 2]| value - f64::midpoint(stock[0], stock[1]);
    vec![difference(value, [one, two]), difference(one, [value, two]), difference(two, [one, value])]
}

/// The difference of two runs, and what it would be the other way round.
pub fn exchanged(difference: f64) -> Vec<f64> {
    vec![difference, -difference]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_cases_are_counted() {
        // All four rounds agree: this arrangement and its mirror, of 16.
        let rounds: Vec<Vec<f64>> = [1.0, 2.0, 3.0, 4.0].map(exchanged).to_vec();
        assert_eq!(p_value(&rounds, 0), 2.0 / 16.0);
        // 4 − 1 − 2 − 3 = −2: sums are ±10, ±8, ±6, ±4 twice, ±2 twice, 0 twice; 14 of 16 reach 2.
        let rounds: Vec<Vec<f64>> = [4.0, -1.0, -2.0, -3.0].map(exchanged).to_vec();
        assert_eq!(p_value(&rounds, 0), 14.0 / 16.0);
        assert_eq!(p_value(&[vec![0.0, 0.0], vec![0.0, 0.0]], 0), 1.0);
        assert_eq!(p_value(&[], 0), 1.0);
    }

    #[test]
    fn a_value_takes_the_place_of_stock() {
        let round = Round { stock: [10.0, 12.0], values: vec![5.0] };
        assert_eq!(against_stock(&round, 5.0), [-6.0, 1.5, 4.5]);
        // Equal rounds that all favour the value: one of 27 arrangements is as low.
        let rounds: Vec<Vec<f64>> = (0..3).map(|_| against_stock(&round, 5.0)).collect();
        assert_eq!(p_value(&rounds, 0), 2.0 / 27.0);
    }

    #[test]
    fn many_arrangements_are_drawn() {
        // 30 rounds, 20 for and 10 against: the binomial distribution gives 0.0987 for both tails.
        let rounds: Vec<Vec<f64>> = (0..30).map(|n| exchanged(if n < 20 { 1.0 } else { -1.0 })).collect();
        let p = p_value(&rounds, 7);
        assert!((p - 0.0987).abs() < 0.01, "{p}");
        assert_eq!(p, p_value(&rounds, 7));
    }
}
