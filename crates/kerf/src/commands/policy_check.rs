//! `kerf policy check`: is this a policy that could be loaded?

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use kerf_const::apply::{self, Running};
use kerf_const::entry::Entry;
use kerf_live::policy::{self, Tune};
use serde_json::json;

use super::const_words::{TableArgs, find_anywhere};
use super::policy_words::{TypesArgs, compiled, name_of, parameters};
use crate::{print, running};

pub const EXAMPLES: &str = "\
Examples:
  kerf policy check plug.bpf.c
  kerf policy check plug.bpf.c --image /boot/vmlinuz-6.12.43+deb12-amd64 -o plug.bpf.o

The policy is compiled, its constants are looked up in the scope table, and the arguments that it reads must be there at
every place of the constant. As root on the kernel that the entries are of, the kernel's verifier is asked too.";

/// What to check.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A policy: C source, or an object.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the object goes, for `kerf policy load` on a machine without a compiler.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    types: TypesArgs,
    #[command(flatten)]
    table: TableArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl CheckArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        let shown = self.file.display().to_string();
        self.execute().with_context(|| format!("check {shown}"))
    }

    fn execute(&self) -> anyhow::Result<u8> {
        let compiled = compiled(&self.file, &self.types, self.output.as_deref())?;
        let object = &compiled.object;
        let table = self.table.open()?;
        let mut found = Vec::new();
        for tune in &object.tunes {
            let entry = find_anywhere(&table, &tune.id)?;
            check(&entry, tune)?;
            found.push((tune, entry));
        }
        let own = running::build_id().unwrap_or_default();
        let here = found.iter().all(|(_, entry)| entry.image.build_id == own);
        let verified = here && rustix::process::geteuid().is_root();
        if verified {
            policy::verify(object)?;
        }
        if self.json {
            let tunes: Vec<_> = found
                .iter()
                .map(|(tune, e)| {
                    let reads: Vec<usize> = parameters(tune).into_iter().map(|n| n + 1).collect();
                    json!({ "program": tune.program, "id": e.id, "name": e.name, "spans": e.spans.len(), "reads": reads })
                })
                .collect();
            let beside: Vec<&str> = object.beside.iter().map(|b| b.program.as_str()).collect();
            let warnings = &compiled.warnings;
            print::json(&json!({
                "policy": name_of(&self.file), "tunes": tunes, "beside": beside, "verified": verified, "warnings": warnings,
            }))?;
            return Ok(0);
        }
        if !compiled.warnings.is_empty() {
            print::text(&compiled.warnings)?;
        }
        let rows = found.iter().map(|(tune, entry)| row(tune, entry));
        print::text(&print::table(&["PROGRAM", "CONSTANT", "STOCK", "PLACES", "READS", "CERTIFIED"], rows))?;
        for beside in &object.beside {
            print::text(&format!("beside: {}, {}", beside.program, beside.attach))?;
        }
        let verdict = if verified { "the kernel's verifier accepts it" } else { "the kernel's verifier was not asked" };
        print::text(&format!("{}: {verdict}", name_of(&self.file)))?;
        Ok(0)
    }
}

fn row(tune: &Tune, entry: &Entry) -> Vec<String> {
    let reads: Vec<String> = parameters(tune).into_iter().map(|n| format!("PARM{}", n + 1)).collect();
    let reads = if reads.is_empty() { "no argument".into() } else { reads.join(" ") };
    let places = entry.spans.len().to_string();
    vec![tune.program.clone(), entry.label().into(), entry.value.to_string(), places, reads, apply::domain_text(entry)]
}

/// Whether the constant can be decided by this program at all its places, as far as that does not depend on a running kernel.
fn check(entry: &Entry, tune: &Tune) -> anyhow::Result<()> {
    // Where a module lies is not known, and does not matter to what is checked here.
    let mut alone = entry.clone();
    alone.image.module = None;
    apply::decided_entry(&alone, 0, (None, None), &parameters(tune), &Running::default())?;
    Ok(())
}
