//! Control groups by their paths in the unified hierarchy.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// A control group as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its number: that of its directory.
    pub id: u64,
    /// How far below the root it is; the root's is 0.
    pub level: u32,
}

/// Finds control groups.
pub trait Cgroups {
    /// The group at a path that begins with `/`.
    ///
    /// # Errors
    /// Why there is none, for a person.
    fn find(&self, path: &str) -> Result<Cgroup, String>;
}

/// The running kernel's control groups, where they are mounted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mounted;

/// What the first namespace of control groups is called, by the number that the kernel gives it.
const FIRST_NAMESPACE: u64 = 0xeffffffb;

impl Cgroups for Mounted {
    fn find(&self, path: &str) -> Result<Cgroup, String> {
        let (level, below) = relative(path)?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| format!("no control groups can be found: /proc/self/mountinfo: {error}"))?;
        let root = mount(&mounts).ok_or(
            "no unified hierarchy of control groups (cgroup2) is mounted: mount it, for \
             example `mount -t cgroup2 none /sys/fs/cgroup`",
        )?;
        // In a namespace of its own a process sees another root, and paths would be counted from there.
        if fs::metadata("/proc/self/ns/cgroup").is_ok_and(|own| own.ino() != FIRST_NAMESPACE) {
            return Err("this process is in a cgroup namespace of its own, where paths are not the kernel's".into());
        }
        let directory = root.join(below);
        let found = fs::metadata(&directory).ok().filter(fs::Metadata::is_dir);
        let found =
            found.ok_or_else(|| format!("there is no control group {path}: no directory {}", directory.display()))?;
        Ok(Cgroup { id: found.ino(), level })
    }
}

/// How far below the root a path is, and the path without the root.
fn relative(path: &str) -> Result<(u32, PathBuf), String> {
    let shown = || {
        format!("a control group is a path from the root of the hierarchy, such as \"/system.slice\", not \"{path}\"")
    };
    let mut components = Path::new(path).components();
    if components.next() != Some(Component::RootDir) {
        return Err(shown());
    }
    let (mut level, mut below) = (0, PathBuf::new());
    for component in components {
        let Component::Normal(name) = component else { return Err(shown()) };
        level += 1;
        below.push(name);
    }
    Ok((level, below))
}

/// Where the root of the unified hierarchy is mounted.
fn mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        (kind.split(' ').next() == Some("cgroup2") && root == "/").then(|| PathBuf::from(unescaped(at)))
    })
}

/// The kernel writes spaces and the like as octal numbers.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_levels() {
        assert_eq!(relative("/"), Ok((0, PathBuf::new())));
        assert_eq!(relative("/a//b/"), Ok((2, PathBuf::from("a/b"))));
        for bad in ["", "a", "/a/../b", "./a"] {
            assert!(relative(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_hierarchy_is_found_among_the_mounts() {
        let mounts = "24 1 0:22 / /proc rw - proc proc rw\n30 24 0:26 /part /other rw - cgroup2 none rw\n\
                      31 24 0:26 / /sys/fs/my\\040groups rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount(mounts), Some(PathBuf::from("/sys/fs/my groups")));
        assert_eq!(mount("24 1 0:22 / /proc rw - proc proc rw\n"), None);
    }
}
