//! `kerf policy unload`: takes a policy out.

use std::path::Path;

use anyhow::Context;
use clap::Args;
use kerf_live::{Live, Mode, Outcome, Status, Transaction, policy};

use super::const_words::TableArgs;
use super::mode_words::{self, ModeArgs, active_rows, stock_entries};
use super::policy_words::name_of;
use crate::{journal, print};

pub const EXAMPLES: &str = "\
Examples:
  kerf policy unload plug
  kerf policy unload plug.bpf.c --mode global

Without entries in the scope table the stock text comes back for everybody at once, whoever is inside a safe span.";

/// What to take out.
#[derive(Debug, Args)]
pub struct UnloadArgs {
    /// The policy's name, as `kerf status` shows it, or its file.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    mode: ModeArgs,
    #[command(flatten)]
    table: TableArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl UnloadArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        let shown = self.name.clone();
        self.execute().with_context(|| format!("unload {shown}"))
    }

    fn execute(&self) -> anyhow::Result<u8> {
        let mut live = Live::open()?;
        let status = live.status()?;
        let owned = |name: &str| -> Vec<String> {
            let by = |e: &&kerf_live::ActiveEntry| e.policy.as_ref().is_some_and(|p| p.owner == name);
            status.entries.iter().filter(by).map(|e| e.id.clone()).collect()
        };
        let of_file = name_of(Path::new(&self.name));
        let name = if owned(&self.name).is_empty() { of_file.as_str() } else { self.name.as_str() };
        let ids = owned(name);
        let (outcome, mode, why) = self.restore(&mut live, &status, name, &ids)?;
        policy::sweep_pins(&mut live)?;
        journal::record("unload", name, "", journal::unset(&status, &ids));
        if self.json {
            let mut object = serde_json::json!({ "policy": name, "unset": ids });
            mode_words::add_members(&mut object, mode, &outcome);
            print::json(&object)?;
            return Ok(0);
        }
        ids.iter().try_for_each(|id| print::text(&format!("{id}: stock")))?;
        print::text(&format!("{why}{}", mode_words::sentence(mode, &outcome)))?;
        Ok(0)
    }

    /// Takes it out, and says why for everybody at once if nobody asked for that.
    fn restore(
        &self,
        live: &mut Live,
        status: &Status,
        name: &str,
        ids: &[String],
    ) -> anyhow::Result<(Outcome, Mode, &'static str)> {
        let rows = match active_rows(self.table.open(), ids) {
            Err(error) if self.mode.wants_transition() => return Err(error),
            Err(_) => {
                let why = "no entry in the scope table: without a look at safe spans, ";
                return Ok((live.drop_policy(name, self.mode.timeout())?, Mode::Immediate, why));
            }
            Ok(rows) => rows,
        };
        let mut transaction = Transaction::new(status.build_id.clone());
        (transaction.timeout, transaction.drop) = (self.mode.timeout(), Some(name.to_owned()));
        transaction.mode = self.mode.choose(rows.iter().map(|(entry, _)| entry))?;
        if transaction.mode != Mode::Immediate {
            transaction.entries = stock_entries(&rows, status)?;
        }
        Ok((live.set(&transaction)?, transaction.mode, ""))
    }
}
