//! Kerf on a whole Debian system with systemd, in a virtual machine that boots it.

#[path = "system/life.rs"]
mod life;
#[path = "system/tour.rs"]
mod tour;

#[expect(dead_code, reason = "other tests need more of it")]
mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use common::{done, kerf};

/// The package, made once, as a person would.
fn package() -> &'static Path {
    static PACKAGE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    &PACKAGE.get_or_init(make_package).1
}

fn make_package() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    command.args(["xtask", "package", "--program", env!("CARGO_BIN_EXE_kerf"), "--out"]).arg(dir.path());
    let said = done(&command.output().expect("cargo starts"));
    let package = said.lines().last().expect("the package's path").into();
    (dir, package)
}

/// The program of this repository's words, which `cargo xtask` has built.
fn xtask() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_kerf")).with_file_name("xtask")
}

/// Makes a file system with these package files and files in it.
fn root(image: &Path, debs: &[&Path], files: &[(&Path, &str)]) {
    let mut command = kerf();
    command.args(["lab", "root"]).arg(image);
    for deb in debs {
        command.arg("--deb").arg(deb);
    }
    for (host, guest) in files {
        command.arg("--file").arg(format!("{}:{guest}", host.display()));
    }
    done(&command.output().expect("kerf starts"));
}

/// Boots a root, with more options of `kerf lab run`, and runs a script there when the system is up.
///
/// A whole system makes an emulator's mistakes likelier than a small one: a kernel that faults before any module of ours is in it, which
/// would taint it, gets a second chance with the file system as it was.
fn boot(image: &Path, options: &[&str], files: &[(&Path, &str)], script: &str) -> String {
    let before = image.with_extension("before");
    copy(image, &before);
    let name = image.to_str().expect("a path of plain characters");
    // With one CPU the emulator cannot run code that another CPU has just changed.
    let options = [&["--cpus", "1", "--timeout", "900", "--root", name], options].concat();
    let first = common::try_run(&options, files, script);
    if !first.status.success() && common::text(&first.stderr).contains("Not tainted") {
        copy(&before, image);
        return common::run(&options, files, script);
    }
    common::said(&first)
}

/// Copies a file that is mostly empty.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--sparse=always").args([from, to]).status().expect("cp starts");
    assert!(copied.success());
}
