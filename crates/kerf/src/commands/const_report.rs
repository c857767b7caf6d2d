//! `kerf const report`: what a scope table says as a whole, as a page, as figures, or as JSON.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use kerf_const::ConstError;
use kerf_const::table::Table;
use kerf_image::Image;
use kerf_lab::{Cache, Kernel};
use kerf_live::LiveError;

use super::const_build::modules_of;
use super::const_words::{TableArgs, choose_build};
use crate::print;

mod figures;
mod gather;
mod page;
mod paper;
mod plots;
mod rows;

use figures::Figures;
pub use gather::Images;

pub const EXAMPLES: &str = "\
Examples:
  kerf const report
  kerf const report -o atlas.html
  kerf const report --table scope.db --json

The page is one file that needs no network: distributions beside those that the Xkernel paper gives, where the numbers of each span
go, and all entries, to search and to sort. With the kernel's image at hand, the entries are compared with it and the sizes of
functions are shown.";

/// Which table, and where to.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Write the page to this file.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    table: TableArgs,
    /// The kernel's build id, or its first digits [default: the running kernel's, else the table's only one].
    #[arg(long, value_name = "ID")]
    build_id: Option<String>,
    /// The kernel image of the entries [default: the lab's or /boot/vmlinuz-RELEASE, if it is that build].
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The deployed modules, a directory lib/modules/RELEASE [default: those that belong to the image].
    #[arg(long, value_name = "DIR", requires = "image")]
    modules: Option<PathBuf>,
    /// Print JSON: the figures.
    #[arg(long)]
    json: bool,
}

impl ReportArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        self.execute().context("report on the scope table")?;
        Ok(0)
    }

    fn execute(&self) -> anyhow::Result<()> {
        let table = self.table.open()?;
        let build = choose_build(&table, self.build_id.as_deref())?;
        let release = table.builds()?.into_iter().find(|(id, _)| *id == build).map(|(_, release)| release);
        let found = self.image(&build, &release.unwrap_or_default())?;
        let images = found.as_ref().map(|(core, modules)| Images { core, modules: modules.as_deref() });
        let gathered = gathered(&table, &build, images.as_ref())?;
        let figures = Figures::of(&gathered);
        if let Some(file) = &self.output {
            write(file, &page::html(&gathered, &figures))?;
        }
        if self.json {
            return print::json(&figures);
        }
        print::text(&print::table(&["", "HERE", "IN THE PAPER"], figures.lines()))?;
        match &self.output {
            Some(file) => print::text(&format!("written to {}", file.display())),
            None => print::text("-o FILE writes them as a page, with plots and all entries"),
        }
    }

    /// The image of the entries and the directory of its modules, if it is at hand.
    fn image(&self, build: &str, release: &str) -> anyhow::Result<Option<(Image, Option<PathBuf>)>> {
        let is_own = |image: &Image| image.build_id().is_some_and(|id| id.to_string() == build);
        if let Some(path) = &self.image {
            let image = Image::open(path).map_err(ConstError::from)?;
            if !is_own(&image) {
                let why = format!("the entries are of build {build}, {} is another: name their own", path.display());
                return Err(LiveError::OtherKernel(why).into());
            }
            return Ok(Some((image, self.modules.clone().or_else(|| modules_of(path)))));
        }
        let cached = Cache::open_default().ok().and_then(|cache| Kernel::cached(&cache, release).ok());
        let installed = PathBuf::from(format!("/boot/vmlinuz-{release}"));
        let paths = cached.map(|kernel| kernel.vmlinuz).into_iter().chain([installed]);
        let mut opened = paths.filter_map(|path| Some((Image::open(&path).ok().filter(is_own)?, modules_of(&path))));
        Ok(opened.next())
    }
}

/// All that is shown, with a sign of life.
fn gathered(table: &Table, build: &str, images: Option<&Images>) -> anyhow::Result<gather::Gathered> {
    let _spinner = print::Spinner::start("looking where the numbers of each span go");
    gather::gather(table, build, images)
}

/// Writes the page of a table for one kernel, whose images are at hand.
pub fn write_page(file: &Path, table: &Table, build: &str, images: &Images) -> anyhow::Result<()> {
    let gathered = gathered(table, build, Some(images))?;
    write(file, &page::html(&gathered, &Figures::of(&gathered)))
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests;
