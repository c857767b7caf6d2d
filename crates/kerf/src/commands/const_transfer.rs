//! `kerf const export` and `kerf const import`: entries on their way to other machines.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use kerf_const::entry::Entry;
use kerf_const::{ConstError, export};
use kerf_image::Image;
use kerf_live::LiveError;

use super::const_words::{TableArgs, choose_build};
use crate::{print, running};

pub const EXPORT_EXAMPLES: &str = "\
Examples:
  kerf const export scope.json
  kerf const export scope.json --build-id 764949bb";

pub const IMPORT_EXAMPLES: &str = "\
Examples:
  kerf const import scope.json
  kerf const import scope.json --image /boot/vmlinuz-6.12.43+deb12-amd64";

/// Where to.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The file to write.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The kernel's build id, or its first digits [default: the running kernel's, else the table's only one].
    #[arg(long, value_name = "ID")]
    build_id: Option<String>,
    #[command(flatten)]
    table: TableArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Where from.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file to read.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The kernel image to compare the entries with.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    #[command(flatten)]
    table: TableArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl ExportArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        self.execute().with_context(|| format!("export to {}", self.file.display()))
    }

    fn execute(&self) -> anyhow::Result<u8> {
        let table = self.table.open()?;
        let build = choose_build(&table, self.build_id.as_deref())?;
        let entries = table.entries(Some(&build))?;
        fs::write(&self.file, export::export(&build, &entries)?).map_err(|source| ConstError::Io {
            what: "write",
            path: self.file.clone(),
            source,
        })?;
        report("wrote", "exported", &entries, self.json)
    }
}

impl ImportArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        self.execute().with_context(|| format!("import {}", self.file.display()))
    }

    fn execute(&self) -> anyhow::Result<u8> {
        let text = fs::read_to_string(&self.file).map_err(|source| ConstError::Io {
            what: "read",
            path: self.file.clone(),
            source,
        })?;
        let image = match &self.image {
            Some(path) => Some(Image::open(path).map_err(ConstError::from)?),
            None => Image::open(format!("/boot/vmlinuz-{}", running::release()).as_ref()).ok(),
        };
        let entries = export::import(&self.file, &text, image.as_ref())?;
        if self.image.is_some() {
            compared(&entries, image.as_ref())?;
        }
        self.table.create()?.store(&entries)?;
        report("took", "imported", &entries, self.json)?;
        let own = running::build_id().unwrap_or_default();
        if !self.json && !entries.iter().any(|e| e.image.build_id == own) {
            eprintln!("kerf: none of them is of the running kernel {}", running::release());
        }
        Ok(0)
    }
}

/// An image that was named has to be the one that the entries are of: else nothing was compared with it.
fn compared(entries: &[Entry], image: Option<&Image>) -> anyhow::Result<()> {
    let own = image.and_then(Image::build_id).map(|id| id.to_string()).unwrap_or_default();
    match entries.iter().find(|entry| entry.image.build_id != own) {
        Some(entry) => {
            let (release, build) = (&entry.image.release, &entry.image.build_id);
            let why =
                format!("the entries are of {release}, build {build}, and the image has build {own}: name theirs");
            Err(LiveError::OtherKernel(why).into())
        }
        None => Ok(()),
    }
}

/// Says how many entries of which kernels went over.
fn report(verb: &str, key: &str, entries: &[Entry], json: bool) -> anyhow::Result<u8> {
    let counts = export::count(entries);
    if json {
        let rows: Vec<_> = counts
            .iter()
            .map(|((build, release), n)| serde_json::json!({ "build_id": build, "release": release, "entries": n }))
            .collect();
        print::json(&serde_json::json!({ key: rows }))?;
    } else {
        let what = |n: usize| if n == 1 { "1 entry".to_string() } else { format!("{n} entries") };
        for ((build, release), n) in counts {
            print::text(&format!("{verb} {} of {release}, build {build}", what(n)))?;
        }
    }
    Ok(0)
}
