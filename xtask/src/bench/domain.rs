//! Bench `domain`: what an entry says of values drawn at random, compared with what the compiler makes of each.

use super::constants::{self, list};
use super::{Measured, Row};
use crate::setup::Setup;
use crate::steps::Steps;
use anyhow::Context;
use kerf_const::Class;
use kerf_const::build::{Input, build, certify_value};
use kerf_const::entry::{Entry, Interval};
use kerf_const::site::Query;
use kerf_const::tree::Tree;
use kerf_image::Image;
use std::collections::BTreeSet;
use std::time::Instant;

/// Where the numbers begin: the same draw each time, so that a failure can be looked at.
const SEED: u64 = 0x6b65_7266;

/// Builds the first `count` of the list's proved constants, or all, and compiles that many random values of each.
pub fn run(count: Option<usize>, values: usize) -> anyhow::Result<Measured> {
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    let source = setup.kernel.source.as_deref().context("find the kernel's source")?;
    let tree = Tree::open(source)?;
    let image = Image::open(&setup.kernel.vmlinuz)?;
    let input = Input { tree: &tree, image: &image, modules: setup.kernel.modules_dir.as_deref() };
    let mut measured = Measured { rows: Vec::new(), complaints: Vec::new() };
    let proved = list(constants::LIST).filter(|line| line.class == "proved");
    for line in proved.take(count.unwrap_or(usize::MAX)) {
        let query = Query::parse(&constants::resolve(source, line.query)?)?;
        match build(&input, &query) {
            Ok(entries) => {
                for entry in entries.iter().filter(|entry| entry.class == Class::Proved) {
                    check(&input, entry, values, &mut measured);
                }
            }
            Err(error) => measured.complaints.push(format!("{} was not built: {error}", line.query)),
        }
    }
    Ok(measured)
}

fn check(input: &Input, entry: &Entry, count: usize, measured: &mut Measured) {
    let start = Instant::now();
    let values = draw(&entry.domain, count, &mut Random(SEED));
    let mut agreeing = 0;
    for &value in &values {
        match certify_value(input, entry, value) {
            Ok(()) => agreeing += 1,
            Err(error) => measured.complaints.push(format!("{} = {value}: {error}", entry.label())),
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("    {}: {agreeing} of {} values agree, {seconds:.0} s", entry.label(), values.len());
    let row = |metric: &str, value: f64, unit: &str| {
        Row::new(metric, "random values of the domain", entry.label(), value, unit)
    };
    measured.rows.push(row("compiled", values.len() as f64, "values"));
    measured.rows.push(row("as the entry says", f64::from(agreeing), "values"));
    measured.rows.push(row("time", seconds, "s"));
}

/// Different values of a domain: every other one by its magnitude, since small values are those that people set.
fn draw(domain: &[Interval], count: usize, random: &mut Random) -> BTreeSet<i128> {
    let mut values = BTreeSet::new();
    // A small domain has fewer values than are wanted.
    for attempt in 0..count * 20 {
        if values.len() == count || domain.is_empty() {
            break;
        }
        let Some(part) = domain.get(random.below(domain.len() as u128) as usize) else { continue };
        let span = part.max.abs_diff(part.min);
        let mut reach = span;
        if attempt % 2 == 0 {
            reach >>= random.below(u128::from(128 - span.leading_zeros()).max(1));
        }
        let offset = random.below(reach.saturating_add(1));
        values.extend(i128::try_from(offset).ok().and_then(|offset| part.min.checked_add(offset)));
    }
    values
}

/// SplitMix64: good enough to draw samples, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u128) -> u128 {
        let wide = u128::from(self.next()) << 64 | u128::from(self.next());
        wide % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_lie_in_the_domain(min in any::<i64>(), length in any::<u32>(), count in 0_usize..60) {
            let min = i128::from(min);
            let domain = [Interval { min, max: min + i128::from(length) }];
            let values = draw(&domain, count, &mut Random(SEED));
            prop_assert!(values.iter().all(|value| (min..=min + i128::from(length)).contains(value)));
            prop_assert!(values.len() == count || u64::from(length) < 20 * count as u64);
        }
    }

    #[test]
    fn small_domains_are_drawn_whole() {
        let values = draw(&[Interval { min: 2, max: 4 }], 50, &mut Random(SEED));
        assert_eq!(values, BTreeSet::from([2, 3, 4]));
        assert!(draw(&[], 50, &mut Random(SEED)).is_empty());
    }

    #[test]
    fn small_and_large_values_are_drawn() {
        let values = draw(&[Interval { min: 1, max: 1 << 40 }], 50, &mut Random(SEED));
        assert!(values.iter().any(|value| *value < 1 << 20) && values.iter().any(|value| *value > 1 << 39));
    }
}
