//! Order of Debian package versions, as deb-version(7) defines it.

use std::cmp::Ordering;

/// Compares two versions of the form `[epoch:]upstream[-revision]`.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (split(a), split(b));
    a.0.cmp(&b.0).then_with(|| part(a.1, b.1)).then_with(|| part(a.2, b.2))
}

fn split(version: &str) -> (u32, &str, &str) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Parts are compared in turns: a run without digits, then a run of digits as a number.
fn part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let words = run(&mut a, |c| !c.is_ascii_digit());
        let others = run(&mut b, |c| !c.is_ascii_digit());
        let order = text(words, others).then_with(|| {
            let digits = run(&mut a, |c| c.is_ascii_digit());
            number(digits, run(&mut b, |c| c.is_ascii_digit()))
        });
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn run<'a>(rest: &mut &'a [u8], belongs: impl Fn(u8) -> bool) -> &'a [u8] {
    let end = rest.iter().position(|&c| !belongs(c)).unwrap_or(rest.len());
    let (run, after) = rest.split_at(end);
    *rest = after;
    run
}

/// A tilde sorts before the end, the end before letters, letters before all else.
fn text(a: &[u8], b: &[u8]) -> Ordering {
    let weight = |c: Option<&u8>| match c {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    };
    let longest = a.len().max(b.len());
    let different = (0..longest).map(|i| weight(a.get(i)).cmp(&weight(b.get(i)))).find(|order| order.is_ne());
    different.unwrap_or(Ordering::Equal)
}

fn number(a: &[u8], b: &[u8]) -> Ordering {
    let strip = |digits: &[u8]| digits.iter().skip_while(|&&c| c == b'0').copied().collect::<Vec<u8>>();
    let (a, b) = (strip(a), strip(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn known_orders() {
        for (smaller, larger) in [
            ("6.12.9-1", "6.12.117-1"),
            ("6.12.117-1~deb12u1", "6.12.117-1"),
            ("6.12.117-1~deb12u1", "6.12.117-1~deb12u2"),
            ("6.12.117-1~bpo12+1", "6.12.117-1~deb12u1"),
            ("9", "1:1"),
            ("1.0", "1.0a"),
            ("1.0a", "1.0+"),
            ("1.0~~", "1.0~"),
        ] {
            assert_eq!(compare(smaller, larger), Ordering::Less, "{smaller} {larger}");
            assert_eq!(compare(larger, smaller), Ordering::Greater, "{larger} {smaller}");
        }
        assert_eq!(compare("1.007-0", "1.7"), Ordering::Equal);
    }

    fn dpkg(a: &str, operator: &str, b: &str) -> bool {
        Command::new("dpkg").args(["--compare-versions", a, operator, b]).status().unwrap().success()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn dpkg_agrees(a in "[0-9][0-9a-c.+~]{0,6}(-[0-9a-c.+~]{1,4})?", b in "[0-9][0-9a-c.+~]{0,6}(-[0-9a-c.+~]{1,4})?") {
            let operator = match compare(&a, &b) {
                Ordering::Less => "lt",
                Ordering::Equal => "eq",
                Ordering::Greater => "gt",
            };
            prop_assert!(dpkg(&a, operator, &b), "{} {} {}", a, operator, b);
        }
    }
}
