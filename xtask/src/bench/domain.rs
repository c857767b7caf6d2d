//! Bench `domain`: what an entry says of values drawn at random, compared with what the compiler makes of each.

use super::constants::{self, list};
use super::{Measured, Row};
use crate::setup::Setup;
use crate::steps::Steps;
use anyhow::{Context, ensure};
use kerf_const::Class;
use kerf_const::build::{Input, Judged, Reach, Recheck, build};
use kerf_const::entry::{Entry, Interval};
use kerf_const::site::Query;
use kerf_const::tree::Tree;
use kerf_image::Image;
use kerf_trial::Generator;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Where the numbers begin: the same draw each time, so that a failure can be looked at.
pub const SEED: u64 = 0x6b65_7266;

/// What to draw, and of which constants.
pub struct Wanted {
    /// How many of the list's proved constants, or all.
    pub constants: Option<usize>,
    /// Only the one that the list names so.
    pub only: Option<String>,
    /// How many values of each.
    pub values: usize,
    /// Where the random numbers begin.
    pub seed: u64,
}

/// Builds the list's proved constants and compiles random values of each.
pub fn run(wanted: &Wanted) -> anyhow::Result<Measured> {
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    let source = setup.kernel.source.as_deref().context("find the kernel's source")?;
    let tree = Tree::open(source)?;
    let image = Image::open(&setup.kernel.vmlinuz)?;
    let input = Input { tree: &tree, image: &image, modules: setup.kernel.modules_dir.as_deref() };
    let mut measured = Measured { rows: Vec::new(), complaints: Vec::new() };
    let named = |query: &str| wanted.only.as_deref().is_none_or(|only| only == query);
    let proved = list(constants::LIST).filter(|line| line.class == "proved" && named(line.query));
    let lines: Vec<_> = proved.take(wanted.constants.unwrap_or(usize::MAX)).collect();
    ensure!(!lines.is_empty(), "find {} among the list's proved constants", wanted.only.as_deref().unwrap_or("any"));
    for line in lines {
        let start = Instant::now();
        let query = Query::parse(&constants::resolve(source, line.query)?)?;
        let entries = build(&input, &query).unwrap_or_else(|error| {
            measured.complaints.push(format!("{} was not built: {error}", line.query));
            Vec::new()
        });
        println!("    {}: built in {:.0} s", line.query, start.elapsed().as_secs_f64());
        for entry in &entries {
            if entry.class != Class::Proved {
                let (name, class) = (entry.label(), entry.class.word());
                measured.complaints.push(format!("{name} is {class}, not proved: {}", entry.reason));
                continue;
            }
            if let Err(error) = check(&input, entry, wanted, &mut measured) {
                measured.complaints.push(format!("{}: {error}", entry.label()));
            }
        }
    }
    Ok(measured)
}

fn check(input: &Input, entry: &Entry, wanted: &Wanted, measured: &mut Measured) -> anyhow::Result<()> {
    let values = draw_from(&entry.domain, wanted.values, wanted.seed);
    let start = Instant::now();
    let mut recheck = Recheck::new(input, entry, Reach::Users, &[])?;
    let ready = start.elapsed().as_secs_f64();
    let judged = recheck.judge(&values)?;
    let each = (start.elapsed().as_secs_f64() - ready) / values.len().max(1) as f64;
    let units = recheck.units().count();
    let agreeing = judged.iter().filter(|(_, verdict)| verdict.is_ok()).count();
    let shown: Vec<String> = entry.domain.iter().map(|part| format!("{} to {}", part.min, part.max)).collect();
    println!(
        "    {} in {}: {agreeing} of {} values agree; {ready:.1} s to prepare {units} units, {each:.2} s a value",
        entry.label(),
        shown.join(", "),
        values.len(),
    );
    let mut row = |metric: &str, case: &str, value: f64, unit: &str| {
        measured.rows.push(Row::new(metric, case, entry.label(), value, unit));
    };
    row("compiled", DRAWN, values.len() as f64, "values");
    row("as the entry says", DRAWN, agreeing as f64, "values");
    for (why, count) in reasons(&judged) {
        row("not as the entry says", why, count as f64, "values");
    }
    row("compiled for each value", "all units that use it", units as f64, "units");
    row("time to prepare", "all units that use it", ready, "s");
    row("time for a value", "all units that use it", each, "s");
    for (value, verdict) in judged {
        measured.complaints.extend(verdict.err().map(|why| format!("{} = {value}: {why}", entry.label())));
    }
    Ok(())
}

/// What the compiler makes of values, in all units that use the constant, beside what the entry says.
///
/// # Errors
/// If the entry is not of this source and image.
pub fn audit(input: &Input, entry: &Entry, values: &[i128]) -> anyhow::Result<Vec<Judged>> {
    Ok(Recheck::new(input, entry, Reach::Users, &[])?.judge(values)?)
}

/// Different values of a domain, the same ones for the same seed.
pub fn draw_from(domain: &[Interval], count: usize, seed: u64) -> Vec<i128> {
    draw(domain, count, &mut generator(seed)).into_iter().collect()
}

fn generator(seed: u64) -> Generator {
    Generator::seed_from_u64(seed)
}

const DRAWN: &str = "random values of the domain";

/// How many values do not agree, by what kind of reason.
fn reasons(judged: &[Judged]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for (_, verdict) in judged {
        let Err(why) = verdict else { continue };
        let kind = match why.as_str() {
            w if w.starts_with("the source forbids it") => "the source forbids it",
            w if w.contains(" was expected") => "the compiler has another number",
            w if w.starts_with("the function ") || w.starts_with("the compiler makes a new function") => {
                "a function came or went"
            }
            _ => "another shape, not proved to do the same",
        };
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

/// Different values of a domain: every other one by its magnitude, since small values are those that people set.
fn draw(domain: &[Interval], count: usize, random: &mut Generator) -> BTreeSet<i128> {
    let mut values = BTreeSet::new();
    // A small domain has fewer values than are wanted.
    for attempt in 0..count * 20 {
        if values.len() == count {
            break;
        }
        let value = if attempt % 2 == 0 { magnitude(domain, random) } else { uniform(domain, random) };
        values.extend(value);
    }
    values
}

/// A value of a domain, each as likely as the others.
fn uniform(domain: &[Interval], random: &mut Generator) -> Option<i128> {
    let size = |part: &Interval| part.max.abs_diff(part.min).saturating_add(1);
    let all = domain.iter().fold(0u128, |sum, part| size(part).saturating_add(sum));
    let mut offset = random.random_range(0..all.max(1));
    let part = domain.iter().find(|part| {
        let inside = offset < size(part);
        offset -= if inside { 0 } else { size(part) };
        inside
    })?;
    part.min.checked_add(i128::try_from(offset).ok()?)
}

/// A value of a domain, each number of bits as likely as the others; `None` if the draw falls between its parts.
fn magnitude(domain: &[Interval], random: &mut Generator) -> Option<i128> {
    let (first, last) = (domain.first()?.min, domain.last()?.max);
    // Magnitudes are those of the values themselves where all are positive, else of the distance to the smallest.
    let base = if first > 0 { 0 } else { first };
    let (low, high) = (first.abs_diff(base), last.abs_diff(base));
    let bits = |n: u128| u128::from(128 - n.leading_zeros());
    let wanted = bits(low) + random.random_range(0..bits(high) - bits(low) + 1);
    let smallest = if wanted == 0 { 0 } else { 1u128 << (wanted - 1) }.max(low);
    let largest = if wanted >= 128 { u128::MAX } else { (1 << wanted) - 1 }.min(high);
    let offset = smallest + random.random_range(0..largest.saturating_sub(smallest).saturating_add(1));
    let value = base.checked_add(i128::try_from(offset).ok()?)?;
    domain.iter().any(|part| (part.min..=part.max).contains(&value)).then_some(value)
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
            let values = draw(&domain, count, &mut generator(SEED));
            prop_assert!(values.iter().all(|value| (min..=min + i128::from(length)).contains(value)));
            prop_assert!(values.len() == count || u64::from(length) < 20 * count as u64);
        }
    }

    #[test]
    fn small_domains_are_drawn_whole() {
        let values = draw(&[Interval { min: 2, max: 4 }], 50, &mut generator(SEED));
        assert_eq!(values, BTreeSet::from([2, 3, 4]));
        assert!(draw(&[], 50, &mut generator(SEED)).is_empty());
    }

    #[test]
    fn parts_are_drawn_by_their_size() {
        let domain = [Interval { min: 5, max: 5 }, Interval { min: 1000, max: 1_000_000 }];
        let values = draw(&domain, 50, &mut generator(SEED));
        assert!(values.len() == 50 && values.iter().filter(|value| **value > 100_000).count() > 20, "{values:?}");
        assert!(values.iter().all(|value| *value == 5 || (1000..=1_000_000).contains(value)));
    }

    #[test]
    fn another_seed_draws_other_values() {
        let domain = [Interval { min: 1, max: 1 << 40 }];
        assert_ne!(draw(&domain, 50, &mut generator(SEED)), draw(&domain, 50, &mut generator(SEED + 1)));
    }

    #[test]
    fn disagreements_are_counted_by_kind() {
        let no = |why: &str| Err(why.to_owned());
        let judged = [
            (1, Ok(())),
            (2, no("the source forbids it: BUILD_BUG_ON")),
            (3, no("f+0x4: the compiler has 0x3 where 0x2 was expected (f: the paths part)")),
            (4, no("the function f is not there any more")),
            (5, no("f+0x4: instructions of another shape (the paths part)")),
            (6, no("f+0x4: a branch goes elsewhere")),
        ];
        let counts: Vec<usize> = reasons(&judged).into_values().collect();
        assert_eq!(counts, [1, 2, 1, 1]);
    }

    #[test]
    fn small_and_large_values_are_drawn() {
        let values = draw(&[Interval { min: 1, max: 1 << 40 }], 50, &mut generator(SEED));
        assert!(values.iter().any(|value| *value < 1 << 20) && values.iter().any(|value| *value > 1 << 39));
    }
}
