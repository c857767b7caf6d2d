//! Holm's correction: several values have several chances to look better by luck.

/// The p-values corrected for their number, in the same order.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    let value = |index: &usize| p_values.get(*index).copied().unwrap_or(1.0);
    order.sort_by(|a, b| value(a).total_cmp(&value(b)));
    let mut corrected = vec![1.0; p_values.len()];
    let mut largest = 0f64;
    for (rank, index) in order.iter().enumerate() {
        largest = largest.max((p_values.len() - rank) as f64 * value(index)).min(1.0);
        if let Some(place) = corrected.get_mut(*index) {
            *place = largest;
        }
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let close = |found: Vec<f64>, wanted: &[f64]| {
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}, not {wanted:?}");
        };
        close(holm(&[0.01, 0.04, 0.03, 0.005]), &[0.03, 0.06, 0.06, 0.02]);
        close(holm(&[0.5, 0.6]), &[1.0, 1.0]);
        close(holm(&[0.02]), &[0.02]);
        assert!(holm(&[]).is_empty());
    }
}
