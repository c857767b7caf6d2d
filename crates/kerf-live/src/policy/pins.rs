//! Where applications find the maps of policies: `/sys/fs/bpf/kerf/POLICY/MAP`, for maps that ask to be pinned by name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::PolicyError;
use crate::{Live, LiveError};

const ROOT: &str = "/sys/fs/bpf/kerf";
/// Directories of processes that are loading begin with this; the process's id follows.
const LOADING: char = '+';

/// The pins of a policy that is being loaded. Dropped, they go; a transaction that has succeeded keeps them.
pub(super) struct Pins {
    directory: PathBuf,
    /// Why there is no directory. It does not matter to a policy without pins.
    missing: Option<io::Error>,
}

impl Pins {
    pub(super) fn prepare() -> Pins {
        let directory = Path::new(ROOT).join(format!("{LOADING}{}", std::process::id()));
        let missing = fs::create_dir_all(&directory).err();
        Pins { directory, missing }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What to add to an error of loading, which may come from the directory.
    pub(super) fn hint(&self) -> String {
        let Some(error) = &self.missing else { return String::new() };
        format!(
            " (a map that is pinned needs the BPF file system at /sys/fs/bpf; no directory could be made there: {error})"
        )
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.directory).map_or(true, |mut files| files.next().is_none())
    }

    /// Whether the pins, if there are any, can be kept under this name.
    pub(super) fn check(&self, name: &str) -> Result<(), PolicyError> {
        if self.is_empty() || !(name.contains(['/', '.']) || name.starts_with(LOADING)) {
            return Ok(());
        }
        let why = "cannot be the name of a directory of pinned maps: no dots, no slashes; --name gives another one";
        Err(PolicyError::Load { what: name.to_owned(), why: why.to_owned() })
    }

    /// From now on the pins are the policy's.
    pub(super) fn keep(&self, name: &str) -> Result<(), PolicyError> {
        let own = Path::new(ROOT).join(name);
        remove(&own);
        if self.is_empty() {
            return Ok(());
        }
        let error =
            |source| PolicyError::File { action: "make the directory of pinned maps", file: own.clone(), source };
        fs::rename(&self.directory, &own).map_err(error)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

/// Removes a directory of pins. Nothing depends on the pins but their finders, so what cannot be removed stays.
fn remove(directory: &Path) {
    for file in fs::read_dir(directory).into_iter().flatten().flatten() {
        let _ = fs::remove_file(file.path());
    }
    let _ = fs::remove_dir(directory);
}

/// Removes the pins of policies that are gone, however they went.
///
/// # Errors
/// If the module's state cannot be read.
pub fn sweep_pins(live: &mut Live) -> Result<(), LiveError> {
    // Pins come after their policy, so the directories that are there before the state is read belong to what it shows.
    let found: Vec<_> = fs::read_dir(ROOT).into_iter().flatten().flatten().collect();
    if found.is_empty() {
        return Ok(());
    }
    let status = live.status()?;
    let loaded = |name: &str| status.entries.iter().filter_map(|e| e.policy.as_ref()).any(|p| p.owner == name);
    for directory in found {
        let name = directory.file_name().to_string_lossy().into_owned();
        let in_use = match name.strip_prefix(LOADING) {
            Some(process) => Path::new("/proc").join(process).exists(),
            None => loaded(&name),
        };
        if !in_use {
            remove(&directory.path());
        }
    }
    Ok(())
}
