//! The permutation test: how often would the plan's order alone have given a difference this large?

use rand::{RngExt, SeedableRng};

use crate::{Generator, Round};

/// Up to so many arrangements all are looked at; of more, this many are drawn.
const ALL: usize = 60_000;
const DRAWS: usize = 20_000;

/// The share of arrangements whose sum is at least as far from 0 as the one that was seen.
///
/// Each element is a round: the contribution that was seen first, then those that the other orders of that round would have given.
/// The smallest result is one over the number of arrangements, or over that of draws.
pub fn p_value(rounds: &[Vec<f64>], seed: u64) -> f64 {
    let seen: f64 = rounds.iter().filter_map(|round| round.first()).sum();
    let scale: f64 = rounds.iter().flatten().map(|number| number.abs()).sum();
    // Sums in another order differ in their last bits; equal ones must count.
    let limit = seen.abs() - scale * 1e-12;
    let arrangements = rounds.iter().try_fold(1usize, |all, round| all.checked_mul(round.len().max(1)));
    match arrangements.filter(|all| *all <= ALL) {
        Some(all) => counted(rounds, 0.0, limit) as f64 / all as f64,
        None => drawn(rounds, limit, seed),
    }
}

/// How many arrangements of these rounds, on top of `sum`, reach the limit.
fn counted(rounds: &[Vec<f64>], sum: f64, limit: f64) -> usize {
    match rounds.split_first() {
        None => usize::from(sum.abs() >= limit),
        Some((round, rest)) if round.is_empty() => counted(rest, sum, limit),
        Some((round, rest)) => round.iter().map(|number| counted(rest, sum + number, limit)).sum(),
    }
}

fn drawn(rounds: &[Vec<f64>], limit: f64, seed: u64) -> f64 {
    let mut generator = Generator::seed_from_u64(seed);
    let mut sum = || -> f64 {
        let pick = |round: &Vec<f64>| round.get(generator.random_range(0..round.len().max(1))).copied();
        rounds.iter().filter_map(pick).sum()
    };
    let reached = (0..DRAWS).filter(|_| sum().abs() >= limit).count();
    // The arrangement that was seen is one of them, so that the share is never 0.
    (reached + 1) as f64 / (DRAWS + 1) as f64
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
        // Equal rounds that all favour the value: only one of 27 arrangements is as far from 0.
        let rounds: Vec<Vec<f64>> = (0..3).map(|_| against_stock(&round, 5.0)).collect();
        assert_eq!(p_value(&rounds, 0), 1.0 / 27.0);
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
