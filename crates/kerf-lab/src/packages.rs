//! Finds, fetches and extracts the distribution's kernel packages.

mod choice;
mod version;

use crate::cache::{self, Cache};
use crate::error::LabError;
use crate::kernel::Kernel;
use crate::process;
use crate::progress::Progress;
pub(crate) use choice::{Choice, Package, is_plain};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The record of what a kernel's directory was made from, inside that directory.
const RECORD: &str = "kerf-packages.json";

/// The kernel that the lab boots by default: the newest of the distribution's whose source is there too.
///
/// Fetches it when it is not in the cache; later calls need no network and give the same kernel until [`update`].
///
/// # Errors
/// When the archive has no such kernel, or a package cannot be fetched or extracted.
pub fn kernel(cache: &Cache, progress: &mut dyn Progress) -> Result<Kernel, LabError> {
    if let Some(choice) = current(cache)
        && is_complete(cache, &choice)
    {
        return Kernel::cached(cache, &choice.release);
    }
    let _lock = cache.lock()?;
    let choice = match current(cache) {
        Some(choice) => choice,
        None => resolve(progress)?,
    };
    prepare(cache, choice, progress)
}

/// As [`kernel`], but asks the archive for the newest kernel again.
///
/// # Errors
/// As [`kernel`].
pub fn update(cache: &Cache, progress: &mut dyn Progress) -> Result<Kernel, LabError> {
    let _lock = cache.lock()?;
    update_lists(progress)?;
    let choice = resolve(progress)?;
    prepare(cache, choice, progress)
}

/// The kernel with this release, such as another flavour of the default one; fetched when it is not in the cache.
///
/// # Errors
/// When the archive has no such kernel, or a package cannot be fetched or extracted.
pub fn named(cache: &Cache, release: &str, progress: &mut dyn Progress) -> Result<Kernel, LabError> {
    if record(&cache.kernel(release)).is_some() {
        return Kernel::cached(cache, release);
    }
    let _lock = cache.lock()?;
    progress.step(&format!("looking for kernel {release} in the package archive"));
    let choice = match ask_archive_for(release) {
        Err(LabError::Archive { .. } | LabError::Tool { .. }) => {
            update_lists(progress)?;
            ask_archive_for(release)?
        }
        result => result?,
    };
    complete(cache, &choice, progress)?;
    Kernel::cached(cache, release)
}

/// The version of the package that a kernel below this root came from.
pub(crate) fn version_of(root: &Path, release: &str) -> Option<String> {
    record(root).filter(|choice| choice.release == release).map(|choice| choice.source.version)
}

/// What a cached kernel was made from.
pub(crate) fn record(root: &Path) -> Option<Choice> {
    read_choice(&root.join(RECORD))
}

fn current(cache: &Cache) -> Option<Choice> {
    read_choice(&cache.current())
}

/// A damaged record counts as none: it is made anew.
fn read_choice(path: &Path) -> Option<Choice> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn write_choice(path: &Path, choice: &Choice) -> Result<(), LabError> {
    let text = serde_json::to_vec_pretty(choice)
        .map_err(|error| LabError::Archive { reason: format!("the choice cannot be written down: {error}") })?;
    cache::write_atomically(path, &text)
}

fn is_complete(cache: &Cache, choice: &Choice) -> bool {
    record(&cache.kernel(&choice.release)).as_ref() == Some(choice)
}

/// Makes the choice's directory complete and remembers it as current. The lock must be held.
fn prepare(cache: &Cache, choice: Choice, progress: &mut dyn Progress) -> Result<Kernel, LabError> {
    complete(cache, &choice, progress)?;
    write_choice(&cache.current(), &choice)?;
    Kernel::cached(cache, &choice.release)
}

/// Makes the choice's directory complete. The lock must be held.
fn complete(cache: &Cache, choice: &Choice, progress: &mut dyn Progress) -> Result<(), LabError> {
    if is_complete(cache, choice) {
        return Ok(());
    }
    let root = cache.kernel(&choice.release);
    if is_extracted(&root, &choice.release) { finish(&root, choice) } else { extract(cache, &root, choice, progress) }
}

/// Whether all packages' files are there; the directory may have been filled by hand.
fn is_extracted(root: &Path, release: &str) -> bool {
    let headers = root.join("usr/src").join(format!("linux-headers-{release}"));
    root.join("boot").join(format!("vmlinuz-{release}")).is_file()
        && root.join("lib/modules").join(release).join("kernel").is_dir()
        // These links lead into the kbuild and common packages.
        && headers.join("scripts/Makefile.build").is_file()
        && crate::module::makefile(root, &headers).is_file()
}

fn extract(cache: &Cache, root: &Path, choice: &Choice, progress: &mut dyn Progress) -> Result<(), LabError> {
    let debs = fetch(cache, &choice.packages, progress)?;
    progress.step(&format!("extracting kernel {}", choice.release));
    let work = Cache::workspace(root)?;
    for deb in &debs {
        process::run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(work.path()))?;
    }
    finish(work.path(), choice)?;
    if root.exists() {
        // Left behind incomplete, or made from other packages.
        fs::remove_dir_all(root).map_err(LabError::io("remove the incomplete", root))?;
    }
    make_readable(work.path())?;
    cache::install(&work.keep(), root)
}

/// The image package leaves the module index to the installation; the record comes last and marks completeness.
fn finish(root: &Path, choice: &Choice) -> Result<(), LabError> {
    let depmod = crate::host::find_program("depmod").unwrap_or_else(|| PathBuf::from("depmod"));
    process::run(Command::new(depmod).arg("-b").arg(root).arg(&choice.release))?;
    write_choice(&root.join(RECORD), choice)
}

/// Temporary directories are private; the cache may be shared.
pub(crate) fn make_readable(directory: &Path) -> Result<(), LabError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
        .map_err(LabError::io("set the permissions of", directory))
}

/// Downloads what is not there yet and returns the files. The lock must be held.
pub(crate) fn fetch(
    cache: &Cache,
    packages: &[Package],
    progress: &mut dyn Progress,
) -> Result<Vec<PathBuf>, LabError> {
    let debs = cache.debs();
    fs::create_dir_all(&debs).map_err(LabError::io("create", &debs))?;
    let mut files = Vec::new();
    for package in packages {
        let file = match downloaded(&debs, package) {
            Some(file) => file,
            None => download(&debs, package, progress)?,
        };
        files.push(file);
    }
    Ok(files)
}

fn download(debs: &Path, package: &Package, progress: &mut dyn Progress) -> Result<PathBuf, LabError> {
    progress.step(&format!("fetching {} {}", package.name, package.version));
    let work = Cache::workspace(&debs.join(&package.name))?;
    let mut command = Command::new("apt-get");
    command.arg("download").arg(format!("{}={}", package.name, package.version)).current_dir(work.path());
    if process::run(&mut command).is_err() {
        // The lists may be older than the archive.
        update_lists(progress)?;
        process::run(&mut command)?;
    }
    let file = downloaded(work.path(), package).ok_or_else(|| LabError::Archive {
        reason: format!("apt-get download left no file for {} {}", package.name, package.version),
    })?;
    let target = debs.join(file.file_name().unwrap_or_default());
    cache::install(&file, &target)?;
    Ok(target)
}

/// The file of a package, `NAME_VERSION_ARCHITECTURE.deb` with `:` written `%3a`.
fn downloaded(directory: &Path, package: &Package) -> Option<PathBuf> {
    let prefix = format!("{}_{}_", package.name, package.version.replace(':', "%3a"));
    let is_it = |name: &str| name.starts_with(&prefix) && name.ends_with(".deb");
    let mut entries = fs::read_dir(directory).ok()?.flatten();
    entries.find(|entry| entry.file_name().to_str().is_some_and(is_it)).map(|entry| entry.path())
}

/// Asks the package manager what there is, and updates its lists when that is not enough.
fn resolve(progress: &mut dyn Progress) -> Result<Choice, LabError> {
    progress.step("looking for a kernel in the package archive");
    match ask_archive() {
        Err(LabError::Archive { reason }) => {
            tracing::info!(reason, "updating the package lists");
            update_lists(progress)?;
            ask_archive()
        }
        result => result,
    }
}

fn update_lists(progress: &mut dyn Progress) -> Result<(), LabError> {
    if !rustix::process::geteuid().is_root() {
        let reason = "the package lists are missing or out of date: run `sudo apt-get update`".into();
        return Err(LabError::Archive { reason });
    }
    progress.step("updating the package lists");
    process::run(Command::new("apt-get").arg("update")).map(drop)
}

fn ask_archive() -> Result<Choice, LabError> {
    let prefix = format!("linux-image-{}", choice::SERIES);
    let names = process::stdout(Command::new("apt-cache").arg("pkgnames").arg(prefix))?;
    let images = names.lines().filter(|name| choice::image_release(name).is_some());
    let madison = process::stdout(Command::new("apt-cache").arg("madison").arg(choice::source_name()).args(images))?;
    let (release, version) = choice::newest(&choice::parse_madison(&madison))?;
    with_headers(release, version, choice::source_name())
}

fn ask_archive_for(release: &str) -> Result<Choice, LabError> {
    let image = format!("linux-image-{release}");
    let madison = process::stdout(Command::new("apt-cache").arg("madison").arg(&image))?;
    let newest = choice::parse_madison(&madison).remove(&image).and_then(choice::newest_of);
    let version = newest.ok_or_else(|| LabError::Archive {
        reason: format!("there is no package {image}: `apt-cache pkgnames linux-image-` lists those that there are"),
    })?;
    with_headers(release.to_owned(), version, choice::source_of(release))
}

/// All that belongs to an image, by what its headers need.
fn with_headers(release: String, version: String, source: String) -> Result<Choice, LabError> {
    let package = |name: String| Package { name, version: version.clone() };
    let headers = format!("linux-headers-{release}");
    let show = process::stdout(Command::new("apt-cache").arg("show").arg(format!("{headers}={version}")))?;
    let mut packages = vec![package(format!("linux-image-{release}")), package(headers)];
    packages.extend(choice::parse_depends(&show).into_iter().map(package));
    Ok(Choice { release, packages, source: package(source) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Quiet;

    fn choice() -> Choice {
        let package = |name: &str| Package { name: name.into(), version: "1:2-3".into() };
        Choice { release: "6-x".into(), packages: vec![package("a")], source: package("s") }
    }

    #[test]
    fn a_package_that_is_there_is_not_fetched() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        fs::create_dir_all(cache.debs()).unwrap();
        fs::write(cache.debs().join("a_1%3a2-3_amd64.deb"), b"").unwrap();
        fs::write(cache.debs().join("a_1%3a2-3.1_amd64.deb"), b"").unwrap();
        let files = fetch(&cache, &choice().packages, &mut Quiet).unwrap();
        assert_eq!(files, [cache.debs().join("a_1%3a2-3_amd64.deb")]);
    }

    #[test]
    fn records_read_back_and_damage_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        assert_eq!(current(&cache), None);
        write_choice(&cache.current(), &choice()).unwrap();
        assert_eq!(current(&cache), Some(choice()));
        fs::write(cache.current(), b"{ half").unwrap();
        assert_eq!(current(&cache), None);
    }

    #[test]
    fn a_kernel_of_other_packages_is_incomplete() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        assert!(!is_complete(&cache, &choice()));
        write_choice(&cache.kernel("6-x").join(RECORD), &choice()).unwrap();
        assert!(is_complete(&cache, &choice()));
        let mut newer = choice();
        newer.source.version = "4".into();
        assert!(!is_complete(&cache, &newer));
    }
}
