//! The kernel's source, unpacked, configured as the deployed kernel was, and ready to compile single units.

use crate::cache::{self, Cache};
use crate::error::LabError;
use crate::host::{self, Need};
use crate::kernel::Kernel;
use crate::packages::{self, Package};
use crate::process;
use crate::progress::Progress;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Marks a tree in which `make olddefconfig prepare` has succeeded.
const STAMP: &str = ".kerf-prepared";

/// The prepared source tree of a cached kernel; fetched, unpacked and prepared when it is not there.
///
/// # Errors
/// When the kernel is not one of the cache's, or one of the steps fails.
pub fn source(cache: &Cache, kernel: &Kernel, progress: &mut dyn Progress) -> Result<PathBuf, LabError> {
    if let Some(tree) = prepared(cache, kernel) {
        return Ok(tree);
    }
    let record = packages::record(&kernel.root).ok_or_else(|| LabError::Archive {
        reason: format!("kernel {} did not come from the package archive, so its source is not known", kernel.release),
    })?;
    host::install(&[Need::Source], progress)?;
    let _lock = cache.lock()?;
    let directory = place(cache, kernel);
    let tree = match tree_in(&directory) {
        Some(tree) => tree,
        None => unpack(cache, &record.source, &directory, progress)?,
    };
    if !tree.join(STAMP).exists() {
        progress.step(&format!("preparing {}", tree.display()));
        configure(kernel, &tree)?;
        cache::write_atomically(&tree.join(STAMP), b"")?;
    }
    Ok(tree)
}

/// The source tree of a kernel, when it is complete.
pub(crate) fn prepared(cache: &Cache, kernel: &Kernel) -> Option<PathBuf> {
    if kernel.version.is_empty() {
        return None;
    }
    tree_in(&place(cache, kernel)).filter(|tree| tree.join(STAMP).exists())
}

/// Flavours are built from one source with configurations of their own, so each has a tree.
fn place(cache: &Cache, kernel: &Kernel) -> PathBuf {
    let name = if packages::is_plain(&kernel.release) { &kernel.version } else { &kernel.release };
    cache.sources(name)
}

/// The directory `linux-source-…` below `directory`.
fn tree_in(directory: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    let is_tree = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("linux-source-") && path.join("Kbuild").is_file()
    };
    let mut trees: Vec<PathBuf> = entries.filter(is_tree).collect();
    trees.sort();
    trees.pop()
}

fn unpack(
    cache: &Cache,
    package: &Package,
    directory: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, LabError> {
    let debs = packages::fetch(cache, std::slice::from_ref(package), progress)?;
    progress.step(&format!("unpacking {} {}", package.name, package.version));
    let work = Cache::workspace(directory)?;
    let deb = work.path().join("deb");
    for file in &debs {
        process::run(Command::new("dpkg-deb").arg("-x").arg(file).arg(&deb))?;
    }
    let archive = deb.join("usr/src").join(format!("{}.tar.xz", package.name));
    let out = work.path().join("out");
    fs::create_dir(&out).map_err(LabError::io("create", &out))?;
    process::run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&out).env("XZ_DEFAULTS", "-T0"))?;
    packages::make_readable(&out)?;
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(LabError::io("remove the incomplete", directory))?;
    }
    cache::install(&out, directory)?;
    tree_in(directory).ok_or_else(|| LabError::BadFile {
        path: archive,
        problem: "does not hold a directory linux-source-… with a kernel in it".into(),
    })
}

/// Takes over the deployed kernel's configuration and lets kbuild make its generated headers and tools.
///
/// This happens in place because some of the tools remember where they were built.
fn configure(kernel: &Kernel, tree: &Path) -> Result<(), LabError> {
    let config = kernel.config.as_ref().ok_or_else(|| LabError::BadFile {
        path: kernel.root.clone(),
        problem: format!("has no boot/config-{}", kernel.release),
    })?;
    let text = fs::read_to_string(config).map_err(LabError::io("read", config))?;
    if !tree.join(".config").exists() {
        cache::write_atomically(&tree.join(".config"), text.as_bytes())?;
    }
    let mut make = Command::new("make");
    make.arg("-C").arg(tree).arg(format!("-j{}", jobs())).args(compiler(&text)).args(["olddefconfig", "prepare"]);
    process::run(&mut make).map(drop)
}

fn jobs() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get())
}

/// `CC=…` when the compiler that the kernel was built with is not the default one here.
fn compiler(config: &str) -> Option<String> {
    let number = config.lines().find_map(|line| line.strip_prefix("CONFIG_GCC_VERSION="))?.trim();
    let major = number.parse::<u32>().ok().filter(|number| *number > 0)? / 10_000;
    let default = process::stdout(Command::new("gcc").arg("-dumpversion")).unwrap_or_default();
    let same = default.trim().split('.').next() == Some(major.to_string().as_str());
    (!same).then(|| format!("CC=gcc-{major}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stamped_trees_are_prepared() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let kernel = |release: &str, version: &str| Kernel { version: version.into(), ..Kernel::example(release) };
        let plain = kernel("6.12.1+deb12-amd64", "6-1");
        let tree = cache.sources("6-1").join("linux-source-6");
        assert_eq!(prepared(&cache, &plain), None);
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("Kbuild"), "").unwrap();
        assert_eq!(prepared(&cache, &plain), None);
        fs::write(tree.join(STAMP), "").unwrap();
        assert_eq!(prepared(&cache, &plain), Some(tree));
        assert_eq!(prepared(&cache, &kernel("6.12.1+deb12-amd64", "")), None);
        let cloud = kernel("6.12.1+deb12-cloud-amd64", "6-1");
        assert_eq!(prepared(&cache, &cloud), None, "it is configured in another way");
    }

    #[test]
    fn another_compiler_is_named() {
        assert_eq!(compiler("CONFIG_GCC_VERSION=20200\n").as_deref(), Some("CC=gcc-2"));
        assert_eq!(compiler("CONFIG_GCC_VERSION=0\n"), None);
        let default = process::stdout(Command::new("gcc").arg("-dumpversion")).unwrap();
        let major = default.trim().split('.').next().unwrap();
        assert_eq!(compiler(&format!("CONFIG_GCC_VERSION={major}0200\n")), None);
    }
}
