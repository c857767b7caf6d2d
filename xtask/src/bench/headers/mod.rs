//! Bench `headers`: the units that kerf takes for users of a header's constant, against all units of the kernel.
//!
//! Every unit is preprocessed with the constants marked. Where a mark arrives inside an inline function that nothing
//! calls, the code cannot depend on it; a sample of these is compiled with another value to see that this is true.

mod kbuild;
mod look;
mod reach;

use super::{Measured, Row};
use crate::setup::Setup;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, ensure};
use kbuild::Unit;
use kerf_const::site::{self, Query, Site};
use kerf_const::tree::{Destination, Tree};
use kerf_const::units::candidates;
use kerf_const::variants::in_parallel;
use look::{Look, Seen};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

/// Name and header, one constant a line.
const LIST: &str = include_str!("../../../data/headers.tsv");

/// Of the modules' units, one in so many is looked at: there are five times as many as of the kernel itself.
const MODULES: usize = 16;

/// Units that are compiled with two values, unless told otherwise.
pub const SAMPLE: usize = 200;

/// Looks at the first `count` constants of the list, or all, and compiles `sample` units.
pub fn run(workspace: &Workspace, count: Option<usize>, sample: usize) -> anyhow::Result<Measured> {
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    let source = setup.kernel.source.as_deref().context("find the kernel's source")?;
    let tree = Tree::open(source)?;
    let sites = sites(source, count)?;
    let units = steps.need("which units there are", || kbuild::units(&tree))?;
    let (modules, core): (Vec<Unit>, Vec<Unit>) = units.into_iter().partition(|unit| unit.module);
    let drawn = modules.into_iter().enumerate().filter(|(n, _)| n % MODULES == 0).map(|(_, unit)| unit);
    let units: Vec<Unit> = core.into_iter().chain(drawn).collect();
    let look = Look::new(source, &sites)?;
    let memory = workspace.directory("bench")?.join("headers.units");
    let (start, name) = (Instant::now(), format!("{} units preprocessed", units.len()));
    let seen = steps.need(&name, || preprocess(&look, &units, &sites, &memory))?;
    let mut measured = Measured { rows: Vec::new(), complaints: Vec::new() };
    let failed: Vec<&str> =
        units.iter().zip(&seen).filter(|(_, seen)| seen.is_none()).map(|(unit, _)| unit.name.as_str()).collect();
    println!(
        "    {} cannot be preprocessed before kbuild has made what they include: {}",
        failed.len(),
        failed.join(" ")
    );
    measured.rows.push(Row::new("preprocessed", "all", "all", (units.len() - failed.len()) as f64, "units"));
    measured.rows.push(Row::new("cannot be preprocessed", "all", "all", failed.len() as f64, "units"));
    let (units, seen): (Vec<Unit>, Vec<Seen>) =
        units.into_iter().zip(seen).filter_map(|(unit, seen)| Some((unit, seen?))).unzip();
    measured.rows.push(Row::new("time", "preprocessing", "all", start.elapsed().as_secs_f64(), "s"));
    let mut doubtful = Vec::new();
    for (n, site) in sites.iter().enumerate() {
        doubtful.extend(compare(&tree, site, n, (&units, &seen), &mut measured)?);
    }
    let name = format!("units compiled with two values, {} at most", sample);
    steps.need(&name, || compile(&look, &sites, spread(doubtful, sample), &mut measured))?;
    Ok(measured)
}

/// The sites of the list.
fn sites(source: &Path, count: Option<usize>) -> anyhow::Result<Vec<Site>> {
    let lines = LIST.lines().filter(|line| !line.starts_with('#')).take(count.unwrap_or(usize::MAX));
    let mut sites = Vec::new();
    for line in lines {
        let (name, file) = line.split_once('\t').with_context(|| format!("find a header in `{line}`"))?;
        let found = site::find(source, &Query::parse(name)?)?.into_iter().filter(|site| site.file == file);
        let found: Vec<Site> = found.collect();
        ensure!(!found.is_empty(), "find {name} in {file}");
        sites.extend(found);
    }
    Ok(sites)
}

/// Looks at every unit that the file does not remember yet, and remembers it there.
fn preprocess(look: &Look, units: &[Unit], sites: &[Site], memory: &Path) -> anyhow::Result<Vec<Option<Seen>>> {
    let places: Vec<String> = sites.iter().map(|site| format!("{}:{}:{}", site.file, site.line, site.text)).collect();
    let title = serde_json::to_string(&places).context("write down the sites")?;
    let text = std::fs::read_to_string(memory).unwrap_or_default();
    let mut lines = text.lines();
    // Another list of constants begins anew.
    let known: BTreeMap<String, Seen> = if lines.next() == Some(&title) {
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    } else {
        std::fs::write(memory, title + "\n").with_context(|| format!("write {}", memory.display()))?;
        BTreeMap::new()
    };
    println!("    {} are known from before", units.iter().filter(|unit| known.contains_key(&unit.name)).count());
    let file = File::options().append(true).open(memory).with_context(|| format!("open {}", memory.display()))?;
    let file = Mutex::new(file);
    let seen = in_parallel(units.len(), |n| {
        let unit = &units[n];
        if let Some(seen) = known.get(&unit.name) {
            return Ok(Some(seen.clone()));
        }
        let Some(seen) = look.at(unit)? else { return Ok(None) };
        let line = serde_json::to_string(&(&unit.name, &seen)).context("write down a unit")? + "\n";
        if let Ok(mut file) = file.lock() {
            file.write_all(line.as_bytes()).context("write down a unit")?;
        }
        Ok(Some(seen))
    });
    seen.into_iter().collect()
}

/// What a unit is to be compiled for.
struct Doubt<'a> {
    unit: &'a Unit,
    site: usize,
    claimed: bool,
}

/// Units of the kernel or of the modules.
#[derive(Clone, Copy, Default)]
struct Counts {
    used: usize,
    missed: usize,
    in_vain: usize,
}

/// Compares what kerf says of a site with what was seen; gives the units where only the compiler can tell.
fn compare<'a>(
    tree: &Tree,
    site: &Site,
    number: usize,
    (units, seen): (&'a [Unit], &[Seen]),
    measured: &mut Measured,
) -> anyhow::Result<Vec<Doubt<'a>>> {
    let name = &site.label();
    let claimed: BTreeMap<String, Destination> =
        candidates(tree, site)?.into_iter().map(|c| (c.unit, c.destination)).collect();
    let mut counts = [Counts::default(); 2];
    let mut doubts = Vec::new();
    for (unit, seen) in units.iter().zip(seen) {
        let (counts, claim) = (&mut counts[usize::from(unit.module)], claimed.get(&unit.name));
        let reaches = seen.reaching.contains(&number);
        counts.used += usize::from(reaches);
        match claim {
            None if reaches => {
                counts.missed += 1;
                measured.complaints.push(format!("{name} is used in {}, which kerf does not see", unit.name));
            }
            Some(_) if !reaches => counts.in_vain += 1,
            Some(home) if matches!(home, Destination::Module(_)) != unit.module => {
                measured.complaints.push(format!("{name}: kerf takes {} for {home:?}", unit.name));
            }
            _ => {}
        }
        if seen.present.contains(&number) && !reaches {
            doubts.push(Doubt { unit, site: number, claimed: claim.is_some() });
        }
    }
    let mut row = |metric: &str, case: &str, value: usize| {
        measured.rows.push(Row::new(metric, case, name, value as f64, "units"));
    };
    for (case, counts) in ["of the kernel", "of one in 16 of the modules'"].iter().zip(counts) {
        row("use it", case, counts.used);
        row("missed", case, counts.missed);
        row("looked at in vain", case, counts.in_vain);
        println!("    {name}, {case}: {} use it, {} missed, {} in vain", counts.used, counts.missed, counts.in_vain);
    }
    row("hold it in an unused inline function", "all", doubts.len());
    Ok(doubts)
}

/// `count` of the doubts, spread evenly over all of them.
fn spread<T>(doubts: Vec<T>, count: usize) -> Vec<T> {
    let total = doubts.len();
    let chosen: BTreeSet<usize> = (0..count.min(total)).map(|n| n * total / count.min(total)).collect();
    doubts.into_iter().enumerate().filter(|(n, _)| chosen.contains(n)).map(|(_, doubt)| doubt).collect()
}

/// Compiles units whose code should not depend on a site, with two values.
fn compile(look: &Look, sites: &[Site], doubts: Vec<Doubt>, measured: &mut Measured) -> anyhow::Result<()> {
    let results = in_parallel(doubts.len(), |n| look.depends(doubts[n].unit, doubts[n].site));
    let (mut same, mut refused) = (0, 0);
    for (doubt, depends) in doubts.iter().zip(results) {
        let (name, unit) = (sites[doubt.site].label(), &doubt.unit.name);
        match depends? {
            Some(false) => same += 1,
            Some(true) if doubt.claimed => {
                measured.complaints.push(format!("{name} reaches the code of {unit}: preprocessing does not show it"));
            }
            Some(true) => {
                measured.complaints.push(format!("{name} reaches the code of {unit}, which kerf does not see"))
            }
            None => refused += 1,
        }
    }
    let case = "units that hold it unused";
    let mut row = |metric: &str, value: usize| {
        measured.rows.push(Row::new(metric, case, "all", value as f64, "units"));
    };
    row("compiled with two values", doubts.len());
    row("same code with both", same);
    row("do not compile with the other value", refused);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spread() {
        assert_eq!(spread((0..100).collect(), 4), [0, 25, 50, 75]);
        assert_eq!(spread(vec![1, 2], 4), [1, 2]);
        assert!(spread(Vec::<u8>::new(), 4).is_empty());
        assert!(spread(vec![1, 2], 0).is_empty());
    }

    #[test]
    fn the_list_names_ten_headers() {
        let lines: Vec<_> = LIST.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(lines.len() == 10 && lines.iter().all(|l| l.split_once('\t').is_some_and(|(_, f)| f.ends_with(".h"))));
    }
}
