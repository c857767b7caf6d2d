//! `kerf policy new`: the beginning of a policy.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use kerf_const::apply;
use kerf_const::entry::{Class, Entry};
use kerf_const::error::ConstError;

use super::const_words::{TableArgs, find_anywhere};
use super::policy_words::{program_name, visible};
use crate::print;

pub const EXAMPLES: &str = "\
Examples:
  kerf policy new BLK_MAX_REQUEST_COUNT -o plug.bpf.c
  kerf policy new HYSTART_DELAY_MIN HYSTART_DELAY_MAX

The file compiles as it is and keeps the stock values; fill in when to decide on others.";

/// For what.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Names or ids of constants.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// The file to write; it must not exist [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    table: TableArgs,
}

impl NewArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        let shown = self.ids.join(" ");
        let text = self.text().with_context(|| format!("write a policy for {shown}"))?;
        match &self.output {
            None => print::text(&text)?,
            Some(file) => {
                use std::io::Write as _;
                let opened = std::fs::File::options().write(true).create_new(true).open(file);
                let written = opened.and_then(|mut f| f.write_all(text.as_bytes()));
                written.with_context(|| format!("write {}", file.display()))?;
                print::text(&format!("{}: next, `kerf policy check {0}`", file.display()))?;
            }
        }
        Ok(0)
    }

    fn text(&self) -> anyhow::Result<String> {
        let table = self.table.open()?;
        let entries = self.ids.iter().map(|id| find_anywhere(&table, id)).collect::<anyhow::Result<Vec<_>>>()?;
        entries.iter().try_for_each(tunable)?;
        Ok(stub(&entries))
    }
}

fn tunable(entry: &Entry) -> Result<(), ConstError> {
    if entry.class == Class::Proved {
        return Ok(());
    }
    let class = entry.class.word().into();
    Err(ConstError::NotSettable { id: entry.label().into(), class, reason: entry.reason.clone() })
}

fn stub(entries: &[Entry]) -> String {
    let mut out =
        String::from("// SPDX-License-Identifier: GPL-2.0-only\n#include \"vmlinux.h\"\n#include \"kerf.bpf.h\"\n");
    for entry in entries {
        let _ = write!(out, "\n/*\n * {} = {}, certified {}\n", entry.label(), entry.value, apply::domain_text(entry));
        for line in visible(entry) {
            let _ = writeln!(out, " * {line}");
        }
        let _ = write!(
            out,
            " */\nXK_TUNE({}, \"{}\")\n{{\n\tif (!xk_transition_done(xk_ctx))\n\t\treturn 0;\n\t/* xk_set(xk_ctx, VALUE) when \
             another value than {} should be used. */\n\treturn 0;\n}}\n",
            program_name(entry),
            entry.id,
            entry.value
        );
    }
    out + "\nchar LICENSE[] SEC(\"license\") = \"GPL\";\n"
}
