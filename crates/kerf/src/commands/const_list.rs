//! `kerf const list`: the scope table as a table.

use std::collections::BTreeMap;

use anyhow::Context;
use clap::Args;
use kerf_const::apply;
use kerf_const::entry::Entry;
use kerf_live::Live;

use super::const_words::TableArgs;
use crate::{print, running};

pub const EXAMPLES: &str = "\
Examples:
  kerf const list
  kerf const list --class proved
  kerf const list --all-builds --json";

/// What to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only entries of this class.
    #[arg(long, value_name = "CLASS", value_parser = ["proved", "layout", "data", "shadowed", "absent", "sensitive", "shape", "foreign"])]
    class: Option<String>,
    /// Also entries of other kernels than the running one.
    #[arg(long)]
    all_builds: bool,
    #[command(flatten)]
    table: TableArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Values in force, by the id that the module knows.
type InForce = BTreeMap<String, i64>;

impl ListArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        let (entries, other_kernels) = self.entries().context("list the entries")?;
        let build = running::build_id().unwrap_or_default();
        let in_force = in_force();
        let now = |entry: &Entry| {
            let own = entry.image.build_id == build;
            in_force.as_ref().filter(|_| own).map(|set| set.get(entry.label()).map_or(entry.value, |v| i128::from(*v)))
        };
        if self.json {
            let rows: Vec<serde_json::Value> = entries.iter().map(|e| row(e, now(e))).collect::<Result<_, _>>()?;
            print::json(&rows)?;
            return Ok(0);
        }
        if other_kernels {
            eprintln!("kerf: no entry is of the running kernel {}; showing those of others", running::release());
        }
        let rows = entries.iter().map(|e| columns(e, now(e)));
        print::text(&print::table(&["NAME", "VALUE", "NOW", "CLASS", "DOMAIN", "SPANS", "WHERE"], rows))?;
        Ok(0)
    }

    /// The entries, and whether they are of other kernels only.
    fn entries(&self) -> anyhow::Result<(Vec<Entry>, bool)> {
        let table = self.table.open()?;
        let build = running::build_id().ok().filter(|_| !self.all_builds);
        let mut entries = table.entries(build.as_deref())?;
        let other_kernels = entries.is_empty() && build.is_some();
        if other_kernels {
            entries = table.entries(None)?;
        }
        entries.retain(|e| self.class.as_deref().is_none_or(|class| e.class.word() == class));
        Ok((entries, other_kernels && !self.all_builds))
    }
}

/// What the module says is set, if it is loaded and may be asked.
fn in_force() -> Option<InForce> {
    let status = Live::open().ok()?.status().ok()?;
    Some(status.entries.into_iter().map(|entry| (entry.id, entry.value)).collect())
}

fn columns(entry: &Entry, now: Option<i128>) -> Vec<String> {
    let module = entry.image.module.as_ref().map(|m| format!("{m}: ")).unwrap_or_default();
    let mut functions: Vec<&str> = entry.spans.iter().map(|s| s.function.as_str()).collect();
    functions.dedup();
    let mut place = functions.iter().take(2).copied().collect::<Vec<_>>().join(", ");
    if functions.len() > 2 {
        place += &format!(" and {} more", functions.len() - 2);
    }
    if place.is_empty() {
        place = format!("{}:L{}", entry.file, entry.line);
    }
    vec![
        entry.label().into(),
        entry.value.to_string(),
        now.map_or("-".into(), |v| v.to_string()),
        entry.class.word().into(),
        if entry.domain.is_empty() { "-".into() } else { apply::domain_text(entry) },
        entry.spans.len().to_string(),
        format!("{module}{place}"),
    ]
}

fn row(entry: &Entry, now: Option<i128>) -> anyhow::Result<serde_json::Value> {
    Ok(serde_json::json!({
        "id": entry.id,
        "name": entry.name,
        "value": i64::try_from(entry.value).ok(),
        "in_force": now.and_then(|v| i64::try_from(v).ok()),
        "class": entry.class,
        "reason": entry.reason,
        "domain": serde_json::to_value(&entry.domain)?,
        "spans": entry.spans.len(),
        "file": entry.file,
        "line": entry.line,
        "image": serde_json::to_value(&entry.image)?,
    }))
}
