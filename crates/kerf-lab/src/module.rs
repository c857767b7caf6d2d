//! Builds a kernel module out of its tree against headers that are extracted, not installed.

use crate::cache;
use crate::error::LabError;
use crate::kernel::Kernel;
use crate::process;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    let mut make = Command::new("make");
    make.arg("-C").arg(headers).arg("-f").arg(makefile(&kernel.root, headers));
    make.arg(format!("M={}", work.path().display())).args(["KCFLAGS=-Werror", "modules"]);
    let output = process::run(&mut make)?;
    if String::from_utf8_lossy(&output.stderr).contains("WARNING: modpost") {
        return Err(process::tool_error(&make, &output));
    }
    let module = the_module(work.path(), source_dir)?;
    let name = module.file_name().unwrap_or_default();
    let target = if out.extension().is_some_and(|e| e == "ko") { out.to_owned() } else { out.join(name) };
    let content = fs::read(&module).map_err(LabError::io("read", &module))?;
    cache::write_atomically(&target, &content)?;
    Ok(target)
}

/// The makefile to build with.
///
/// Debian's headers hold a makefile that includes another one by its absolute path, which is right only where the
/// packages are installed. The included one finds everything from its own place and the current directory.
pub(crate) fn makefile(root: &Path, headers: &Path) -> PathBuf {
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
