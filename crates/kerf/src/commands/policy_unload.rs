//! `kerf policy unload`: takes a policy out.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use kerf_live::{Live, policy};

use super::policy_words::name_of;
use crate::print;

pub const EXAMPLES: &str = "\
Examples:
  kerf policy unload plug
  kerf policy unload plug.bpf.c";

/// What to take out.
#[derive(Debug, Args)]
pub struct UnloadArgs {
    /// The policy's name, as `kerf status` shows it, or its file.
    #[arg(value_name = "NAME")]
    name: String,
    /// Seconds to wait for tasks to leave the code.
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=60))]
    timeout: u64,
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
        live.drop_policy(name, Duration::from_secs(self.timeout))?;
        policy::sweep_pins(&mut live)?;
        if self.json {
            print::json(&serde_json::json!({ "policy": name, "unset": ids }))?;
        } else {
            ids.iter().try_for_each(|id| print::text(&format!("{id}: stock")))?;
        }
        Ok(0)
    }
}
