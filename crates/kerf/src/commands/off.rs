//! `kerf off`: everything stock again, and the module gone. Needs neither the scope table nor the drop-ins.

use anyhow::Context;
use clap::Args;
use kerf_live::{Live, LiveError, module, policy};
use serde_json::json;

use crate::{journal, print};

pub const EXAMPLES: &str = "\
Examples:
  kerf off
  kerf off --dry-run
  kerf off --keep-module

All constants get their stock values back and all policies go, in one moment, whoever has set them. Nothing is read but what the
module itself knows, so this works from a rescue shell, too. To keep it so after the next boot, also
`systemctl disable kerf` or take the files out of /etc/kerf.d.";

/// How far back.
#[derive(Debug, Args)]
pub struct OffArgs {
    /// Leave the kernel module loaded.
    #[arg(long)]
    keep_module: bool,
    /// Say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl OffArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        self.execute().context("make everything stock again")
    }

    fn execute(&self) -> anyhow::Result<u8> {
        if !rustix::process::geteuid().is_root() {
            return Err(LiveError::NotPermitted.into());
        }
        if !module::is_loaded() {
            return self.say(&[], false, "no module loaded: everything is stock");
        }
        let mut live = Live::open()?;
        let status = live.status()?;
        let ids: Vec<String> = status.entries.iter().map(|entry| entry.id.clone()).collect();
        if self.dry_run {
            return self.say(&ids, !self.keep_module, "dry run: nothing was changed");
        }
        if !ids.is_empty() {
            live.unset_all()?;
            journal::record("off", "", "", journal::unset(&status, &ids));
        }
        policy::sweep_pins(&mut live)?;
        // The module cannot go while its device is open.
        drop(live);
        if !self.keep_module {
            module::unload()?;
        }
        self.say(&ids, !self.keep_module, "everything is stock")
    }

    fn say(&self, ids: &[String], unloaded: bool, sentence: &str) -> anyhow::Result<u8> {
        if self.json {
            let object = json!({ "dry_run": self.dry_run, "unset": ids, "module_unloaded": unloaded });
            print::json(&object)?;
            return Ok(0);
        }
        ids.iter().try_for_each(|id| print::text(&format!("{id}: stock")))?;
        if unloaded {
            print::text("the kernel module: unloaded")?;
        }
        print::text(sentence)?;
        Ok(0)
    }
}
