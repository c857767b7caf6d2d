//! Finding symbols: by name, by address, and by a name that is nearly right.

use std::sync::OnceLock;

use crate::model::{Binding, Symbol};

/// Orders over a list of symbols that is sorted by address. All positions are positions in that list.
#[derive(Debug, Default)]
pub(crate) struct Lookup {
    functions: Vec<Function>,
    /// Built when a name is first looked up: sorting that many names takes longer than everything else.
    by_name: OnceLock<Vec<u32>>,
}

#[derive(Debug)]
struct Function {
    position: u32,
    start: u64,
    end: u64,
    /// The highest end of this and all earlier functions.
    reach: u64,
}

impl Lookup {
    pub(crate) fn new(symbols: &[Symbol]) -> Lookup {
        let mut reach = 0;
        let functions = symbols
            .iter()
            .zip(0u32..)
            .filter(|(symbol, _)| symbol.is_function())
            .map(|(symbol, position)| {
                // A function of unknown size holds its first byte.
                let end = symbol.end().max(symbol.address.saturating_add(1));
                reach = reach.max(end);
                Function { position, start: symbol.address, end, reach }
            })
            .collect();
        Lookup { functions, by_name: OnceLock::new() }
    }

    /// All functions, by address.
    pub(crate) fn functions<'a>(&'a self, symbols: &'a [Symbol]) -> impl Iterator<Item = &'a Symbol> {
        self.functions.iter().filter_map(|function| symbols.get(function.position as usize))
    }

    /// The innermost function that holds `address`; of several names, the one that people use.
    pub(crate) fn function_at<'a>(&self, symbols: &'a [Symbol], address: u64) -> Option<&'a Symbol> {
        let after = self.functions.partition_point(|function| function.start <= address);
        let before = self.functions.get(..after)?;
        let mut best: Option<&Symbol> = None;
        for function in before.iter().rev().take_while(|function| function.reach > address) {
            if best.is_some_and(|best| best.address != function.start) {
                break;
            }
            let Some(symbol) = symbols.get(function.position as usize) else { continue };
            if address < function.end && best.is_none_or(|best| rank(symbol) < rank(best)) {
                best = Some(symbol);
            }
        }
        best
    }

    /// All symbols of one name, by address.
    pub(crate) fn named<'a>(&self, symbols: &'a [Symbol], name: &str) -> impl Iterator<Item = &'a Symbol> + use<'a> {
        let order = self.order(symbols);
        let name_of = |position: &u32| symbols.get(*position as usize).map_or("", |symbol| &*symbol.name);
        let start = order.partition_point(|position| name_of(position) < name);
        let end = order.partition_point(|position| name_of(position) <= name);
        let positions = order.get(start..end).unwrap_or_default().to_vec();
        positions.into_iter().filter_map(|position| symbols.get(position as usize))
    }

    /// At most `count` names that look like `name`, the best first.
    pub(crate) fn similar<'a>(&self, symbols: &'a [Symbol], name: &str, count: usize) -> Vec<&'a str> {
        let wanted = name.to_lowercase();
        let tolerance = (wanted.len() / 3).max(2);
        let mut scored: Vec<(usize, &str)> = Vec::new();
        let mut last = "";
        for position in self.order(symbols) {
            let Some(symbol) = symbols.get(*position as usize) else { continue };
            if *symbol.name == *last {
                continue;
            }
            last = &symbol.name;
            if let Some(score) = score(&wanted, last, tolerance) {
                scored.push((score, last));
            }
        }
        scored.sort_unstable();
        scored.into_iter().take(count).map(|(_, name)| name).collect()
    }

    /// The positions of all symbols, by name and then address.
    fn order(&self, symbols: &[Symbol]) -> &[u32] {
        self.by_name.get_or_init(|| {
            let mut order: Vec<(&str, u32)> = symbols.iter().zip(0..).map(|(symbol, at)| (&*symbol.name, at)).collect();
            order.sort_unstable();
            order.into_iter().map(|(_, position)| position).collect()
        })
    }
}

/// Lower is better: global before weak before local, plain names before those with underscores (`_stext`).
fn rank(symbol: &Symbol) -> (bool, u8, usize, &str) {
    let marker = matches!(&*symbol.name, "_text" | "_stext" | "_sinittext") || symbol.name.ends_with("_start");
    let binding = match symbol.binding {
        Binding::Global => 0,
        Binding::Weak => 1,
        Binding::Local => 2,
    };
    let underscores = symbol.name.len() - symbol.name.trim_start_matches('_').len();
    (marker, binding, underscores, &symbol.name)
}

/// How far `candidate` is from `wanted` (lower-case); `None` if it is not similar.
fn score(wanted: &str, candidate: &str, tolerance: usize) -> Option<usize> {
    let difference = candidate.len().abs_diff(wanted.len());
    if wanted.len() >= 4 && candidate.len() >= 4 && difference <= 2 * tolerance.max(8) {
        let lower = candidate.to_lowercase();
        // A whole name inside another, such as `foo` in `foo.isra.0` or `__foo`, is nearer than its length says.
        if lower.contains(wanted) || wanted.contains(&lower) {
            return Some(1 + difference / 4);
        }
    }
    if difference > tolerance {
        return None;
    }
    let distance = strsim::osa_distance(wanted, &candidate.to_lowercase());
    (distance <= tolerance).then_some(distance)
}
