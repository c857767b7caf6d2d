//! Builds a kernel module out of its tree against headers that are extracted, not installed. What was built from the same files before is
//! taken from the cache.

use crate::cache::{self, Cache};
use crate::error::LabError;
use crate::kernel::Kernel;
use crate::process;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Built modules that are kept, those that were asked for last.
const KEPT: usize = 40;

/// Builds the one module whose Kbuild file and source lie in `source_dir`.
///
/// The source is copied first, so that the directory stays clean and two builds do not meet. `out` is the module's file
/// when it ends in `.ko`, else a directory. Warnings of the compiler and of modpost are errors.
///
/// # Errors
/// When the kernel has no headers, the source does not compile, or it does not give exactly one module.
pub fn build(kernel: &Kernel, source_dir: &Path, out: &Path) -> Result<PathBuf, LabError> {
    let headers = kernel.headers.as_ref().ok_or_else(|| LabError::BadFile {
        path: kernel.root.clone(),
        problem: format!("has no headers of kernel {}: get them with `kerf lab fetch`", kernel.release),
    })?;
    let work = tempfile::Builder::new()
        .prefix("kerf-module-")
        .tempdir()
        .map_err(LabError::io("create a directory in", std::env::temp_dir()))?;
    copy_source(source_dir, work.path())?;
    let kept = Kept::of(Cache::open_default().ok().map(|cache| cache.modules()), kernel, work.path())?;
    if let Some((name, content)) = kept.as_ref().and_then(Kept::find) {
        return place(out, name.as_ref(), &content);
    }
    let mut make = Command::new("make");
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    make.arg(format!("-j{jobs}")).arg("-C").arg(headers).arg("-f").arg(makefile(&kernel.root, headers));
    make.arg(format!("M={}", work.path().display())).args(["KCFLAGS=-Werror", "modules"]);
    let output = process::run(&mut make)?;
    if String::from_utf8_lossy(&output.stderr).contains("WARNING: modpost") {
        return Err(process::tool_error(&make, &output));
    }
    let module = the_module(work.path(), source_dir)?;
    let name = module.file_name().unwrap_or_default();
    let content = fs::read(&module).map_err(LabError::io("read", &module))?;
    if let Some(kept) = kept {
        kept.keep(&name.to_string_lossy(), &content)?;
    }
    place(out, name.as_ref(), &content)
}

/// Writes the module to the file or directory that was named.
fn place(out: &Path, name: &Path, content: &[u8]) -> Result<PathBuf, LabError> {
    let target = if out.extension().is_some_and(|e| e == "ko") { out.to_owned() } else { out.join(name) };
    cache::write_atomically(&target, content)?;
    Ok(target)
}

/// The place of a built module in the cache, named by all that it is made from. The first line of the file is the module's name.
struct Kept {
    directory: PathBuf,
    file: PathBuf,
}

impl Kept {
    /// Nothing for a kernel that is no package's: its headers may change under the same name.
    fn of(directory: Option<PathBuf>, kernel: &Kernel, source: &Path) -> Result<Option<Self>, LabError> {
        let Some(directory) = directory.filter(|_| !kernel.version.is_empty()) else { return Ok(None) };
        let mut digest = Sha256::new();
        let mut add = |bytes: &[u8]| {
            digest.update(bytes.len().to_le_bytes());
            digest.update(bytes);
        };
        add(kernel.release.as_bytes());
        add(kernel.version.as_bytes());
        add(process::stdout(Command::new("gcc-12").arg("--version")).unwrap_or_default().as_bytes());
        let mut files = Vec::new();
        list(source, source, &mut files)?;
        for (name, content) in &files {
            add(name.as_bytes());
            add(content);
        }
        let name: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(Kept { file: directory.join(name), directory }))
    }

    fn find(&self) -> Option<(String, Vec<u8>)> {
        let content = fs::read(&self.file).ok()?;
        let end = content.iter().position(|&byte| byte == b'\n')?;
        let name = String::from_utf8(content.get(..end)?.to_vec()).ok()?;
        // When it was asked for decides how long it stays.
        let _ = fs::File::open(&self.file).and_then(|file| file.set_modified(SystemTime::now()));
        Some((name, content.get(end + 1..)?.to_vec()))
    }

    fn keep(&self, name: &str, content: &[u8]) -> Result<(), LabError> {
        fs::create_dir_all(&self.directory).map_err(LabError::io("create", &self.directory))?;
        cache::write_atomically(&self.file, &[name.as_bytes(), b"\n", content].concat())?;
        let entries = fs::read_dir(&self.directory).map_err(LabError::io("list", &self.directory))?;
        let age = |entry: &fs::DirEntry| entry.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut files: Vec<(SystemTime, PathBuf)> =
            entries.flatten().map(|entry| (age(&entry), entry.path())).collect();
        files.sort();
        for (_, file) in files.iter().rev().skip(KEPT) {
            // Another process may have been faster.
            let _ = fs::remove_file(file);
        }
        Ok(())
    }
}

/// Relative names and contents of all files below a directory, in the order of their names.
fn list(root: &Path, directory: &Path, files: &mut Vec<(String, Vec<u8>)>) -> Result<(), LabError> {
    let entries = fs::read_dir(directory).map_err(LabError::io("list", directory))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            list(root, &path, files)?;
        } else {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            files.push((name, fs::read(&path).map_err(LabError::io("read", &path))?));
        }
    }
    Ok(())
}

/// The makefile to build with, for headers that lie in a directory where packages are extracted.
///
/// Debian's headers hold a makefile that includes another one by its absolute path, which is right only where the
/// packages are installed. The included one finds everything from its own place and the current directory.
pub fn makefile(root: &Path, headers: &Path) -> PathBuf {
    let own = headers.join("Makefile");
    let text = fs::read_to_string(&own).unwrap_or_default();
    let included = text.lines().find_map(|line| line.trim().strip_prefix("include /"));
    included.map_or(own, |path| root.join(path.trim()))
}

/// Copies what a module is made from, not what earlier builds have left.
fn copy_source(from: &Path, to: &Path) -> Result<(), LabError> {
    for entry in fs::read_dir(from).map_err(LabError::io("list", from))? {
        let entry = entry.map_err(LabError::io("list", from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            if !entry.file_name().to_string_lossy().starts_with('.') {
                fs::create_dir(&target).map_err(LabError::io("create", &target))?;
                copy_source(&path, &target)?;
            }
        } else if is_source(&entry.file_name().to_string_lossy()) {
            fs::copy(&path, &target).map_err(LabError::io("copy", &path))?;
        }
    }
    Ok(())
}

fn is_source(name: &str) -> bool {
    let made = [".mod.c", ".cmd"].iter().any(|end| name.ends_with(end));
    let kind = [".c", ".h", ".S", ".lds"].iter().any(|end| name.ends_with(end));
    !made && (kind || name == "Makefile" || name == "Kbuild")
}

fn the_module(directory: &Path, source_dir: &Path) -> Result<PathBuf, LabError> {
    let entries = fs::read_dir(directory).map_err(LabError::io("list", directory))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut modules: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "ko")).collect();
    match (modules.pop(), modules.is_empty()) {
        (Some(module), true) => Ok(module),
        (last, _) => Err(LabError::BadFile {
            path: source_dir.to_owned(),
            problem: format!(
                "gave {} modules instead of one: its Kbuild file needs one line `obj-m := NAME.o`",
                modules.len() + usize::from(last.is_some())
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_included_makefile_is_found_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let headers = dir.path().join("usr/src/h");
        fs::create_dir_all(&headers).unwrap();
        assert_eq!(makefile(dir.path(), &headers), headers.join("Makefile"));
        fs::write(headers.join("Makefile"), "include /usr/src/h-common/Makefile\n").unwrap();
        assert_eq!(makefile(dir.path(), &headers), dir.path().join("usr/src/h-common/Makefile"));
    }

    #[test]
    fn a_kept_module_is_found_by_what_it_was_made_from() {
        let (cache, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut kernel = Kernel { version: "1-1".into(), ..Kernel::example("1-test") };
        let kept = |kernel: &Kernel| Kept::of(Some(cache.path().to_owned()), kernel, source.path()).unwrap();
        fs::write(source.path().join("a.c"), "one").unwrap();
        kept(&kernel).unwrap().keep("a.ko", b"module\n\0").unwrap();
        assert_eq!(kept(&kernel).unwrap().find(), Some(("a.ko".into(), b"module\n\0".to_vec())));
        fs::write(source.path().join("a.c"), "two").unwrap();
        assert_eq!(kept(&kernel).unwrap().find(), None, "another source");
        fs::write(source.path().join("a.c"), "one").unwrap();
        kernel.version = "1-2".into();
        assert_eq!(kept(&kernel).unwrap().find(), None, "another kernel");
        for number in 0..2 * KEPT {
            kernel.version = format!("2-{number}");
            kept(&kernel).unwrap().keep("a.ko", b"").unwrap();
        }
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), KEPT);
        kernel.version.clear();
        assert!(kept(&kernel).is_none(), "nobody knows what that kernel's headers are");
    }

    #[test]
    fn products_are_not_copied() {
        for (name, is) in
            [("a.c", true), ("a.h", true), ("a.mod.c", false), (".a.o.cmd", false), ("a.o", false), ("Kbuild", true)]
        {
            assert_eq!(is_source(name), is, "{name}");
        }
    }

    #[test]
    fn a_source_without_a_module_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = the_module(dir.path(), Path::new("/src/empty")).unwrap_err().to_string();
        assert!(error.contains("/src/empty gave 0 modules"), "{error}");
    }
}
