//! Numbers as people read them.

/// About four digits of a number, without zeros that say nothing.
pub fn number(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return number.to_string();
    }
    let magnitude = number.abs().log10().floor();
    if !(-5.0..15.0).contains(&magnitude) {
        return format!("{number:.3e}");
    }
    let decimals = (3.0 - magnitude).max(0.0) as usize;
    let text = format!("{number:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A difference with its sign, in percent or, where the baseline is 0, as it is.
pub fn difference(difference: f64, relative: bool) -> String {
    format!("{}{}", signed(difference, relative), if relative { " %" } else { "" })
}

/// An interval of differences.
pub fn interval((low, high): (f64, f64), relative: bool) -> String {
    let unit = if relative { " %" } else { "" };
    format!("{} to {}{unit}", signed(low, relative), signed(high, relative))
}

/// A size without a sign, in the same unit.
pub fn size(size: f64, relative: bool) -> String {
    let text = if relative { format!("{size:.*}", decimals(size)) } else { number(size) };
    format!("{text}{}", if relative { " %" } else { "" })
}

/// A p-value.
pub fn probability(p: f64) -> String {
    match p {
        p if p < 0.0001 => "<0.0001".into(),
        p if p < 0.01 => format!("{p:.4}"),
        p => format!("{p:.2}"),
    }
}

fn signed(difference: f64, relative: bool) -> String {
    match relative {
        true => format!("{difference:+.*}", decimals(difference)),
        false if difference > 0.0 => format!("+{}", number(difference)),
        false => number(difference),
    }
}

fn decimals(percent: f64) -> usize {
    match percent.abs() {
        small if small < 1.0 => 2,
        large if large >= 100.0 => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        for (value, text) in [
            (0.0, "0"),
            (32.0, "32"),
            (1234.5, "1234"),
            (98_765.4, "98765"),
            (0.012_345, "0.01235"),
            (-2.5, "-2.5"),
            (1e-9, "1.000e-9"),
            (99.999, "100"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn differences_have_a_sign_and_a_unit() {
        assert_eq!(difference(-5.04, true), "-5.0 %");
        assert_eq!(difference(0.123, true), "+0.12 %");
        assert_eq!(difference(300.4, true), "+300 %");
        assert_eq!(difference(3.0, false), "+3");
        assert_eq!(interval((-1.5, 2.0), true), "-1.5 to +2.0 %");
        assert_eq!(size(1.25, true), "1.2 %");
        assert_eq!((probability(0.00001), probability(0.0042)), ("<0.0001".into(), "0.0042".into()));
        assert_eq!((probability(0.25), probability(1.0)), ("0.25".into(), "1.00".into()));
    }
}
