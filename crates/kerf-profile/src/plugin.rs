//! Building the plugin, and how QEMU takes it.

use crate::error::ProfileError;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The package of the plugin's code, and the file that cargo makes of it.
const PACKAGE: &str = "kerf-profile-plugin";
const FILE: &str = "libkerf_profile_plugin.so";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the plugin of the workspace in `root`, below `target`, and tells where it is.
///
/// QEMU is a program with shared libraries, the workspace is built without: so this is a cargo run of its own, with a directory of
/// its own.
///
/// # Errors
/// When cargo cannot be started or does not build it.
pub fn build(root: &Path, target: &Path) -> Result<PathBuf, ProfileError> {
    let directory = target.join("plugin");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["rustc", "--quiet", "--lib", "--crate-type", "cdylib", "--package", PACKAGE]);
    cargo.args(["--target", TARGET, "--target-dir"]).arg(&directory);
    // The variable takes the place of the flags in .cargo/config.toml.
    cargo.env("RUSTFLAGS", "-C target-feature=-crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
    for (name, _) in std::env::vars_os() {
        // What `cargo run` and `cargo test` tell this process about its own package.
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    let output = cargo.stdin(Stdio::null()).output().map_err(|source| ProfileError::Cargo { source })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        return Err(ProfileError::Build { status: output.status.to_string(), output: said });
    }
    Ok(directory.join(TARGET).join("debug").join(FILE))
}

/// The plugin's arguments: it writes what it has counted to this file when the machine ends.
pub fn arguments(output: &Path) -> Vec<String> {
    vec![format!("out={}", output.display())]
}

/// The file that an argument `out=FILE` names, as the plugin is given it.
pub fn output_of(argument: &str) -> Option<&Path> {
    argument.strip_prefix("out=").filter(|path| !path.is_empty()).map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_understands_its_arguments() {
        for argument in arguments(Path::new("/tmp/a b,c.json")) {
            assert_eq!(output_of(&argument), Some(Path::new("/tmp/a b,c.json")));
        }
        assert_eq!(output_of("out="), None);
        assert_eq!(output_of("other=x"), None);
    }

    #[test]
    fn a_directory_without_the_plugin_gives_cargos_words() {
        let dir = tempfile::tempdir().unwrap();
        let error = build(dir.path(), dir.path()).unwrap_err().to_string();
        assert!(error.contains("Cargo.toml"), "{error}");
    }
}
