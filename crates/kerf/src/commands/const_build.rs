//! `kerf const build`: from names to entries.

mod many;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::{ArgGroup, Args};
use kerf_const::ConstError;
use kerf_const::build::{Input, build};
use kerf_const::entry::Entry;
use kerf_const::many::scanned;
use kerf_const::scan::reasons;
use kerf_const::site::Query;
use kerf_const::tree::Tree;
use kerf_image::Image;
use kerf_lab::{Cache, Kernel};

use super::const_find::scan::Bar;
use super::const_words::TableArgs;
use crate::{exit, print, running};

pub const EXAMPLES: &str = "\
Examples:
  kerf const build BLK_MAX_REQUEST_COUNT MAX_SOFTIRQ_RESTART
  kerf const build net/ipv4/tcp_cubic.c:L405:3:0
  kerf const build SHRINK_BATCH --source /usr/src/linux-source-6.12 --image /boot/vmlinuz-6.12.43+deb12-amd64
  kerf const build SHRINK_BATCH --dry-run --json
  kerf const build block/mq-deadline.c:write_expire
  kerf const build mm/page_alloc.c:L5639:SZ_1M
  kerf const build RX_BUDGET --external /usr/src/mynic-1.4
  kerf const build --from constants.tsv --report classes.tsv
  kerf const build --all --html atlas.html
  kerf const build --all --score 60 block mm/vmscan.c

Without --source and --image, the kernel that `kerf lab fetch --source` got is used, else the running one with the
source in /usr/src. The exit code is 0 when every name was built, whatever its class.

FILE:Lline:NAME is one use of a macro: other uses of it keep their value.

A list has a name or place on each line, or columns divided by tabs under a header with `name`, and perhaps `file` and `place`. --all takes
the list that `kerf const find --scan` finds, best first; that is a matter of hours for the whole source. Each constant is stored when it is
done: a run that was interrupted goes on where it was, and what was tried before is left out.";

/// What is left of kept compilations after a build.
const KEPT_BYTES: u64 = 4 << 30;

/// What to build, and from what.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("many").args(["list", "all"]))]
pub struct BuildArgs {
    /// Names, names of one file FILE:NAME, or places FILE:Lline:value:index or FILE:Lline:NAME:index (the index may be left out). With
    /// --all: files and directories of the source to look at [default: all that is compiled].
    #[arg(required_unless_present = "many", value_name = "NAME|PATH")]
    names: Vec<String>,
    /// Build a list of constants, on all processors; `-` reads it from standard input.
    #[arg(long = "from", value_name = "FILE", conflicts_with_all = ["names", "dry_run"])]
    list: Option<PathBuf>,
    /// Build all constants that are likely to govern performance (see `kerf const find --scan`), on all processors.
    #[arg(long, conflicts_with = "dry_run")]
    all: bool,
    /// With --all: leave out what scores less, of 100.
    #[arg(long, value_name = "N", requires = "all", default_value_t = reasons::LIKELY)]
    score: u32,
    /// With --from and --all: also what was tried before.
    #[arg(long, requires = "many")]
    again: bool,
    /// With --from and --all: write a line for each constant, columns divided by tabs: query, class, spans, seconds, reason.
    #[arg(long, value_name = "FILE", requires = "many")]
    report: Option<PathBuf>,
    /// With --from and --all: write a page of all that the table has of this kernel, as `kerf const report` does.
    #[arg(long, value_name = "FILE", requires = "many")]
    html: Option<PathBuf>,
    #[command(flatten)]
    from: FromArgs,
    #[command(flatten)]
    table: TableArgs,
    /// Store nothing.
    #[arg(long)]
    dry_run: bool,
    /// Compile everything, also what was compiled before and is kept in the cache.
    #[arg(long)]
    anew: bool,
    /// Print JSON: an array of entries, each with the seconds it took.
    #[arg(long)]
    json: bool,
}

/// Source and image.
#[derive(Debug, Args)]
pub struct FromArgs {
    /// The prepared kernel source [default: the lab's, else /usr/src/linux-source-*].
    #[arg(long, value_name = "TREE")]
    pub source: Option<PathBuf>,
    /// The deployed kernel image [default: the lab's, else /boot/vmlinuz-RELEASE].
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// The deployed modules, a directory lib/modules/RELEASE [default: those that belong to the image].
    #[arg(long, value_name = "DIR")]
    pub modules: Option<PathBuf>,
    /// The source of a module that is not in the kernel's tree, built: its NAME.ko lies there, or in --modules.
    #[arg(long, value_name = "DIR", conflicts_with = "source")]
    pub external: Option<PathBuf>,
    /// With --external: the headers that it was built against [default: the lab's, else /lib/modules/RELEASE/build].
    #[arg(long, value_name = "DIR", requires = "external")]
    pub headers: Option<PathBuf>,
}

/// What [`FromArgs`] names, opened.
pub struct Opened {
    pub tree: Tree,
    pub image: Image,
    pub modules: Option<PathBuf>,
}

impl FromArgs {
    /// Opens source and image.
    pub fn open(&self) -> anyhow::Result<Opened> {
        let mut tree = match &self.external {
            Some(source) => self.external_tree(source)?,
            None => Tree::open(&self.source.clone().map_or_else(default_tree, Ok)?)?,
        };
        // Without a place for it everything is compiled each time.
        if let Ok(cache) = Cache::open_default() {
            tree = tree.keeping(cache.objects());
        }
        let path = match &self.image {
            Some(image) => image.clone(),
            None => default_image(&tree)?,
        };
        let image = Image::open(&path).map_err(ConstError::from)?;
        let modules = self.modules.clone().or_else(|| self.external.clone()).or_else(|| modules_of(&path));
        Ok(Opened { tree, image, modules })
    }

    /// The source of a module, with the headers that were named, the lab's for the image that was named, or the running kernel's.
    fn external_tree(&self, source: &Path) -> anyhow::Result<Tree> {
        if let Some(headers) = &self.headers {
            return Ok(Tree::external(source, headers, None)?);
        }
        let (release, kernels) = (running::release(), cached_kernels());
        let named = |kernel: &&Kernel| self.image.as_ref().is_none_or(|image| *image == kernel.vmlinuz);
        let kernel = kernels.iter().filter(named).find(|k| k.release == release).or(kernels.iter().rfind(named));
        match kernel.and_then(|kernel| Some((kernel, kernel.headers.as_ref()?))) {
            Some((kernel, headers)) => {
                Ok(Tree::external(source, headers, Some(kerf_lab::module::makefile(&kernel.root, headers)))?)
            }
            None => Ok(Tree::external(source, &running::headers(), None)?),
        }
    }
}

impl Opened {
    /// As the analysis wants it.
    pub fn input(&self) -> Input<'_> {
        Input { tree: &self.tree, image: &self.image, modules: self.modules.as_deref() }
    }
}

/// Kernels of the lab's cache that have their source, newest last; other flavours come before all plain ones.
pub fn cached_kernels() -> Vec<Kernel> {
    let Ok(cache) = Cache::open_default() else { return Vec::new() };
    let releases = cache.releases();
    let kernels = releases.iter().filter_map(|release| Kernel::cached(&cache, release).ok());
    by_default(kernels.filter(|kernel| kernel.source.is_some()).collect())
}

/// In the order in which they are the default: a flavour that was fetched beside the plain kernel does not become it.
fn by_default(mut kernels: Vec<Kernel>) -> Vec<Kernel> {
    kernels.sort_by_key(Kernel::is_plain);
    kernels
}

/// The running kernel's source if the cache has it, else the newest there, else what a package installed.
pub fn default_tree() -> anyhow::Result<PathBuf> {
    let release = running::release();
    let kernels = cached_kernels();
    let kernel = kernels.iter().find(|k| k.release == release).or(kernels.last());
    if let Some(source) = kernel.and_then(|k| k.source.clone()) {
        return Ok(source);
    }
    let mut installed: Vec<PathBuf> = std::fs::read_dir("/usr/src")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("Kbuild").is_file() && path.join(".config").is_file())
        .collect();
    installed.sort();
    installed.pop().ok_or_else(|| {
        let why =
            "there is no prepared kernel source in the cache or in /usr/src: `kerf lab fetch --source` gets one, \
                   --source names another"
                .into();
        ConstError::BadTree { tree: "/usr/src".into(), why }.into()
    })
}

/// The image that belongs to a source tree.
fn default_image(tree: &Tree) -> anyhow::Result<PathBuf> {
    let release = running::release();
    let deployed = PathBuf::from(format!("/boot/vmlinuz-{release}"));
    let kernels = cached_kernels();
    let own = kernels.iter().find(|k| k.source.as_deref() == Some(tree.root()));
    let same_version = || kernels.iter().rev().find(|k| k.release.starts_with(tree.version()));
    let cached = own.or_else(same_version).map(|k| k.vmlinuz.clone());
    match cached {
        Some(_) if release.starts_with(tree.version()) && deployed.is_file() => Ok(deployed),
        Some(image) => Ok(image),
        None if deployed.is_file() => Ok(deployed),
        None => anyhow::bail!("no kernel image of version {} is at hand: name it with --image", tree.version()),
    }
}

/// `lib/modules/RELEASE` beside an image `boot/vmlinuz-RELEASE`.
pub fn modules_of(image: &Path) -> Option<PathBuf> {
    let image = std::path::absolute(image).ok()?;
    let release = image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
    let directory = image.parent()?.parent()?.join("lib/modules").join(release);
    directory.is_dir().then_some(directory)
}

/// What one name gave.
struct Built {
    entry: Entry,
    seconds: f64,
}

impl BuildArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        let mut opened = self.from.open().context("build constants")?;
        if self.anew {
            opened.tree = opened.tree.keeping_nothing();
        }
        if self.list.is_some() || self.all {
            let built = self.many(&opened);
            return self.pruned(&opened, built);
        }
        let mut built = Vec::new();
        let mut first_error = 0;
        for name in &self.names {
            match self.build(&opened, name) {
                Ok(entries) => built.extend(entries),
                Err(error) => {
                    let error = anyhow::Error::new(error).context(format!("build {name}"));
                    eprintln!("kerf: failed to {error:#}");
                    first_error = if first_error == 0 { exit::ExitCode::of(&error) as u8 } else { first_error };
                }
            }
        }
        let printed = self.print(&built).context("print the entries");
        self.pruned(&opened, printed.map(|()| first_error))
    }

    fn many(&self, opened: &Opened) -> anyhow::Result<u8> {
        let what = match &self.list {
            Some(file) => format!("build the constants of {}", file.display()),
            None => "build all constants".into(),
        };
        let queries = match &self.list {
            Some(file) => many::read(file),
            None => scanned(&opened.tree, &self.names, self.score, &Bar::default()).map_err(Into::into),
        };
        let built = queries.and_then(|queries| {
            let (report, page) = (self.report.as_deref(), self.html.as_deref());
            let wanted = many::Wanted { queries, table: &self.table, again: self.again, report, page, json: self.json };
            many::build(opened, &wanted)
        });
        built.context(what)
    }

    /// The result, once no more compilations are kept than should be.
    fn pruned<T>(&self, opened: &Opened, result: T) -> T {
        if let Some(kept) = opened.tree.kept() {
            kept.prune(KEPT_BYTES);
        }
        result
    }

    fn build(&self, opened: &Opened, name: &str) -> Result<Vec<Built>, ConstError> {
        let start = Instant::now();
        let spinner = print::Spinner::start(&format!("building {name}"));
        let entries = Query::parse(name).and_then(|query| build(&opened.input(), &query))?;
        drop(spinner);
        // Each name is stored when it is done, so that a later failure loses nothing.
        if !self.dry_run {
            self.table.create().map_err(constant_error)?.store(&entries)?;
        }
        let seconds = (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        Ok(entries.into_iter().map(|entry| Built { entry, seconds }).collect())
    }

    fn print(&self, built: &[Built]) -> anyhow::Result<()> {
        if self.json {
            let rows: Vec<serde_json::Value> = built.iter().map(row).collect::<Result<_, _>>()?;
            return print::json(&rows);
        }
        for Built { entry, seconds } in built {
            let mut line = format!("{} = {}: {} ({seconds:.1} s)", entry.label(), entry.value, entry.class.word());
            if !entry.domain.is_empty() {
                line += &format!(", domain {}", kerf_const::apply::domain_text(entry));
            }
            print::text(&format!("{line}\n  {} {}", entry.id, entry.reason))?;
        }
        Ok(())
    }
}

fn row(built: &Built) -> anyhow::Result<serde_json::Value> {
    let mut value = serde_json::to_value(&built.entry)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("seconds".into(), built.seconds.into());
    }
    Ok(value)
}

fn constant_error(error: anyhow::Error) -> ConstError {
    error.downcast().unwrap_or_else(|other| ConstError::Internal(other.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flavour_beside_the_plain_kernel_is_not_the_default() {
        let kernel = |release: &str| Kernel {
            release: release.into(),
            version: "1".into(),
            vmlinuz: PathBuf::new(),
            config: None,
            modules_dir: None,
            headers: None,
            source: None,
            root: PathBuf::new(),
        };
        let releases = ["6.12.1+deb12-amd64", "6.12.2+deb12-amd64", "6.12.2+deb12-cloud-amd64"];
        let ordered = by_default(releases.iter().map(|release| kernel(release)).collect());
        assert_eq!(ordered.last().unwrap().release, "6.12.2+deb12-amd64");
    }

    #[test]
    fn modules_lie_beside_the_image() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("lib/modules/6.1-x")).unwrap();
        assert_eq!(modules_of(&dir.path().join("boot/vmlinuz-6.1-x")), Some(dir.path().join("lib/modules/6.1-x")));
        assert_eq!(modules_of(&dir.path().join("boot/vmlinuz-6.2-x")), None);
    }
}
