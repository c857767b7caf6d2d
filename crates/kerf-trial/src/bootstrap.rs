//! The confidence interval of a mean, from resamples of the rounds.

use rand::{RngExt, SeedableRng};

use crate::Generator;
use crate::distribution::{normal, student_quantile};
use crate::summary::mean;

const RESAMPLES: usize = 5000;

/// The interval that holds the mean with probability `1 - alpha`, if the numbers are a sample of what it is the mean of.
///
/// Plain percentiles of resampled means are too narrow for few rounds: a resample varies less than the sample does, and ignores that
/// its spread is itself an estimate. The percentiles are moved outwards by as much as that makes for normal numbers (Hesterberg, "What
/// teachers should know about the bootstrap", 2015, section 5.3).
pub fn interval(numbers: &[f64], alpha: f64, seed: u64) -> (f64, f64) {
    let middle = mean(numbers);
    if numbers.len() < 2 {
        return (middle, middle);
    }
    let mut generator = Generator::seed_from_u64(seed);
    let mut pick = || numbers.get(generator.random_range(0..numbers.len())).copied().unwrap_or(middle);
    let mut means: Vec<f64> =
        (0..RESAMPLES).map(|_| numbers.iter().map(|_| pick()).sum::<f64>() / numbers.len() as f64).collect();
    means.sort_by(f64::total_cmp);
    let skipped = (tail(numbers.len(), alpha) * RESAMPLES as f64) as usize;
    let low = means.get(skipped).copied().unwrap_or(middle);
    let high = means.get(RESAMPLES - 1 - skipped).copied().unwrap_or(middle);
    (low, high)
}

/// The share of the resamples that is left out at either end.
fn tail(count: usize, alpha: f64) -> f64 {
    let count_f = count as f64;
    let wider = (count_f / (count_f - 1.0)).sqrt();
    normal(-wider * student_quantile(1.0 - alpha / 2.0, count - 1)).clamp(0.0, 0.49)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_smaller_than_half_of_alpha() {
        assert!((tail(10, 0.05) - 0.0086).abs() < 2e-4, "{}", tail(10, 0.05));
        assert!((tail(1000, 0.05) - 0.025).abs() < 2e-4);
    }

    #[test]
    fn an_interval_is_about_that_of_students_t() {
        // Mean 5.5, standard deviation 3.0277: 5.5 ± 2.262 · 3.0277 / √10.
        let numbers: Vec<f64> = (1..=10).map(f64::from).collect();
        let (low, high) = interval(&numbers, 0.05, 1);
        assert!((low - 3.33).abs() < 0.3 && (high - 7.67).abs() < 0.3, "{low} to {high}");
        assert_eq!(interval(&numbers, 0.05, 1), (low, high));
        assert_eq!(interval(&[2.0; 5], 0.05, 1), (2.0, 2.0));
        assert_eq!(interval(&[2.0], 0.05, 1), (2.0, 2.0));
    }
}
