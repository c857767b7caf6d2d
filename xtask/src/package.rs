//! `cargo xtask package`: a Debian package of what `install` puts into a directory, with the scripts of `dist/debian`.

use crate::install;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, bail};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// What `dpkg` runs around an installation.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Where to.
#[derive(Args)]
pub struct PackageArgs {
    /// The directory for the package [default: target/package].
    #[arg(long, short, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The program to pack [default: the one that is built from this source].
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

impl PackageArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let workspace = Workspace::find()?;
        let mut steps = Steps::new();
        let kerf = match self.program {
            Some(program) => program,
            None => steps.need("the kerf program", || workspace.build_kerf())?,
        };
        let out = match self.out {
            Some(out) => out,
            None => workspace.directory("package")?,
        };
        let deb = steps.need("the package", || package(&workspace, &kerf, &out))?;
        println!("{}", deb.display());
        Ok(ExitCode::SUCCESS)
    }
}

fn package(workspace: &Workspace, kerf: &Path, out: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    let work = tempfile::tempdir_in(out).with_context(|| format!("create a directory in {}", out.display()))?;
    let tree = work.path().join("tree");
    install::everything(workspace, &strip(kerf, work.path())?, &tree)?;
    let control = tree.join("DEBIAN");
    fs::create_dir(&control).with_context(|| format!("create {}", control.display()))?;
    let dist = workspace.root.join("dist/debian");
    let template = fs::read_to_string(dist.join("control")).context("read dist/debian/control")?;
    let filled = fill(&template, env!("CARGO_PKG_VERSION"), size(&tree)?.div_ceil(1024));
    fs::write(control.join("control"), filled).context("write the package's control file")?;
    for script in SCRIPTS {
        install::put(&dist.join(script), &control.join(script), 0o755)?;
    }
    let deb = out.join(format!("kerf_{}_amd64.deb", env!("CARGO_PKG_VERSION")));
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "--build"]).arg(&tree).arg(&deb).stdout(Stdio::null());
    let status = build.status().context("run dpkg-deb")?;
    if status.success() { Ok(deb) } else { bail!("build the package: dpkg-deb ended with {status}") }
}

/// A copy without debugging information, which would be most of the package.
fn strip(kerf: &Path, out: &Path) -> anyhow::Result<PathBuf> {
    let to = out.join("kerf");
    let status = Command::new("strip").arg("-o").arg(&to).arg(kerf).status().context("run strip")?;
    if status.success() { Ok(to) } else { bail!("strip {}: strip ended with {status}", kerf.display()) }
}

/// The control file for a version, and a size in KiB.
fn fill(template: &str, version: &str, size: u64) -> String {
    template.replace("@VERSION@", version).replace("@SIZE@", &size.to_string())
}

/// Bytes of all files below a directory.
fn size(directory: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let entry = entry.with_context(|| format!("list {}", directory.display()))?;
        let metadata = entry.metadata().with_context(|| format!("read {}", entry.path().display()))?;
        total += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_file_is_filled() {
        let template = include_str!("../../dist/debian/control");
        let filled = fill(template, "1.2.3", 456);
        assert!(filled.contains("\nVersion: 1.2.3\n") && filled.contains("\nInstalled-Size: 456\n"), "{filled}");
        assert!(!filled.contains("@VERSION@") && !filled.contains("@SIZE@"), "{filled}");
    }

    #[test]
    fn sizes_of_a_tree_are_summed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("a"), [0; 10]).unwrap();
        fs::write(dir.path().join("sub/b"), [0; 5]).unwrap();
        assert_eq!(size(dir.path()).unwrap(), 15);
    }
}
