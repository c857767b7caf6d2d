//! Which files the configuration compiles: the units, and what they include.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use crate::error::ConstError;
use crate::grep;
use crate::tree::{Destination, Tree};
use crate::variants::in_parallel;

/// A header with more definitions than this, and little else, lists the registers of a device.
const REGISTERS: usize = 1500;

/// The files of the tree that the configured kernel and its modules are made of, sorted.
///
/// # Errors
/// If the source cannot be listed.
pub fn compiled(tree: &Tree) -> Result<Vec<String>, ConstError> {
    let all = grep::source_files(tree.root())?;
    let mut by_base: HashMap<&str, Vec<&str>> = HashMap::new();
    for file in &all {
        by_base.entry(base(file)).or_default().push(file);
    }
    let units: Vec<&str> = all.iter().map(String::as_str).filter(|f| f.ends_with(".c") && !is_test(f)).collect();
    let built = in_parallel(units.len(), |n| tree.destination(units[n]) != Destination::Nowhere);
    let mut next: Vec<&str> = units.iter().zip(built).filter(|(_, built)| *built).map(|(unit, _)| *unit).collect();
    let mut known: BTreeSet<&str> = next.iter().copied().collect();
    while !next.is_empty() {
        let included = in_parallel(next.len(), |n| includes(tree.root(), next[n]));
        let mut new = BTreeSet::new();
        for (from, included) in next.iter().zip(&included) {
            new.extend(included.iter().flat_map(|name| resolve(from, name, &by_base)).filter(|f| !known.contains(f)));
        }
        known.extend(new.iter().copied());
        next = new.into_iter().collect();
    }
    Ok(known.into_iter().map(str::to_owned).collect())
}

/// Whether a file tests the kernel and is no part of it.
pub fn is_test(file: &str) -> bool {
    let name = base(file);
    let marks = ["_test.c", "-test.c", "_kunit.c", "_tests.c", "selftest.c", "_selftest.c", "torture.c", "test.h"];
    marks.iter().any(|end| name.ends_with(end))
        || name.starts_with("test_")
        || file.split('/').any(|part| matches!(part, "tests" | "selftests" | "kunit" | "test"))
}

/// Whether a file lists the registers of a device and nothing else.
pub fn is_register_list(file: &str, text: &str) -> bool {
    if !file.ends_with(".h") {
        return false;
    }
    let defines = text.lines().filter(|line| line.starts_with("#define")).count();
    defines > REGISTERS && defines * 2 > text.lines().count()
}

fn base(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

/// What a file includes, as it writes it.
fn includes(root: &Path, file: &str) -> Vec<String> {
    let Ok(text) = grep::read_source(root, file) else { return Vec::new() };
    if is_register_list(file, &text) {
        return Vec::new();
    }
    let name = |line: &str| {
        let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?.trim_start();
        let end = rest.get(1..)?.find(['"', '>'])?;
        Some(rest.get(1..=end)?.trim_start_matches("./").trim_start_matches("../").to_owned())
    };
    text.lines().filter_map(name).filter(|n| n.ends_with(".h") || n.ends_with(".c")).collect()
}

/// Files by the last part of their path.
type ByBase<'a> = HashMap<&'a str, Vec<&'a str>>;

/// The files that an include means: beside the file, in the directories of common headers, or below the same part of the tree.
fn resolve<'a>(from: &str, name: &str, by_base: &ByBase<'a>) -> Vec<&'a str> {
    let Some(same) = by_base.get(base(name)) else { return Vec::new() };
    let beside = from.rsplit_once('/').map_or(name.to_owned(), |(directory, _)| format!("{directory}/{name}"));
    let exact = [beside, format!("include/{name}"), format!("arch/x86/include/{name}"), format!("include/uapi/{name}")];
    if let Some(found) = exact.iter().find_map(|path| same.iter().find(|f| *f == path)) {
        return vec![found];
    }
    let part = |file: &str| file.split('/').take(2).collect::<Vec<_>>().join("/");
    let near = part(from);
    let ending = format!("/{}", name.trim_start_matches("../"));
    same.iter().filter(|f| f.ends_with(&ending) && part(f) == near).copied().collect()
}
