//! This repository: its directories, cargo run inside it, and the `kerf` program built from it.

use anyhow::{Context, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where things are.
pub struct Workspace {
    /// The repository.
    pub root: PathBuf,
    /// Cargo's target directory; everything that xtask makes goes below it.
    pub target: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    pub fn find() -> anyhow::Result<Self> {
        // `cargo run` says where the package is now; the compiled-in path may be that of another clone.
        let package =
            std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = package.parent().unwrap_or(Path::new(".")).to_owned();
        let mut command = cargo(&root);
        command.args(["metadata", "--format-version=1", "--no-deps", "--offline"]).stderr(Stdio::inherit());
        let output = command.output().context("run cargo metadata")?;
        let metadata: Value = serde_json::from_slice(&output.stdout).context("read what cargo metadata prints")?;
        let target = metadata["target_directory"].as_str().context("find the target directory in cargo's metadata")?;
        Ok(Workspace { target: target.into(), root })
    }

    /// Cargo in the root of this repository.
    pub fn cargo(&self) -> Command {
        cargo(&self.root)
    }

    /// A directory below the target directory, made if it is missing.
    pub fn directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.target.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// Builds the `kerf` program and tells where it is.
    pub fn build_kerf(&self) -> anyhow::Result<PathBuf> {
        let mut command = self.cargo();
        command.args(["build", "--quiet", "--package", "kerf", "--message-format=json-render-diagnostics"]);
        let output = command.stderr(Stdio::inherit()).output().context("run cargo build")?;
        if !output.status.success() {
            bail!("build kerf: cargo ended with {}", output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        executable(&text, "kerf").context("find the program that cargo has built")
    }
}

/// Cargo without what `cargo run` has told this process about its own package.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}

/// The path of a program in cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = artifacts.filter(|message| message["target"]["name"] == name);
    programs.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_the_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"kerf_lab"},"executable":null}
            no message
            {"reason":"compiler-artifact","target":{"name":"kerf"},"executable":"/t/debug/kerf"}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "kerf"), Some("/t/debug/kerf".into()));
        assert_eq!(executable(messages, "other"), None);
    }
}
