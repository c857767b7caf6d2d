//! `kerf const unset`: the stock values back.

use anyhow::Context;
use clap::Args;
use kerf_live::{Live, LiveError, Mode, Outcome, Status, Transaction};

use super::const_words::{TableArgs, find_running};
use super::mode_words::{self, ModeArgs, active_rows, stock_entries};
use crate::{journal, print, running};

pub const EXAMPLES: &str = "\
Examples:
  kerf const unset BLK_MAX_REQUEST_COUNT
  kerf const unset BLK_MAX_REQUEST_COUNT --mode global
  kerf const unset --all

A constant that a policy decides is given back together with all others of that policy: name them all. `kerf policy unload` does the same.
With --all, or without an entry in the scope table, the stock text comes back for everybody at once, whoever is inside a safe span.";

/// What to unset.
#[derive(Debug, Args)]
pub struct UnsetArgs {
    /// Names or ids, as `kerf status` shows them.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// Everything, also policies.
    #[arg(long, conflicts_with = "mode")]
    all: bool,
    #[command(flatten)]
    mode: ModeArgs,
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
            Err(LiveError::NoModule) if self.all => {
                return self.print(&[], "no module loaded: everything is stock", None);
            }
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
        if ids.is_empty() {
            return self.print(&[], "nothing is set", None);
        }
        let (outcome, mode, why) = self.restore(&mut live, &status, &ids)?;
        journal::record("unset", "", "", journal::unset(&status, &ids));
        kerf_live::policy::sweep_pins(&mut live)?;
        self.print(&ids, why, Some((mode, &outcome)))
    }

    /// Gives the stock text back, and says why for everybody at once if nobody asked for that.
    fn restore(
        &self,
        live: &mut Live,
        status: &Status,
        ids: &[String],
    ) -> anyhow::Result<(Outcome, Mode, &'static str)> {
        let mut transaction = Transaction::new(status.build_id.clone());
        transaction.timeout = self.mode.timeout();
        transaction.drop = if self.all { None } else { policy_of(status, ids)? };
        let by_hand = |id: &&String| status.entries.iter().any(|e| e.id == **id && e.policy.is_none());
        transaction.unset = ids.iter().filter(by_hand).cloned().collect();
        let rows = match active_rows(self.table.open(), ids) {
            _ if self.all => {
                return Ok((live.unset_all()?, Mode::Immediate, "everything: without a look at safe spans"));
            }
            Err(error) if self.mode.wants_transition() => return Err(error),
            Err(_) => {
                let why = "no entry in the scope table: without a look at safe spans";
                return Ok((live.set(&transaction)?, Mode::Immediate, why));
            }
            Ok(rows) => rows,
        };
        transaction.mode = self.mode.choose(rows.iter().map(|(entry, _)| entry))?;
        if transaction.mode != Mode::Immediate {
            transaction.unset.clear();
            transaction.entries = stock_entries(&rows, status)?;
        }
        Ok((live.set(&transaction)?, transaction.mode, ""))
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

    fn print(&self, ids: &[String], sentence: &str, went: Option<(Mode, &Outcome)>) -> anyhow::Result<u8> {
        if self.json {
            let mut object = serde_json::json!({ "unset": ids });
            if let Some((mode, outcome)) = went {
                mode_words::add_members(&mut object, mode, outcome);
            }
            print::json(&object)?;
            return Ok(0);
        }
        ids.iter().try_for_each(|id| print::text(&format!("{id}: stock")))?;
        let went = went.map(|(mode, outcome)| mode_words::sentence(mode, outcome));
        let said = [sentence.to_owned(), went.unwrap_or_default()];
        let said: Vec<String> = said.into_iter().filter(|text| !text.is_empty()).collect();
        print::text(&said.join(", "))?;
        Ok(0)
    }
}

/// The policy that decides on some of these constants, which goes if it decides on nothing else.
fn policy_of(status: &Status, ids: &[String]) -> Result<Option<String>, LiveError> {
    let decided = || status.entries.iter().filter_map(|e| Some((&e.id, e.policy.as_ref()?.owner.as_str())));
    let mut policies: Vec<&str> = decided().filter(|(id, _)| ids.contains(id)).map(|(_, owner)| owner).collect();
    policies.sort_unstable();
    policies.dedup();
    let name = match policies[..] {
        [] => return Ok(None),
        [name] => name,
        _ => {
            let why = format!("the policies {} hold them: one goes at a time", policies.join(", "));
            return Err(LiveError::Owned(why));
        }
    };
    let others = decided().filter(|(id, owner)| *owner == name && !ids.contains(id)).map(|(id, _)| id.as_str());
    let others: Vec<&str> = others.collect();
    if others.is_empty() {
        return Ok(Some(name.to_owned()));
    }
    Err(LiveError::Owned(format!(
        "the policy {name} decides {} too, and its constants come and go together: name them as well, or take it out \
         (`kerf policy unload {name}`)",
        others.join(", ")
    )))
}
