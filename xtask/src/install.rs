//! `cargo xtask install`: what a package of Kerf has in it, below a root of one's choice.

use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, bail};
use clap::Args;
use kerf_profile::plugin;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Where to.
#[derive(Args)]
pub struct InstallArgs {
    /// The directory that stands for `/`.
    #[arg(long)]
    root: PathBuf,
}

/// Files of the repository and where they go.
const FILES: [(&str, &str); 5] = [
    ("dist/kerf.service", "usr/lib/systemd/system/kerf.service"),
    ("dist/60-kerf.rules", "usr/lib/udev/rules.d/60-kerf.rules"),
    ("README.md", "usr/share/doc/kerf/README.md"),
    ("LICENSE-MIT", "usr/share/doc/kerf/LICENSE-MIT"),
    ("LICENSE-APACHE", "usr/share/doc/kerf/LICENSE-APACHE"),
];

/// Directories of the repository and where they go.
const TREES: [(&str, &str); 2] = [("docs", "usr/share/doc/kerf/docs"), ("policies", "usr/share/kerf/policies")];

/// Directories that must be there for an operator's files.
const EMPTY: [&str; 3] = ["etc/kerf.d", "usr/lib/kerf.d", "var/lib/kerf"];

impl InstallArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let workspace = Workspace::find()?;
        let mut steps = Steps::new();
        let kerf = steps.need("the kerf program", || workspace.build_kerf())?;
        steps.need("its files, the plugin that counts, man pages and completions", || {
            everything(&workspace, &kerf, &self.root)
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// All that belongs to an installation, below `root`.
pub fn everything(workspace: &Workspace, kerf: &Path, root: &Path) -> anyhow::Result<()> {
    install(workspace, kerf, root)?;
    let library = plugin::build(&workspace.root, &workspace.target)?;
    put(&library, &root.join("usr/lib/kerf").join(plugin::FILE), 0o644)?;
    generate(kerf, root)
}

fn install(workspace: &Workspace, kerf: &Path, root: &Path) -> anyhow::Result<()> {
    put(kerf, &root.join("usr/bin/kerf"), 0o755)?;
    for (from, to) in FILES {
        put(&workspace.root.join(from), &root.join(to), 0o644)?;
    }
    for (from, to) in TREES {
        tree(&workspace.root.join(from), &root.join(to))?;
    }
    for directory in EMPTY {
        let directory = root.join(directory);
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    }
    Ok(())
}

/// Copies a file and sets its mode.
pub fn put(from: &Path, to: &Path, mode: u32) -> anyhow::Result<()> {
    let copy = || {
        fs::create_dir_all(to.parent().unwrap_or(Path::new("/")))?;
        fs::copy(from, to)?;
        fs::set_permissions(to, fs::Permissions::from_mode(mode))
    };
    copy().with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

fn tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry.with_context(|| format!("list {}", from.display()))?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() { tree(&path, &to)? } else { put(&path, &to, 0o644)? }
    }
    Ok(())
}

fn generate(kerf: &Path, root: &Path) -> anyhow::Result<()> {
    let status = Command::new(kerf).arg("generate").arg(root).stdout(Stdio::null()).status().context("run kerf")?;
    if status.success() { Ok(()) } else { bail!("generate man pages: kerf ended with {status}") }
}
