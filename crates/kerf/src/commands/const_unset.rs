//! `kerf const unset`: the stock values back.

use anyhow::Context;
use clap::Args;
use kerf_live::{Live, LiveError, Status};

use super::const_words::{TableArgs, find_running};
use crate::{print, running};

pub const EXAMPLES: &str = "\
Examples:
  kerf const unset BLK_MAX_REQUEST_COUNT
  kerf const unset --all";

/// What to unset.
#[derive(Debug, Args)]
pub struct UnsetArgs {
    /// Names or ids, as `kerf status` shows them.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// Everything.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    table: TableArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl UnsetArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        let shown = if self.all { "everything".into() } else { self.ids.join(" ") };
        self.execute().with_context(|| format!("unset {shown}"))
    }

    fn execute(&self) -> anyhow::Result<u8> {
        let mut live = match Live::open() {
            // Without the module nothing can be set.
            Err(LiveError::NoModule) if self.all => return self.print(&[], "no module loaded: everything is stock"),
            other => other?,
        };
        let status = live.status()?;
        let ids: Vec<String> = if self.all {
            status.entries.iter().map(|e| e.id.clone()).collect()
        } else {
            let mut ids = Vec::new();
            for id in &self.ids {
                ids.extend(self.active(&status, id)?);
            }
            ids.sort();
            ids.dedup();
            ids
        };
        match (self.all, ids.is_empty()) {
            (_, true) => return self.print(&[], "nothing is set"),
            (true, _) => live.unset_all()?,
            (false, _) => live.unset(&ids)?,
        };
        kerf_live::policy::sweep_pins(&mut live)?;
        self.print(&ids, "")
    }

    /// The ids that the module knows a constant by: its own and those of its derived numbers.
    fn active(&self, status: &Status, query: &str) -> anyhow::Result<Vec<String>> {
        let known = |name: &str| -> Vec<String> {
            let derived = format!("{name}@");
            let ids = status.entries.iter().map(|e| e.id.clone());
            ids.filter(|id| id == name || id.starts_with(&derived)).collect()
        };
        let direct = known(query);
        if !direct.is_empty() {
            return Ok(direct);
        }
        let entry = self.table.open().ok().and_then(|t| find_running(&t, &running::build_id().ok()?, query).ok());
        let named = entry.map(|entry| known(entry.label())).unwrap_or_default();
        if named.is_empty() {
            let set: Vec<&str> = status.entries.iter().map(|e| e.id.as_str()).collect();
            let set = if set.is_empty() { "nothing is".into() } else { format!("set are {}", set.join(", ")) };
            return Err(LiveError::NotFound(format!("{query} is not set; {set}")).into());
        }
        Ok(named)
    }

    fn print(&self, ids: &[String], sentence: &str) -> anyhow::Result<u8> {
        if self.json {
            print::json(&serde_json::json!({ "unset": ids }))?;
        } else if ids.is_empty() {
            print::text(sentence)?;
        } else {
            ids.iter().try_for_each(|id| print::text(&format!("{id}: stock")))?;
        }
        Ok(0)
    }
}
