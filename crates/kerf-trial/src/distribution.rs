//! The normal distribution and Student's t, as far as intervals and numbers of rounds need them.

use std::f64::consts::{FRAC_2_PI, PI};

/// From so many degrees of freedom on, Student's t is taken for normal.
const MANY: usize = 400;

/// The share of a standard normal distribution below `z`.
pub fn normal(z: f64) -> f64 {
    // Half of it lies on either side; the rest is integrated in steps that leave an error below 1e-12 (Simpson's rule).
    const STEPS: u32 = 400;
    let reach = z.abs().min(9.0);
    let width = reach / f64::from(STEPS);
    let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * PI).sqrt();
    let weight = |step: u32| match step {
        0 | STEPS => 1.0,
        odd if odd % 2 == 1 => 4.0,
        _ => 2.0,
    };
    let sum: f64 = (0..=STEPS).map(|step| weight(step) * density(width * f64::from(step))).sum();
    let half = sum * width / 3.0;
    if z < 0.0 { 0.5 - half } else { 0.5 + half }
}

/// The share of Student's t with so many degrees of freedom below `t`: the finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4.
fn student(t: f64, freedom: usize) -> f64 {
    if freedom >= MANY {
        return normal(t);
    }
    let angle = (t / (freedom as f64).sqrt()).atan();
    let (sine, square) = (angle.sin(), angle.cos().powi(2));
    let odd = freedom % 2 == 1;
    let (mut term, mut sum) = if odd { (angle.cos(), 0.0) } else { (1.0, 0.0) };
    for n in 1..=freedom / 2 {
        sum += term;
        let n = n as f64;
        term *= square * if odd { 2.0 * n / (2.0 * n + 1.0) } else { (2.0 * n - 1.0) / (2.0 * n) };
    }
    let between = if odd { FRAC_2_PI * (angle + sine * sum) } else { sine * sum };
    f64::midpoint(1.0, between)
}

/// The number, between −1000 and 1000, that Student's t is below with this probability.
pub fn student_quantile(probability: f64, freedom: usize) -> f64 {
    let (mut low, mut high) = (-1000.0, 1000.0);
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if student(middle, freedom.max(1)) < probability { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_distribution_of_the_tables() {
        for (z, share) in [(0.0, 0.5), (1.0, 0.841_344_746), (-1.959_963_985, 0.025), (3.0, 0.998_650_102)] {
            assert!((normal(z) - share).abs() < 1e-8, "{z}: {}", normal(z));
        }
        assert!(normal(-40.0) < 1e-10 && normal(40.0) > 1.0 - 1e-10);
    }

    #[test]
    fn students_t_of_the_tables() {
        for (probability, freedom, t) in [
            (0.975, 1, 12.706_205),
            (0.975, 2, 4.302_653),
            (0.975, 3, 3.182_446),
            (0.975, 9, 2.262_157),
            (0.995, 10, 3.169_273),
            (0.95, 29, 1.699_127),
            (0.975, 100, 1.983_972),
            (0.975, 1000, 1.959_964),
        ] {
            let found = student_quantile(probability, freedom);
            assert!((found - t).abs() < 1e-4, "{probability} with {freedom}: {found}, not {t}");
        }
    }
}
