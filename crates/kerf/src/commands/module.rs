//! `kerf module`: builds, loads and unloads kerf.ko.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use kerf_live::{Live, LiveError, module};

use crate::{print, running};

const EXAMPLES: &str = "\
Examples:
  kerf module load
  kerf module load ./kerf.ko
  kerf module build --headers /usr/src/linux-headers-6.12.43+deb12-amd64 -o .
  kerf module unload";

/// What can be done with the module.
#[derive(Debug, Subcommand)]
pub enum ModuleCommand {
    /// Build the module from the source that this program carries.
    #[command(after_help = EXAMPLES)]
    Build(BuildArgs),
    /// Load the module; it is built first where that was not done yet.
    #[command(after_help = EXAMPLES)]
    Load(LoadArgs),
    /// Unload the module.
    #[command(after_help = EXAMPLES)]
    Unload(UnloadArgs),
}

/// Against what to build, and where.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Headers of the kernel [default: /lib/modules/RELEASE/build].
    #[arg(long, value_name = "DIR")]
    headers: Option<PathBuf>,
    /// The directory to build in [default: /var/lib/kerf/module/RELEASE for root, else in the current directory].
    #[arg(long, short, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What to load.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// A built kerf.ko.
    #[arg(value_name = "FILE", conflicts_with = "headers")]
    file: Option<PathBuf>,
    /// Headers of the running kernel [default: /lib/modules/RELEASE/build].
    #[arg(long, value_name = "DIR")]
    headers: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How to report.
#[derive(Debug, Args)]
pub struct UnloadArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl ModuleCommand {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        match self {
            ModuleCommand::Build(args) => args.run().context("build the kernel module"),
            ModuleCommand::Load(args) => args.run().context("load the kernel module"),
            ModuleCommand::Unload(args) => args.run().context("unload the kernel module"),
        }
    }
}

/// Where root's module for the running kernel is kept.
fn home() -> PathBuf {
    Path::new("/var/lib/kerf/module").join(running::release())
}

/// Where a package, or an administrator, puts the module for the running kernel.
fn installed() -> PathBuf {
    Path::new("/lib/modules").join(running::release()).join("extra/kerf.ko")
}

/// A module that needs nothing but to be loaded.
pub fn ready() -> Option<PathBuf> {
    module::built(&home()).or_else(|| Some(installed()).filter(|file| file.is_file()))
}

fn build(headers: Option<&Path>, out: &Path) -> Result<PathBuf, LiveError> {
    let headers = headers.map_or_else(running::headers, Path::to_owned);
    let _spinner = print::Spinner::start("building kerf.ko");
    module::build(&headers, out)
}

fn say(json: bool, key: &str, path: Option<&Path>) -> anyhow::Result<u8> {
    if json {
        print::json(&serde_json::json!({ "done": key, "file": path }))?;
    } else {
        let file = path.map(|p| format!(" {}", p.display())).unwrap_or_default();
        print::text(&format!("{key}{file}"))?;
    }
    Ok(0)
}

impl BuildArgs {
    fn run(self) -> anyhow::Result<u8> {
        let root = rustix::process::geteuid().is_root();
        let out = self.out.unwrap_or_else(|| if root { home() } else { "kerf-module".into() });
        let module = build(self.headers.as_deref(), &out)?;
        say(self.json, "built", Some(&module))
    }
}

impl LoadArgs {
    fn run(self) -> anyhow::Result<u8> {
        if !rustix::process::geteuid().is_root() {
            return Err(LiveError::NotPermitted.into());
        }
        if module::is_loaded() {
            Live::open()?;
            return say(self.json, "loaded already", None);
        }
        let file = self.load()?;
        // A module of another version loads as well, but this program cannot speak to it.
        Live::open()?;
        say(self.json, "loaded", Some(&file))
    }

    /// Loads the named file, else one that was built from these sources, else one built now, else one that a package installed.
    fn load(&self) -> anyhow::Result<PathBuf> {
        if let Some(file) = &self.file {
            module::load(file)?;
            return Ok(file.clone());
        }
        // The headers may be others by now: a kernel that does not take it gets one built anew.
        let ready = if self.headers.is_none() { module::built(&home()) } else { None };
        if let Some(ready) = ready.filter(|file| module::load(file).is_ok()) {
            return Ok(ready);
        }
        let headers = self.headers.clone().unwrap_or_else(running::headers);
        let file = if installed().is_file() && !headers.join("Makefile").is_file() {
            installed()
        } else {
            build(Some(&headers), &home())?
        };
        module::load(&file)?;
        Ok(file)
    }
}

impl UnloadArgs {
    fn run(self) -> anyhow::Result<u8> {
        if !module::is_loaded() {
            return say(self.json, "not loaded", None);
        }
        module::unload()?;
        say(self.json, "unloaded", None)
    }
}
