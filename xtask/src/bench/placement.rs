//! Bench `placement`: where the numbers of each span of the atlas go, over all values of its constant's domain.

use super::atlas::Store;
use super::{Measured, Row};
use crate::setup::Setup;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::ensure;
use kerf_const::Class;
use kerf_const::build::open_module;
use kerf_const::entry::Entry;
use kerf_const::placement::{Kind, placements};
use kerf_const::variants::in_parallel;
use kerf_image::Image;
use std::collections::BTreeMap;

/// The share of spans that must have an immediate or a detour.
const LEAST: f64 = 0.97;

/// What the Xkernel paper reaches for its 367 spans (section 6 and appendix B): probes that are jumps, those that are breakpoints, and
/// jumps once conditional branches are moved.
const PAPER: [(&str, f64); 3] =
    [("jump", 0.842), ("breakpoint", 0.158), ("jump, with its optimisation of conditional branches", 0.883)];

/// A span that has no place for some value.
struct Without {
    place: String,
    why: String,
}

/// Looks at all spans of the table that bench `atlas` has left.
pub fn run(workspace: &Workspace) -> anyhow::Result<Measured> {
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    let store = Store::open(workspace, &setup)?;
    let entries: Vec<Entry> = store.entries()?.into_iter().filter(|entry| entry.class == Class::Proved).collect();
    ensure!(
        !entries.is_empty(),
        "find proved constants in {}: `cargo xtask bench atlas` builds them",
        store.path.display()
    );
    let core = Image::open(&setup.kernel.vmlinuz)?;
    let mut modules: BTreeMap<&str, Option<Image>> = BTreeMap::new();
    for name in entries.iter().filter_map(|entry| entry.image.module.as_deref()) {
        if let (None, Some(directory)) = (modules.get(name), setup.kernel.modules_dir.as_deref()) {
            modules.insert(name, open_module(directory, name)?);
        }
    }
    let image = |entry: &Entry| match &entry.image.module {
        None => Some(&core),
        Some(name) => modules.get(name.as_str()).and_then(Option::as_ref),
    };
    let found = in_parallel(entries.len(), |n| placements(&entries[n], image(&entries[n])));
    let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
    let mut without = Vec::new();
    for (entry, placements) in entries.iter().zip(found) {
        for (span, placement) in entry.spans.iter().zip(placements) {
            *counts.entry(placement.kind).or_default() += 1;
            if placement.kind == Kind::Other {
                let place = format!("{}: {}+{:#x}", entry.label(), span.function, span.start);
                without.push(Without { place, why: placement.reason.unwrap_or_default() });
            }
        }
    }
    without.iter().for_each(|span| println!("    {} has no place for all values: {}", span.place, span.why));
    Ok(measured(&counts))
}

fn measured(counts: &BTreeMap<Kind, usize>) -> Measured {
    let all: usize = counts.values().sum();
    let count = |kind| counts.get(&kind).copied().unwrap_or(0);
    let share = |kind| count(kind) as f64 / all.max(1) as f64;
    let case = format!("{all} spans of proved constants, all values of their domains");
    let kinds = [Kind::Immediate, Kind::Detour, Kind::Other];
    let mut rows: Vec<Row> =
        kinds.iter().map(|kind| Row::new("share", &case, kind.word(), share(*kind), "of 1")).collect();
    rows.extend(kinds.iter().map(|kind| Row::new("spans", &case, kind.word(), count(*kind) as f64, "spans")));
    rows.extend(PAPER.map(|(subject, share)| Row::new("share in the paper", "367 spans", subject, share, "of 1")));
    let placed = share(Kind::Immediate) + share(Kind::Detour);
    let low = placed < LEAST;
    let complaint = format!("{placed:.3} of the spans have an immediate or a detour, less than {LEAST}");
    Measured { rows, complaints: if low { vec![complaint] } else { Vec::new() } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        let result = measured(&BTreeMap::from([(Kind::Immediate, 90), (Kind::Detour, 8), (Kind::Other, 2)]));
        let shares: Vec<f64> = result.rows.iter().filter(|row| row.metric == "share").map(|row| row.value).collect();
        assert_eq!(shares, [0.9, 0.08, 0.02]);
        assert!(result.complaints.is_empty());
        assert_eq!(measured(&BTreeMap::from([(Kind::Immediate, 9), (Kind::Other, 1)])).complaints.len(), 1);
    }
}
