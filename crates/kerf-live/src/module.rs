//! The kernel module: its sources travel with the program, so that an installed one can build it for the kernel it meets.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;

use crate::LiveError;

const NAME: &CStr = c"kerf";

macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../kernel/", $name)))),*]
    };
}

/// Name and content of every file that the module is built from.
pub const SOURCES: &[(&str, &str)] = sources![
    "Makefile",
    "kerf.h",
    "kerf_counts.c",
    "kerf_emit.c",
    "kerf_enter.S",
    "kerf_execution.c",
    "kerf_form.c",
    "kerf_guard.c",
    "kerf_hold.c",
    "kerf_insn.h",
    "kerf_lookup.c",
    "kerf_lookup.h",
    "kerf_main.c",
    "kerf_owner.c",
    "kerf_plan.c",
    "kerf_points.c",
    "kerf_policy.c",
    "kerf_policy.h",
    "kerf_pool.c",
    "kerf_record.c",
    "kerf_sequence.c",
    "kerf_stack.c",
    "kerf_stop.c",
    "kerf_target.c",
    "kerf_text.c",
    "kerf_transition.c",
    "kerf_verify.c",
    "kerf_watchdog.c",
];

fn build_error(dir: &Path, reason: impl ToString) -> LiveError {
    LiveError::Build { dir: dir.to_owned(), reason: reason.to_string() }
}

/// Writes the module's sources into a directory, which is made if it is missing.
///
/// # Errors
/// If it cannot be written.
pub fn write_sources(dir: &Path) -> Result<(), LiveError> {
    let write = || {
        fs::create_dir_all(dir)?;
        SOURCES.iter().try_for_each(|(name, text)| fs::write(dir.join(name), text))
    };
    write().map_err(|error: io::Error| build_error(dir, error))
}

/// Builds the module against the headers of an installed kernel (`/lib/modules/RELEASE/build`), in `out`. Gives the path of `kerf.ko`.
///
/// # Errors
/// If the headers or make are missing, or the compiler refuses; with the compiler's last lines.
pub fn build(headers: &Path, out: &Path) -> Result<PathBuf, LiveError> {
    if !headers.join("Makefile").is_file() {
        let reason = format!(
            "no kernel headers in {} (install the linux-headers package of the running kernel)",
            headers.display()
        );
        return Err(build_error(out, reason));
    }
    // Beside new sources an old module would pass for theirs.
    let _ = fs::remove_file(out.join("kerf.ko"));
    write_sources(out)?;
    let out = out.canonicalize().map_err(|error| build_error(out, error))?;
    let mut make = Command::new("make");
    make.arg("--silent")
        .arg("-C")
        .arg(headers)
        .arg(format!("M={}", out.display()))
        .arg("modules")
        .env_remove("MAKEFLAGS");
    let result = make.output().map_err(|error| build_error(&out, format!("cannot run make: {error}")))?;
    let module = out.join("kerf.ko");
    if result.status.success() && module.is_file() {
        return Ok(module);
    }
    let log = String::from_utf8_lossy(&result.stderr);
    let lines: Vec<&str> = log.lines().collect();
    Err(build_error(&out, lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")))
}

/// The module that [`build`] has left in this directory, if it is of the sources that this program carries.
pub fn built(out: &Path) -> Option<PathBuf> {
    let same = |(name, text): &(&str, &str)| fs::read(out.join(name)).is_ok_and(|found| found == text.as_bytes());
    let module = out.join("kerf.ko");
    (module.is_file() && SOURCES.iter().all(same)).then_some(module)
}

/// Is the module loaded?
pub fn is_loaded() -> bool {
    Path::new("/sys/module/kerf/initstate").exists()
}

fn load_error(action: &'static str, reason: impl Into<String>) -> LiveError {
    LiveError::Load { action, reason: reason.into() }
}

/// Loads a built module. It is no error if one is loaded already.
///
/// # Errors
/// If the file cannot be read or the kernel refuses it, with what that means.
pub fn load(module: &Path) -> Result<(), LiveError> {
    let file = File::open(module).map_err(|error| load_error("load", format!("{}: {error}", module.display())))?;
    match rustix::system::finit_module(&file, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::PERM) => {
            Err(load_error("load", "run as root; if you are, the kernel is locked down or takes signed modules only"))
        }
        Err(Errno::NOEXEC) => Err(load_error("load", "it was built for another kernel; build it again")),
        Err(Errno::KEYREJECTED) => {
            Err(load_error("load", "the kernel takes signed modules only (Secure Boot): sign it or turn that off"))
        }
        Err(Errno::NOENT) => Err(load_error("load", what_is_lacking())),
        Err(errno) => Err(load_error("load", format!("{errno}; the kernel log may say more"))),
    }
}

/// Why the kernel did not find something that the module asked for.
fn what_is_lacking() -> &'static str {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        "the kernel lacks a symbol it needs; the kernel log names it"
    } else {
        "the kernel has no types (BTF): boot one with CONFIG_DEBUG_INFO_BTF=y, as Debian's are"
    }
}

/// Unloads the module. It is no error if it is not loaded.
///
/// # Errors
/// If entries are set: unset them first.
pub fn unload() -> Result<(), LiveError> {
    match rustix::system::delete_module(NAME, rustix::fs::OFlags::NONBLOCK.bits() as i32) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::WOULDBLOCK | Errno::BUSY) => Err(load_error("unload", "it is in use: unset every entry first")),
        Err(Errno::PERM) => Err(load_error("unload", "run as root")),
        Err(errno) => Err(load_error("unload", errno.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_every_file_that_the_makefile_and_the_sources_name() {
        let dir = tempfile::tempdir().unwrap();
        write_sources(dir.path()).unwrap();
        let makefile = fs::read_to_string(dir.path().join("Makefile")).unwrap();
        for object in makefile.split_whitespace().filter(|word| word.starts_with("kerf_")) {
            let sources = [".c", ".S"].map(|end| dir.path().join(object.replace(".o", end)));
            assert!(sources.iter().any(|file| file.is_file()), "{object}");
        }
        let kernel = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernel");
        for entry in fs::read_dir(kernel).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".h") || name.ends_with(".S") || (name.ends_with(".c") && !name.ends_with(".mod.c")) {
                assert!(dir.path().join(&name).is_file(), "{name} is not in SOURCES");
            }
        }
    }

    #[test]
    fn a_module_counts_as_built_while_its_sources_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(built(dir.path()), None);
        write_sources(dir.path()).unwrap();
        assert_eq!(built(dir.path()), None, "there are only sources");
        fs::write(dir.path().join("kerf.ko"), "").unwrap();
        assert_eq!(built(dir.path()), Some(dir.path().join("kerf.ko")));
        fs::write(dir.path().join("kerf.h"), "another").unwrap();
        assert_eq!(built(dir.path()), None);
    }

    #[test]
    fn names_missing_headers() {
        let dir = tempfile::tempdir().unwrap();
        let error = build(&dir.path().join("none"), dir.path()).unwrap_err().to_string();
        assert!(error.contains("no kernel headers"), "{error}");
    }
}
