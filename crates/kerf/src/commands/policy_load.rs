//! `kerf policy load`: lets a policy decide.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use kerf_const::ConstError;
use kerf_const::apply::{self, Setting};
use kerf_const::entry::Entry;
use kerf_live::policy::{self, Loaded, Object};
use kerf_live::{Live, LiveError, Mode, Status, Transaction};
use serde_json::json;

use super::const_words::{TableArgs, find_running, parse_value};
use super::guard_words::note;
use super::limit_words::LimitArgs;
use super::mode_words::{self, ModeArgs, active_rows, stock_entries};
use super::policy_words::{TypesArgs, compiled, name_of, parameters};
use crate::running_text::with_running;
use crate::{journal, print, running};

pub const EXAMPLES: &str = "\
Examples:
  kerf policy load plug.bpf.c
  kerf policy load plug.bpf.o --limit BLK_MAX_REQUEST_COUNT=1..64
  kerf policy load faster.bpf.c --replace plug
  kerf policy load plug.bpf.c --mode global --timeout 10
  kerf policy load plug.bpf.c --max-triggers 200000 --max-time 5

All constants of the file are decided from the same moment on, or none is. Programs beside (kprobes, tracepoints, fentry)
run as long as the policy is loaded. A decision outside the certified values or the limits is not carried out. A policy
that is asked more often than --max-triggers, or takes more of one CPU than --max-time per cent, is taken out by the
kernel module, and `kerf status` says why.";

/// What to load, and how.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// A policy: C source, or an object.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The name for `kerf policy unload` [default: the file's].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A policy that goes in the same moment. Values that were set by hand give way too.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    replace: Option<String>,
    /// Values that the policy may decide on, both ends included; one end may be left out.
    #[arg(long, value_name = "ID=MIN..MAX", value_parser = limit)]
    limit: Vec<Limit>,
    /// Why, for `kerf status` and `kerf log`: up to 200 characters, ASCII.
    #[arg(long, value_name = "TEXT", value_parser = note)]
    note: Option<String>,
    /// Check everything and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    mode: ModeArgs,
    #[command(flatten)]
    types: TypesArgs,
    #[command(flatten)]
    table: TableArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The user's own limits of a constant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limit {
    id: String,
    min: Option<i128>,
    max: Option<i128>,
}

fn limit(text: &str) -> Result<Limit, String> {
    let (id, range) = text.split_once('=').ok_or("give ID=MIN..MAX")?;
    let (min, max) = range.split_once("..").ok_or("give MIN..MAX; one end may be left out")?;
    let end = |text: &str| match text {
        "" => Ok(None),
        text => parse_value(text).map(Some).map_err(|error| error.to_string()),
    };
    let (min, max) = (end(min)?, end(max)?);
    match (min, max) {
        (Some(low), Some(high)) if low > high => Err(format!("{low} is more than {high}")),
        _ => Ok(Limit { id: id.to_owned(), min, max }),
    }
}

impl LoadArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        let shown = self.file.display().to_string();
        self.execute().with_context(|| format!("load {shown}"))
    }

    fn execute(&self) -> anyhow::Result<u8> {
        if !rustix::process::geteuid().is_root() {
            return Err(LiveError::NotPermitted.into());
        }
        let compiled = compiled(&self.file, &self.types, None)?;
        let object = &compiled.object;
        let entries = self.entries(object)?;
        let mut live = Live::open()?;
        let status = live.status()?;
        let name = self.name.clone().unwrap_or_else(|| name_of(&self.file));
        let loaded = policy::load(object, &name)?;
        let transaction = self.transaction(object, &entries, (&name, &loaded), &status)?;
        let outcome = live.set(&transaction)?;
        if !self.dry_run {
            policy::sweep_pins(&mut live)?;
            loaded.keep_pins(&name)?;
            journal::record("load", &name, &transaction.note, journal::decided(&transaction, &status, &name));
        }
        if self.json {
            let ids: Vec<&str> = entries.iter().map(Entry::label).collect();
            let mut told = json!({
                "policy": name, "dry_run": self.dry_run, "constants": ids, "replaced": transaction.drop,
                "beside": object.beside.len(),
            });
            mode_words::add_members(&mut told, transaction.mode, &outcome);
            print::json(&told)?;
            return Ok(0);
        }
        let dry = if self.dry_run { " (dry run: nothing was changed)" } else { "" };
        for entry in &transaction.entries {
            let what = match entry.locations.len() {
                0 => "stock".to_string(),
                places => format!("decided by {name}, {places} places"),
            };
            print::text(&format!("{}: {what}{dry}", entry.id))?;
        }
        if !self.dry_run {
            print::text(&mode_words::sentence(transaction.mode, &outcome))?;
        }
        Ok(0)
    }

    /// The entries of the running kernel, one for each program that decides.
    fn entries(&self, object: &Object) -> anyhow::Result<Vec<Entry>> {
        let table = self.table.open()?;
        let build = running::build_id()?;
        let entries: Vec<Entry> =
            object.tunes.iter().map(|tune| find_running(&table, &build, &tune.id)).collect::<anyhow::Result<_>>()?;
        for limit in &self.limit {
            let known = |e: &Entry| e.id == limit.id || e.label() == limit.id;
            if !entries.iter().any(known) {
                let why = "this policy does not decide it".into();
                return Err(ConstError::BadQuery { query: limit.id.clone(), why }.into());
            }
        }
        Ok(entries)
    }

    fn limits(&self, entry: &Entry) -> (Option<i128>, Option<i128>) {
        let own = self.limit.iter().filter(|l| l.id == entry.id || l.id == entry.label());
        own.fold((None, None), |(min, max), l| (l.min.or(min), l.max.or(max)))
    }

    /// Constants of the policy that goes which the new one does not decide.
    fn leaving(
        &self,
        entries: &[Entry],
        status: &Status,
        replaced: Option<&str>,
    ) -> anyhow::Result<Vec<(Entry, Setting)>> {
        let own = |e: &&kerf_live::ActiveEntry| e.policy.as_ref().is_some_and(|p| Some(p.owner.as_str()) == replaced);
        let stays = |id: &str| entries.iter().any(|entry| entry.label() == id);
        let ids = status.entries.iter().filter(own).map(|e| e.id.clone()).filter(|id| !stays(id));
        active_rows(self.table.open(), &ids.collect::<Vec<_>>())
    }

    fn transaction(
        &self,
        object: &Object,
        entries: &[Entry],
        (name, loaded): (&str, &Loaded),
        status: &Status,
    ) -> anyhow::Result<Transaction> {
        let mut transaction = Transaction::new(status.build_id.clone());
        transaction.owner = name.to_owned();
        transaction.timeout = self.mode.timeout();
        transaction.dry_run = self.dry_run;
        transaction.replace = self.replace.is_some();
        transaction.drop = self.replace.clone().filter(|name| !name.is_empty());
        transaction.hold = loaded.files().to_vec();
        transaction.note = self.note.clone().unwrap_or_default();
        transaction.limits = self.limits.limits();
        let leaving = self.leaving(entries, status, transaction.drop.as_deref())?;
        transaction.mode = self.mode.choose(entries.iter().chain(leaving.iter().map(|(entry, _)| entry)))?;
        if transaction.mode != Mode::Immediate {
            transaction.entries = stock_entries(&leaving, status)?;
        }
        for (tune, entry) in object.tunes.iter().zip(entries) {
            let program = loaded.program(&tune.program)?;
            let (limits, reads) = (self.limits(entry), parameters(tune));
            let make = |running: &apply::Running| apply::decided_entry(entry, program, limits, &reads, running);
            transaction.entries.push(with_running(entry, status, make)?);
        }
        Ok(transaction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let of = |min, max| Limit { id: "A".into(), min, max };
        assert_eq!(limit("A=1..64").unwrap(), of(Some(1), Some(64)));
        assert_eq!(limit("A=..0x10").unwrap(), of(None, Some(16)));
        assert_eq!(limit("A=1K..").unwrap(), of(Some(1024), None));
        for bad in ["A", "A=5", "A=9..1", "A=x..2"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
