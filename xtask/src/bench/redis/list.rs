//! The list of constants on the benchmark's path, and those of it that are proved.

use anyhow::{Context, bail, ensure};
use kerf_const::Class;
use kerf_const::table::Table;
use std::path::Path;

/// Columns divided by tabs: name (what `kerf const build` takes), value (another one, with which the benchmark does the same), why.
pub const FILE: &str = "xtask/data/redis-constants.tsv";

/// A constant that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constant {
    label: String,
    id: String,
    value: i128,
    stock: i128,
}

impl Constant {
    /// As the guest reads it.
    pub fn line(&self) -> String {
        let Constant { label, id, value, stock } = self;
        format!("{label} {id} {value} {stock}\n")
    }
}

/// What a line of the list says.
fn parse(text: &str) -> anyhow::Result<Vec<(&str, i128)>> {
    let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    ensure!(lines.next().is_some_and(|line| line.starts_with("name\tvalue\t")), "find the columns' names");
    let line = |line| {
        let [name, value, _why] = str::split(line, '\t').collect::<Vec<_>>()[..] else {
            bail!("read the line `{line}`: it needs three columns")
        };
        Ok((name, value.parse().with_context(|| format!("read the value in `{line}`"))?))
    };
    lines.map(line).collect()
}

/// The list's constants that are proved for both values, in the list's order.
pub fn proved(list: &Path, table: &Path) -> anyhow::Result<Vec<Constant>> {
    let text = std::fs::read_to_string(list).with_context(|| format!("read {}", list.display()))?;
    let entries = Table::open(table)?.entries(None)?;
    let mut constants = Vec::new();
    for (name, value) in parse(&text).with_context(|| format!("read {}", list.display()))? {
        let Some(entry) = entries.iter().find(|entry| entry.id == name || entry.name.as_deref() == Some(name)) else {
            println!("    not used: {name} was not built");
            continue;
        };
        if entry.class != Class::Proved || !entry.certifies(value) {
            println!("    not used: {} is {}: {}", entry.label(), entry.class.word(), entry.reason);
            continue;
        }
        let (label, id, stock) = (entry.label().to_owned(), entry.id.clone(), entry.value);
        constants.push(Constant { label, id, value, stock });
    }
    ensure!(!constants.is_empty(), "find a proved constant of {}", list.display());
    Ok(constants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read() {
        let lines = parse(include_str!("../../../data/redis-constants.tsv")).unwrap();
        let names: std::collections::BTreeSet<_> = lines.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), lines.len(), "a constant stands twice in the list");
        assert!(parse("name\tvalue\twhy\nA\tx\ty\n").is_err() && parse("A\t1\ty\n").is_err());
    }

    #[test]
    fn the_guest_gets_what_it_reads() {
        let constant = Constant { label: "A".into(), id: "a.c:L1:2:0".into(), value: 3, stock: 2 };
        assert_eq!(constant.line(), "A a.c:L1:2:0 3 2\n");
    }
}
