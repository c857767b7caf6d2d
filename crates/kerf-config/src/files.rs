//! Where drop-ins lie, which of them count, and whether others than root could have written them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::ConfigError;

/// Where drop-ins are looked for. A file hides one of the same name in a later directory.
pub const DIRECTORIES: [&str; 2] = ["/etc/kerf.d", "/usr/lib/kerf.d"];

/// The ending of a drop-in's name; other files are left alone.
const ENDING: &str = ".toml";

/// Permission bits with which others than the owner may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// A directory in which nobody may replace what is another's.
const STICKY_DIRECTORY: u32 = 0o041_000;

/// The drop-ins that count, in the order in which they are read: by their names, whatever directory they are in. Directories that do
/// not exist are empty.
///
/// # Errors
/// [`ConfigError::Read`] when a directory is there and cannot be read.
pub fn find(directories: &[impl AsRef<Path>]) -> Result<Vec<PathBuf>, ConfigError> {
    let mut named: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in directories.iter().map(AsRef::as_ref) {
        let failed = |source| ConfigError::Read { path: directory.to_owned(), source };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let text = name.to_string_lossy();
            if text.ends_with(ENDING) && !text.starts_with('.') {
                named.entry(name).or_insert_with(|| entry.path());
            }
        }
    }
    Ok(named.into_values().collect())
}

/// Refuses a file that others than root could have written, or have put there: the file itself, what a link leads to, and their
/// directories.
///
/// # Errors
/// [`ConfigError::Untrusted`] with the command that mends it.
pub fn check_permissions(path: &Path) -> Result<(), ConfigError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| ConfigError::Read { path, source }
    };
    let target = fs::canonicalize(path).map_err(read(path))?;
    let mut places = vec![path.parent(), target.parent(), Some(target.as_path())];
    places.dedup();
    for place in places.into_iter().flatten().filter(|place| !place.as_os_str().is_empty()) {
        let metadata = fs::metadata(place).map_err(read(place))?;
        judge(place, metadata.uid(), metadata.mode())?;
    }
    Ok(())
}

fn judge(path: &Path, owner: u32, mode: u32) -> Result<(), ConfigError> {
    let untrusted = |why: String, command: &str| {
        let remedy = format!("{command} {}", path.display());
        Err(ConfigError::Untrusted { path: path.to_owned(), why, remedy })
    };
    if owner != 0 {
        return untrusted(format!("user {owner} owns it, not root"), "chown root:root");
    }
    if mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY_DIRECTORY != STICKY_DIRECTORY {
        let why = format!("others than root may write to it (mode {:03o})", mode & 0o777);
        return untrusted(why, "chmod go-w");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_of_a_name_counts() {
        let dir = tempfile::tempdir().unwrap();
        let directories = ["etc", "lib", "none"].map(|name| dir.path().join(name));
        for file in ["etc/50-b.toml", "etc/.hidden.toml", "etc/README", "lib/50-b.toml", "lib/10-a.toml", "lib/x.toml~"]
        {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = find(&directories).unwrap();
        assert_eq!(found, [directories[1].join("10-a.toml"), directories[0].join("50-b.toml")]);
    }

    #[test]
    fn what_others_can_write_is_not_trusted() {
        let path = Path::new("/etc/kerf.d/a.toml");
        judge(path, 0, 0o100_644).unwrap();
        let said = |owner, mode| judge(path, owner, mode).unwrap_err().to_string();
        assert!(
            said(1000, 0o100_644).ends_with(
                "user 1000 owns it, not root; check what it says, then `chown root:root /etc/kerf.d/a.toml`"
            )
        );
        assert!(said(0, 0o100_664).contains("(mode 664); check what it says, then `chmod go-w /etc/kerf.d/a.toml`"));
        assert!(said(0, 0o100_646).contains("mode 646"));
        assert!(said(0, 0o040_777).contains("mode 777"));
        judge(path, 0, 0o041_777).unwrap();
    }

    #[test]
    fn directories_and_links_are_looked_at_too() {
        let dir = tempfile::tempdir().unwrap();
        let (open, closed) = (dir.path().join("open"), dir.path().join("closed"));
        for directory in [&open, &closed] {
            fs::create_dir(directory).unwrap();
        }
        let (file, link) = (open.join("a.toml"), closed.join("a.toml"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let owner = fs::metadata(&file).unwrap().uid();
        for directory in [&open, &closed] {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(check_permissions(&link).is_ok(), owner == 0);
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(check_permissions(&link), Err(ConfigError::Untrusted { .. })));
        assert!(matches!(check_permissions(&closed.join("none")), Err(ConfigError::Read { .. })));
    }
}
