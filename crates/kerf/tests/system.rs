//! Kerf on a whole Debian system with systemd, in a virtual machine that boots it.

#[path = "system/life.rs"]
mod life;

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{done, kerf};

/// Makes the package in a directory, as a person would.
fn package(dir: &Path) -> PathBuf {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    let output = command.args(["xtask", "package", "--out"]).arg(dir).output().expect("cargo starts");
    done(&output).lines().last().expect("the package's path").into()
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
fn boot(image: &Path, options: &[&str], files: &[(&Path, &str)], script: &str) -> String {
    let image = image.to_str().expect("a path of plain characters");
    // With one CPU the emulator cannot run code that another CPU has just changed.
    common::run(&[&["--cpus", "1", "--timeout", "900", "--root", image], options].concat(), files, script)
}
