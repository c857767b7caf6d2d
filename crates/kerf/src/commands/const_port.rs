//! `kerf const port`: entries carried over to another build of the kernel, and what must be built again there.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use kerf_const::ConstError;
use kerf_const::entry::Entry;
use kerf_const::port::{Build, Evidence, Porter};
use kerf_const::table::Table;
use kerf_const::tree::Tree;
use kerf_image::Image;
use kerf_lab::{Cache, Kernel};
use serde::Serialize;

use super::const_words::{TableArgs, which_build};
use crate::{exit, print};

pub const EXAMPLES: &str = "\
Examples:
  kerf const port --all --to 6.12.117+deb12-cloud-amd64
  kerf const port BLK_MAX_REQUEST_COUNT --to /boot/vmlinuz-6.12.43+deb12-amd64 --source /usr/src/linux-source-6.12
  kerf const port --all --to 6.12.117+deb12-cloud-amd64 --json

Nothing is compiled. An entry is carried over where the machine code of all that its proofs looked at is the same in both images,
addresses aside, and where what the compiler gets for it is the same source; docs/porting.md has the argument. For the others the
command that builds them is printed, and the exit code is 35.";

/// Which entries, from where and to where.
#[derive(Debug, Args)]
pub struct PortArgs {
    /// Names, ids, or FILE:Lline.
    #[arg(required_unless_present = "all", value_name = "ID")]
    ids: Vec<String>,
    /// All entries of the build to port from.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// The kernel to port to: an image, or the release of a cached kernel.
    #[arg(long, value_name = "IMAGE|RELEASE")]
    to: String,
    /// The prepared source of that kernel [default: the lab's].
    #[arg(long, value_name = "TREE")]
    source: Option<PathBuf>,
    /// The build to port from, or its first digits [default: the table's only other one].
    #[arg(long, value_name = "ID")]
    build_id: Option<String>,
    /// The image of the build to port from [default: the lab's, else /boot/vmlinuz-RELEASE].
    #[arg(long, value_name = "IMAGE|RELEASE")]
    from: Option<String>,
    /// The prepared source of the build to port from [default: the lab's].
    #[arg(long, value_name = "TREE")]
    from_source: Option<PathBuf>,
    /// Where a source is not at hand, take it to be the same; the entry says so.
    #[arg(long)]
    assume_source: bool,
    #[command(flatten)]
    table: TableArgs,
    /// Store nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One of the two kernels, opened.
struct Side {
    path: PathBuf,
    image: Image,
    tree: Option<Tree>,
}

/// What became of an entry.
#[derive(Serialize)]
struct Row {
    id: String,
    name: Option<String>,
    carried: bool,
    /// Why it must be built again.
    why: Option<String>,
    /// The words that build it.
    command: Option<String>,
    seconds: f64,
}

/// A build, as JSON tells it.
#[derive(Serialize)]
struct Told {
    build_id: String,
    release: String,
}

impl PortArgs {
    /// Does it; goes on behind an entry that must be built again.
    pub fn run(self) -> anyhow::Result<u8> {
        self.execute().with_context(|| format!("port to {}", self.to))
    }

    fn execute(&self) -> anyhow::Result<u8> {
        let table = self.table.open()?;
        let new = Side::open(&self.to, self.source.as_deref())?;
        let own = build_id(&new.image);
        let Some((build, release)) = self.origin(&table, &own)? else {
            return self.nothing(&new);
        };
        let entries: Vec<Entry> = match self.all {
            true => table.entries(Some(&build))?,
            false => self.ids.iter().map(|id| table.find(&build, id)).collect::<Result<_, _>>()?,
        };
        let old = self.old(&build, &release)?;
        let porter = Porter::new(old.build(), new.build())?;
        let assumed = self.assume_source && (old.tree.is_none() || new.tree.is_none());
        let evidence = if assumed { Evidence::Assumed } else { Evidence::Source };
        let (mut rows, mut carried) = (Vec::new(), Vec::new());
        for entry in &entries {
            let start = Instant::now();
            let spinner = print::Spinner::start(&format!("porting {}", entry.label()));
            let outcome = porter.port(entry, evidence).with_context(|| format!("port {}", entry.label()))?;
            drop(spinner);
            let seconds = (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
            let why = outcome.as_ref().err().cloned();
            let command = why.as_ref().map(|_| self.command(entry, &new));
            let (id, name) = (entry.id.clone(), entry.name.clone());
            rows.push(Row { id, name, carried: outcome.is_ok(), why, command, seconds });
            carried.extend(outcome.ok());
        }
        drop(table);
        if !self.dry_run && !carried.is_empty() {
            self.table.create()?.store(&carried)?;
        }
        let from = Told { build_id: build, release };
        self.print(&from, &Told { build_id: own, release: new.image.release().unwrap_or_default().into() }, &rows)?;
        Ok(if rows.iter().all(|row| row.carried) { 0 } else { exit::ExitCode::SomeFailed as u8 })
    }

    /// The build to port from; nothing if the table has none but the one to port to.
    fn origin(&self, table: &Table, own: &str) -> anyhow::Result<Option<(String, String)>> {
        let builds = table.builds()?;
        let wanted = self.build_id.as_deref().unwrap_or_default();
        let mut matching: Vec<&(String, String)> = builds.iter().filter(|(id, _)| id.starts_with(wanted)).collect();
        if matching.iter().any(|(id, _)| id == own) {
            matching.retain(|(id, _)| id != own);
            if matching.is_empty() {
                return Ok(None);
            }
        }
        match matching[..] {
            [] if builds.is_empty() => {
                let why =
                    "it has no entries: `kerf const build` makes some, `kerf const import` takes them from elsewhere";
                Err(ConstError::Table { path: table.path().into(), why: why.into() }.into())
            }
            [only] => Ok(Some(only.clone())),
            _ => Err(which_build(&builds, self.build_id.as_deref()).into()),
        }
    }

    fn nothing(&self, new: &Side) -> anyhow::Result<u8> {
        let own = Told { build_id: build_id(&new.image), release: new.image.release().unwrap_or_default().into() };
        if self.json {
            self.print(&own, &own, &[])?;
        } else {
            print::text(&format!("nothing to do: the table's entries are of {}, build {}", own.release, own.build_id))?;
        }
        Ok(0)
    }

    /// The kernel to port from. Its image must be the one that the entries are of.
    fn old(&self, build: &str, release: &str) -> anyhow::Result<Side> {
        let deployed = format!("/boot/vmlinuz-{release}");
        let cached = || Cache::open_default().is_ok_and(|cache| Kernel::cached(&cache, release).is_ok());
        let name = match &self.from {
            Some(name) => name.as_str(),
            None if !cached() && Path::new(&deployed).is_file() => &deployed,
            None => release,
        };
        let side = Side::open(name, self.from_source.as_deref())
            .with_context(|| format!("open the image of {release} (another one is named with --from)"))?;
        let own = build_id(&side.image);
        if own != build {
            let why = format!(
                "{} is build {own}, and the entries are of build {build}: name theirs with --from",
                side.path.display()
            );
            return Err(kerf_live::LiveError::OtherKernel(why).into());
        }
        Ok(side)
    }

    /// The words that build an entry on the new kernel.
    fn command(&self, entry: &Entry, new: &Side) -> String {
        let source = match &new.tree {
            Some(tree) => tree.root().display().to_string(),
            None => "TREE".into(),
        };
        // A line may be another one in another version; a name is not.
        let what = entry.name.as_ref().map_or_else(|| entry.id.clone(), |name| format!("{}:{name}", entry.file));
        format!("kerf const build {what} --source {source} --image {}{}", new.path.display(), self.table.typed())
    }

    fn print(&self, from: &Told, to: &Told, rows: &[Row]) -> anyhow::Result<()> {
        let carried = rows.iter().filter(|row| row.carried).count();
        if self.json {
            return print::json(&serde_json::json!({ "from": from, "to": to, "carried": carried, "entries": rows }));
        }
        for row in rows {
            let label = row.name.as_deref().unwrap_or(&row.id);
            match (&row.why, &row.command) {
                (Some(why), Some(command)) => print::text(&format!("{label}: build again: {why}\n  {command}"))?,
                _ => print::text(&format!("{label}: carried over"))?,
            }
        }
        print::text(&format!("{carried} of {} entries of {} hold on {}", rows.len(), from.release, to.release))
    }
}

impl Side {
    fn open(name: &str, source: Option<&Path>) -> anyhow::Result<Side> {
        // An image need not be one that can be booted.
        let (path, own) = match Path::new(name).is_file() {
            true => (PathBuf::from(name), None),
            false => {
                let kernel = Kernel::cached(&Cache::open_default()?, name)?;
                (kernel.vmlinuz, kernel.source)
            }
        };
        let image = Image::open(&path).map_err(ConstError::from)?;
        let tree = source.map(Path::to_path_buf).or(own).map(|root| Tree::open(&root)).transpose()?;
        Ok(Side { path, image, tree })
    }

    fn build(&self) -> Build<'_> {
        Build { image: &self.image, tree: self.tree.as_ref() }
    }
}

fn build_id(image: &Image) -> String {
    image.build_id().map(|id| id.to_string()).unwrap_or_default()
}
