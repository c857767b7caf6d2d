//! File systems with Debian on them, for machines that boot a whole system.
//!
//! A base system comes from the distribution's archive once and is kept in the cache. [`Root::make`] unpacks it, installs packages and
//! copies files into it, and writes an ext4 image, without mounting anything. Root makes them, or a user who may map user ids
//! (`/etc/subuid`).

use crate::cache::{self, Cache};
use crate::error::LabError;
use crate::initramfs::FileSpec;
use crate::process;
use crate::progress::Progress;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The distribution's name in its archive.
const SUITE: &str = "bookworm";

/// What makes the essential packages a system that boots by itself and that one can look at.
const PACKAGES: [&str; 5] = ["systemd-sysv", "udev", "dbus", "kmod", "procps"];

/// A root file system to be made.
#[derive(Debug, Clone)]
pub struct Root {
    /// Packages of the archive beyond those that a system needs to boot.
    pub packages: Vec<String>,
    /// Package files to install, in this order. Their scripts run in the new root, where no service manager does.
    pub debs: Vec<PathBuf>,
    /// Files and directories of the host, and their places.
    pub files: Vec<FileSpec>,
    /// Size of the file system in MiB; it takes up no more than what is in it.
    pub size_mib: u64,
}

impl Default for Root {
    fn default() -> Self {
        Root { packages: Vec::new(), debs: Vec::new(), files: Vec::new(), size_mib: 2048 }
    }
}

impl Root {
    /// Writes the file system to `image`, which must not be in use by a machine.
    ///
    /// # Errors
    /// When the archive cannot be reached, a package cannot be installed, or the image cannot be written.
    pub fn make(&self, cache: &Cache, image: &Path, progress: &mut dyn Progress) -> Result<(), LabError> {
        let base = self.fetch(cache, progress)?;
        progress.step(&format!("making the root {}", image.display()));
        let work = tempfile::Builder::new()
            .prefix("kerf-root-")
            .tempdir()
            .map_err(LabError::io("create a directory in", std::env::temp_dir()))?;
        let tree = work.path().join("root");
        let made = self.fill(&base, &tree).and_then(|()| self.write(&tree, image));
        // Not all of it belongs to this user, so the directory's own end would leave it.
        process::run(privileged("rm").arg("-rf").arg(&tree))?;
        made
    }

    /// The archive of the base system, made when it is not in the cache.
    ///
    /// # Errors
    /// When the distribution's archive cannot be reached or lacks a package.
    pub fn fetch(&self, cache: &Cache, progress: &mut dyn Progress) -> Result<PathBuf, LabError> {
        let mut packages: Vec<&str> =
            PACKAGES.iter().copied().chain(self.packages.iter().map(String::as_str)).collect();
        packages.sort_unstable();
        packages.dedup();
        let packages = packages.join(",");
        let archive = cache.roots().join(format!("{SUITE}-{}.tar", packages.replace(',', "+")));
        if archive.is_file() {
            return Ok(archive);
        }
        let _lock = cache.lock()?;
        if archive.is_file() {
            return Ok(archive);
        }
        progress.step(&format!("fetching a base system ({packages})"));
        let work = Cache::workspace(&archive)?;
        let made = work.path().join("base.tar");
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--variant=essential", &format!("--include={packages}")]);
        process::run(command.args(["--aptopt=APT::Install-Recommends \"false\"", SUITE]).arg(&made))?;
        cache::install(&made, &archive)?;
        Ok(archive)
    }

    fn fill(&self, base: &Path, tree: &Path) -> Result<(), LabError> {
        process::run(privileged("mkdir").arg(tree))?;
        // Device nodes are the kernel's business, and not everybody may make them.
        process::run(privileged("tar").arg("-xf").arg(base).arg("--exclude=./dev/*").arg("-C").arg(tree))?;
        // Without one the first boot would set up all units as it thinks best.
        let id = tree.with_file_name("machine-id");
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")
            .map_err(LabError::io("read", "/proc/sys/kernel/random/uuid"))?;
        fs::write(&id, uuid.replace('-', "")).map_err(LabError::io("write", &id))?;
        process::run(privileged("cp").arg(&id).arg(tree.join("etc/machine-id")))?;
        for deb in &self.debs {
            let root = format!("--root={}", tree.display());
            process::run(privileged("dpkg").args([&root, "--install"]).arg(deb))?;
        }
        for file in &self.files {
            let place = tree.join(file.guest.trim_start_matches('/'));
            let above = place.parent().unwrap_or(tree);
            process::run(privileged("mkdir").arg("-p").arg(above))?;
            process::run(
                privileged("cp")
                    .args(["-r", "--no-target-directory", "--no-preserve=ownership"])
                    .arg(&file.host)
                    .arg(&place),
            )?;
        }
        Ok(())
    }

    fn write(&self, tree: &Path, image: &Path) -> Result<(), LabError> {
        if image.exists() {
            fs::remove_file(image).map_err(LabError::io("replace", image))?;
        }
        let mut command = privileged("mke2fs");
        command.args(["-q", "-t", "ext4", "-d"]).arg(tree).arg(image).arg(format!("{}M", self.size_mib));
        process::run(&mut command).map(drop)
    }
}

/// A command that may give files to any user of the new system.
fn privileged(program: &str) -> Command {
    let program = crate::host::find_program(program).unwrap_or_else(|| program.into());
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--map-auto"]).arg(program);
    command
}
