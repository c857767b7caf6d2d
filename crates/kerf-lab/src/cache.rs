//! The directory in which the lab keeps what it has fetched and built.
//!
//! ```text
//! debs/*.deb                        downloaded packages
//! kernels/RELEASE/                  packages of one kernel, extracted: boot, lib/modules, usr/src, usr/lib
//! sources/VERSION/linux-source-…/   unpacked, configured, ready for `make path/unit.o`
//! objects/                          units of a kernel that were compiled for an analysis
//! modules/HASH                      built kernel modules, by what they are made from
//! roots/*.tar                       base systems for machines that boot one
//! current.json                      the kernel that was chosen
//! accel/                            what KVM can boot on this host
//! ```

use crate::error::LabError;
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// How the names of directories begin in which something is being made.
const WORK: &str = ".work-";

/// The cache directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// Held while one process changes the cache; others wait.
#[derive(Debug)]
pub struct CacheLock {
    _file: File,
}

impl Cache {
    /// `$KERF_CACHE`, else `$XDG_CACHE_HOME/kerf`, else `~/.cache/kerf`. The directory is created.
    ///
    /// # Errors
    /// When none of the variables is set, or the directory cannot be created.
    pub fn open_default() -> Result<Self, LabError> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = variable("KERF_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("kerf")))
            .or_else(|| variable("HOME").map(|dir| dir.join(".cache/kerf")))
            .ok_or_else(|| LabError::BadMachine {
                reason: "no place for the cache: set KERF_CACHE to a directory, or HOME".into(),
            })?;
        Self::open(root)
    }

    /// Uses the directory `root`, which is created when missing.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, LabError> {
        let root = std::path::absolute(root.into()).map_err(LabError::io("find", "."))?;
        fs::create_dir_all(&root).map_err(LabError::io("create", &root))?;
        Ok(Cache { root })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Downloaded packages.
    pub fn debs(&self) -> PathBuf {
        self.root.join("debs")
    }

    /// Extracted packages of one kernel.
    pub fn kernel(&self, release: &str) -> PathBuf {
        self.root.join("kernels").join(release)
    }

    /// Source of one package version, or of one flavour of it by its release.
    pub fn sources(&self, version: &str) -> PathBuf {
        self.root.join("sources").join(version)
    }

    /// Units of a kernel that were compiled for an analysis; kerf-const knows what is there.
    pub fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// Built kernel modules, each named by all that it was made from.
    pub fn modules(&self) -> PathBuf {
        self.root.join("modules")
    }

    /// Base systems, an archive for each set of packages.
    pub fn roots(&self) -> PathBuf {
        self.root.join("roots")
    }

    /// The record of the kernel that was chosen.
    pub(crate) fn current(&self) -> PathBuf {
        self.root.join("current.json")
    }

    /// Releases whose packages are extracted here, sorted.
    pub fn releases(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join("kernels")) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut releases: Vec<String> =
            names.filter(|name| self.kernel(name).join("boot").join(format!("vmlinuz-{name}")).exists()).collect();
        releases.sort();
        releases
    }

    /// Waits until no other process changes the cache, and keeps others out until the result is dropped.
    ///
    /// # Errors
    /// When the lock file cannot be opened or locked.
    pub fn lock(&self) -> Result<CacheLock, LabError> {
        let path = self.root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(LabError::io("open", &path))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|e| LabError::io("lock", &path)(e.into()))?;
        Ok(CacheLock { _file: file })
    }

    /// A directory beside `destination` to work in; [`install`] moves it into place when it is complete.
    ///
    /// The lock must be held: what a process that was killed has left behind is removed here.
    ///
    /// # Errors
    /// When it cannot be created.
    pub(crate) fn workspace(destination: &Path) -> Result<tempfile::TempDir, LabError> {
        let parent = destination.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(LabError::io("create", parent))?;
        for entry in fs::read_dir(parent).map_err(LabError::io("list", parent))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(WORK) {
                fs::remove_dir_all(entry.path()).map_err(LabError::io("remove", entry.path()))?;
            }
        }
        tempfile::Builder::new().prefix(WORK).tempdir_in(parent).map_err(LabError::io("create a directory in", parent))
    }
}

/// Moves the finished `from` to `to`, so that `to` exists complete or not at all.
pub(crate) fn install(from: &Path, to: &Path) -> Result<(), LabError> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(LabError::io("create", parent))?;
    }
    fs::rename(from, to).map_err(LabError::io("install", to))
}

/// Writes a small file in one step.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Result<(), LabError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(LabError::io("create", parent))?;
    let file = tempfile::NamedTempFile::new_in(parent).map_err(LabError::io("create a file in", parent))?;
    fs::write(file.path(), content).map_err(LabError::io("write", file.path()))?;
    file.persist(path).map_err(|error| LabError::io("write", path)(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_kernels_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        assert!(cache.releases().is_empty());
        fs::create_dir_all(cache.kernel("6.1-half").join("boot")).unwrap();
        fs::create_dir_all(cache.kernel("6.2").join("boot")).unwrap();
        fs::write(cache.kernel("6.2").join("boot/vmlinuz-6.2"), b"x").unwrap();
        assert_eq!(cache.releases(), ["6.2"]);
    }

    #[test]
    fn the_lock_excludes_a_second_holder() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let held = cache.lock().unwrap();
        let other = File::open(dir.path().join("lock")).unwrap();
        assert!(rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(held);
        assert!(rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).is_ok());
    }

    #[test]
    fn leftovers_of_a_killed_process_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".work-old/x")).unwrap();
        fs::write(dir.path().join("other"), b"").unwrap();
        let work = Cache::workspace(&dir.path().join("target")).unwrap();
        assert!(work.path().is_dir());
        assert!(!dir.path().join(".work-old").exists() && dir.path().join("other").exists());
    }

    #[test]
    fn writing_replaces_the_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/file");
        write_atomically(&path, b"a long first text").unwrap();
        write_atomically(&path, b"short").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
