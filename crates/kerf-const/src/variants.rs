//! The compiled variants of all units of a constant, made in parallel and kept by value.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kerf_image::Image;

use crate::code::{self, Code};
use crate::compile::{Evaluation, Unit};
use crate::equivalence::calls::{self, Call};
use crate::equivalence::{Refusal, Witnesses};
use crate::error::ConstError;
use crate::site::Site;
use crate::tree::Tree;

/// One unit compiled with one value.
pub struct Compiled {
    /// The object.
    pub object: Image,
    /// Its functions.
    pub code: Code,
}

/// All units that use a site, and their compilations.
pub struct Variants<'a> {
    tree: &'a Tree,
    site: Site,
    value: i128,
    units: Vec<Unit>,
    base: Vec<Compiled>,
    made: BTreeMap<i128, Result<Vec<Compiled>, String>>,
    calls: Mutex<HashMap<String, Arc<Calls>>>,
    /// Functions that were found to do the same with stack frames of another layout.
    frames_differ: Mutex<BTreeSet<(String, String)>>,
    /// What refuted claims about a function, by unit and name, and for values below or above the deployed one: each way has its own, so that
    /// what is known does not depend on which is ahead.
    witnesses: Mutex<HashMap<Comparison, Witnesses>>,
    /// Comparisons that showed nothing, and why.
    refused: Mutex<HashMap<Refusal, String>>,
}

/// Position of the unit, name of the function, whether the value lies below the deployed one.
type Comparison = (usize, String, bool);

/// The calls of a unit's functions.
pub type Calls = HashMap<String, Vec<Call>>;

impl<'a> Variants<'a> {
    /// Compiles every unit with the site's own text.
    pub fn new(tree: &'a Tree, site: &Site, value: i128, units: Vec<Unit>) -> Result<Variants<'a>, ConstError> {
        Variants::with_values(tree, site, value, units, &[])
    }

    /// Compiles every unit with the site's own text and, in the same go, with some values.
    pub fn with_values(
        tree: &'a Tree,
        site: &Site,
        value: i128,
        units: Vec<Unit>,
        values: &[i128],
    ) -> Result<Variants<'a>, ConstError> {
        let (base, made) = (Vec::new(), BTreeMap::new());
        let mut variants = Variants {
            tree,
            site: site.clone(),
            value,
            units,
            base,
            made,
            calls: Mutex::default(),
            frames_differ: Mutex::default(),
            witnesses: Mutex::default(),
            refused: Mutex::default(),
        };
        let wanted: Vec<Option<i128>> = std::iter::once(None).chain(values.iter().copied().map(Some)).collect();
        let (own, others) = variants.compile_all(&wanted).into_iter().partition::<Vec<_>, _>(|(v, _)| v.is_none());
        variants.base = own.into_iter().map(|(_, result)| result).collect::<Result<_, _>>()?;
        variants.keep(others)?;
        Ok(variants)
    }

    /// The units, in the order of [`Variants::base`] and [`Variants::get`].
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// The tree they come from.
    pub fn tree(&self) -> &'a Tree {
        self.tree
    }

    /// The site.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The deployed value.
    pub fn site_value(&self) -> i128 {
        self.value
    }

    /// The units with the site's own text.
    pub fn base(&self) -> &[Compiled] {
        &self.base
    }

    /// Compiles all units with the values that are not there yet.
    ///
    /// A value that the source itself forbids (a failed build-time check) is kept as such and is no error.
    pub fn make(&mut self, values: &[i128]) -> Result<(), ConstError> {
        let new: Vec<Option<i128>> = values.iter().copied().filter(|v| !self.made.contains_key(v)).map(Some).collect();
        let results = self.compile_all(&new);
        self.keep(results)
    }

    /// All units with each of some values (`None`: the site's own text), on all processors.
    fn compile_all(&self, values: &[Option<i128>]) -> Vec<(Option<i128>, Result<Compiled, ConstError>)> {
        let count = self.units.len();
        in_parallel(values.len() * count, |n| {
            let value = values[n / count];
            (value, compile(self.tree, &self.site, &self.units[n % count], value))
        })
    }

    fn keep(&mut self, results: Vec<(Option<i128>, Result<Compiled, ConstError>)>) -> Result<(), ConstError> {
        for (value, result) in results {
            let Some(value) = value else { continue };
            add(self.made.entry(value).or_insert_with(|| Ok(Vec::new())), result)?;
        }
        Ok(())
    }

    /// Lets go of values that are not needed any more.
    pub fn forget(&mut self, values: &[i128]) {
        values.iter().for_each(|value| drop(self.made.remove(value)));
    }

    /// The units with a value; the compiler's words if it refused.
    pub fn get(&self, value: i128) -> Option<Result<&[Compiled], &str>> {
        self.made.get(&value).map(|r| r.as_ref().map(Vec::as_slice).map_err(String::as_str))
    }

    /// What the compiler says of the calls in a unit; compiled when first asked for.
    pub fn calls(&self, unit: usize) -> Arc<Calls> {
        let (Some(unit), Ok(mut known)) = (self.units.get(unit), self.calls.lock()) else { return Arc::default() };
        let calls = known.entry(unit.name.clone()).or_insert_with(|| {
            Arc::new(unit.listing(self.tree, &self.site).map(|l| calls::read(&l)).unwrap_or_default())
        });
        Arc::clone(calls)
    }

    /// The same, if it has been asked for before.
    pub fn known_calls(&self, unit: usize) -> Option<Arc<Calls>> {
        self.calls.lock().ok()?.get(&self.units.get(unit)?.name).cloned()
    }

    /// Whether a function agreed with another value before, with stack frames of another layout.
    pub fn frames_differ(&self, unit: usize, function: &str) -> bool {
        let key = self.units.get(unit).map(|unit| (unit.name.clone(), function.to_owned()));
        key.is_some_and(|key| self.frames_differ.lock().is_ok_and(|known| known.contains(&key)))
    }

    /// Remembers that it did.
    pub fn note_frames_differ(&self, unit: usize, function: &str) {
        if let (Some(unit), Ok(mut known)) = (self.units.get(unit), self.frames_differ.lock()) {
            known.insert((unit.name.clone(), function.to_owned()));
        }
    }

    /// What is known to have refuted claims in such a comparison.
    pub fn witnesses(&self, comparison: &Comparison) -> Witnesses {
        self.witnesses.lock().ok().and_then(|known| known.get(comparison).cloned()).unwrap_or_default()
    }

    /// Keeps it for the next.
    pub fn note_witnesses(&self, comparison: Comparison, witnesses: Witnesses) {
        if let Ok(mut known) = self.witnesses.lock() {
            known.insert(comparison, witnesses);
        }
    }

    /// Why a comparison showed nothing, if it was tried.
    pub fn refused(&self, refusal: &Refusal) -> Option<String> {
        self.refused.lock().ok()?.get(refusal).cloned()
    }

    /// Remembers that it did not.
    pub fn note_refused(&self, refusal: Refusal, why: String) {
        if let Ok(mut known) = self.refused.lock() {
            known.insert(refusal, why);
        }
    }

    /// The values that compiled, ascending.
    pub fn values(&self) -> impl Iterator<Item = i128> {
        self.made.iter().filter(|(_, r)| r.is_ok()).map(|(v, _)| *v)
    }

    /// The values that the compiler refused, with what it said.
    pub fn forbidden(&self) -> impl Iterator<Item = (i128, &str)> {
        self.made.iter().filter_map(|(v, r)| Some((*v, r.as_ref().err()?.as_str())))
    }

    /// Leaves out units (by position) that no variant changes.
    pub fn retain(&mut self, keep: &[bool]) {
        let kept = |n: usize| keep.get(n).copied().unwrap_or(true);
        let mut n = 0;
        self.units.retain(|_| {
            n += 1;
            kept(n - 1)
        });
        self.base = filter(std::mem::take(&mut self.base), kept);
        for list in self.made.values_mut().flatten() {
            *list = filter(std::mem::take(list), kept);
        }
    }
}

/// Adds a unit to those of a value. One that refuses the value is enough: its words stand for all.
fn add<T>(made: &mut Result<Vec<T>, String>, result: Result<T, ConstError>) -> Result<(), ConstError> {
    match (result, made.as_mut()) {
        (Ok(compiled), Ok(list)) => list.push(compiled),
        (Err(ConstError::Compile { output, .. }), Ok(_)) => *made = Err(output),
        (Ok(_) | Err(ConstError::Compile { .. }), Err(_)) => {}
        (Err(other), _) => return Err(other),
    }
    Ok(())
}

fn filter<T>(list: Vec<T>, kept: impl Fn(usize) -> bool) -> Vec<T> {
    list.into_iter().enumerate().filter(|(n, _)| kept(*n)).map(|(_, x)| x).collect()
}

fn compile(tree: &Tree, site: &Site, unit: &Unit, value: Option<i128>) -> Result<Compiled, ConstError> {
    let bytes = unit.compile(tree, site, value, false)?;
    let object = Image::parse(&unit.name, bytes)?;
    let code = code::read(&object)?;
    Ok(Compiled { object, code })
}

/// Runs `work(0..count)` on all processors and returns the results in order.
pub fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::with_capacity(count));
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get()).min(count.max(1));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    let result = work(n);
                    if let Ok(mut list) = results.lock() {
                        list.push((n, result));
                    }
                }
            });
        }
    });
    let mut list = results.into_inner().unwrap_or_default();
    list.sort_by_key(|(n, _)| *n);
    list.into_iter().map(|(_, r)| r).collect()
}

/// The values to compile first for a constant of value `value`: near, odd and even, doubled and halved, small (of which
/// compilers make special cases), across operand widths, and towards the ends of its type. Sorted, without `value` itself.
pub fn sample(value: i128, kind: Evaluation) -> Vec<i128> {
    let (low, high) = limits(kind);
    let next_power = |v: i128| i128::from((v.max(1) as u128).next_power_of_two() as u64);
    let mut values = vec![value + 1, value - 1, 2 * value, value / 2, 1, 2, 3];
    // Small constants count bits or levels; larger ones are quantities that may grow beyond every operand's width.
    if value >= 8 {
        values.extend([128, 1_000_003 * (1 + value / 100_000)]);
    } else {
        values.push(next_power(8 * value + 1) - 1);
    }
    values.retain(|v| (low.max(1)..=high).contains(v) && *v != value);
    values.sort();
    values.dedup();
    values
}

/// More values around the deployed one, for numbers that follow from it in a way that a few do not show.
pub fn neighbours(value: i128, kind: Evaluation) -> Vec<i128> {
    let (low, high) = limits(kind);
    let near = [2, 3, 5, 7].into_iter().flat_map(|distance| [value - distance, value + distance]);
    let parts = [5, 6, 7, 9, 10, 12].into_iter().map(|parts| value * parts / 8);
    let mut values: Vec<i128> = near.chain(parts).filter(|v| (low.max(1)..=high).contains(v) && *v != value).collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// Values that no fit sees, one in the neighbourhood and one far away: they only test.
pub fn held_out(value: i128, kind: Evaluation) -> Vec<i128> {
    let (low, high) = limits(kind);
    let seen = sample(value, kind);
    let fresh = |v: &i128| (low.max(1)..=high).contains(v) && *v != value && !seen.contains(v);
    let near = [value * 5 / 3 + 1, 5 * value / 2 + 2].into_iter().find(fresh);
    near.into_iter().chain(Some(77 * value + 13).filter(fresh)).collect()
}

/// The smallest and largest value of the constant's type, the latter never above what a signed 64-bit number holds.
pub fn limits(kind: Evaluation) -> (i128, i128) {
    let bits = kind.bits.clamp(8, 64);
    if kind.signed {
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        (0, ((1i128 << bits) - 1).min(i128::from(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_near_far_odd_even_and_within_the_type() {
        let kind = Evaluation { value: 32, bits: 32, signed: true };
        let values = sample(32, kind);
        assert!(
            values.contains(&33)
                && values.contains(&31)
                && values.contains(&64)
                && values.contains(&128)
                && values.contains(&1)
                && values.contains(&2)
                && values.contains(&3)
        );
        assert!(!values.contains(&32));
        for value in [1, 2, 3, 8, 32, 4000] {
            let (values, held) = (sample(value, kind), held_out(value, kind));
            assert!(held.len() == 2 && held.iter().all(|v| !values.contains(v)), "{values:?} {held:?}");
        }
        let byte = Evaluation { value: 200, bits: 8, signed: false };
        assert!(sample(200, byte).iter().all(|v| *v <= 255));
    }

    #[test]
    fn a_value_that_several_units_refuse_is_refused_once() {
        let refusal = |output: &str| ConstError::Compile { unit: "a.c".into(), value: Some(5), output: output.into() };
        let mut made = Ok(vec![1]);
        add(&mut made, Err(refusal("first"))).unwrap();
        add(&mut made, Err(refusal("second"))).unwrap();
        add(&mut made, Ok(2)).unwrap();
        assert_eq!(made, Err("first".into()));
        assert!(
            add(&mut made, Err(ConstError::NoCommand { object: "b.o".into(), output: String::new() })).is_err(),
            "what is no refusal"
        );
    }

    #[test]
    fn parallel_results_keep_their_order() {
        assert_eq!(in_parallel(100, |n| n * n), (0..100).map(|n| n * n).collect::<Vec<_>>());
    }
}
