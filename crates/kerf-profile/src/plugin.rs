//! Building the plugin, and how QEMU takes it.

use crate::cache::Geometry;
use crate::error::ProfileError;
use crate::gather::{Detail, Wanted};
use crate::model::Model;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The package of the plugin's code.
const PACKAGE: &str = "kerf-profile-plugin";
/// The file's name, wherever it lies.
pub const FILE: &str = "libkerf_profile_plugin.so";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the plugin of the workspace in `root`, below `target`, and tells where it is.
///
/// QEMU is a program with shared libraries, the workspace is built without: so this is a cargo run of its own, with a directory of
/// its own. It is optimised whatever this program is: QEMU calls it many million times a second.
///
/// # Errors
/// When cargo cannot be started or does not build it.
pub fn build(root: &Path, target: &Path) -> Result<PathBuf, ProfileError> {
    let directory = target.join("plugin");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args([
        "rustc",
        "--quiet",
        "--release",
        "--lib",
        "--crate-type",
        "cdylib",
        "--package",
        PACKAGE,
    ]);
    cargo.args(["--target", TARGET, "--target-dir"]).arg(&directory);
    // The variable takes the place of the flags in .cargo/config.toml.
    cargo.env("RUSTFLAGS", "-C target-feature=-crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
    // One piece of code, as the calls go from crate to crate.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "fat").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    cargo.env("CARGO_PROFILE_RELEASE_PANIC", "abort");
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
    Ok(directory.join(TARGET).join("release").join(FILE))
}

/// What the plugin is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// The file that it writes what it has counted to when the machine ends.
    pub output: PathBuf,
    /// What it counts.
    pub wanted: Wanted,
    /// All CPUs are run in turns by one thread, so that there may be more than one.
    pub turns: bool,
}

const DETAILS: [(&str, Detail); 4] =
    [("sums", Detail::Sums), ("blocks", Detail::Blocks), ("flow", Detail::Flow), ("caches", Detail::Caches)];

impl Settings {
    /// As arguments for QEMU, `name=value`.
    pub fn arguments(&self) -> Vec<String> {
        let Settings { output, wanted: Wanted { detail, model }, turns } = self;
        let detail = DETAILS.iter().find(|(_, known)| known == detail).map_or("", |(name, _)| name);
        let mut arguments = vec![format!("out={}", output.display()), format!("detail={detail}")];
        for (name, geometry) in caches(*model) {
            arguments.push(format!("{name}={geometry}"));
        }
        arguments.extend(turns.then(|| "turns=on".to_owned()));
        arguments
    }

    /// Out of arguments as the plugin is given them.
    ///
    /// # Errors
    /// The argument that is missing or not known.
    pub fn of<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Settings, String> {
        let mut settings = Settings::default();
        for argument in arguments {
            settings.set(argument).ok_or_else(|| format!("the argument {argument} is not known"))?;
        }
        if settings.output.as_os_str().is_empty() {
            return Err("the argument out=FILE is missing".into());
        }
        Ok(settings)
    }

    fn set(&mut self, argument: &str) -> Option<()> {
        let (name, value) = argument.split_once('=')?;
        let model = &mut self.wanted.model;
        let cache = || Geometry::entries(value).ok();
        match name {
            "out" => self.output = value.into(),
            "detail" => self.wanted.detail = DETAILS.iter().find(|(known, _)| *known == value)?.1,
            "turns" => self.turns = value == "on",
            "l1i" => model.l1i = cache()?,
            "l1d" => model.l1d = cache()?,
            "l2" => model.l2 = cache()?,
            "itlb" => model.itlb = cache()?,
            "itlb-large" => model.itlb_large = cache()?,
            _ => return None,
        }
        Some(())
    }
}

/// The caches of a model, by name.
pub fn caches(model: Model) -> [(&'static str, Geometry); 5] {
    let Model { l1i, l1d, l2, itlb, itlb_large } = model;
    [("l1i", l1i), ("l1d", l1d), ("l2", l2), ("itlb", itlb), ("itlb-large", itlb_large)]
}

/// Arguments of a plugin that counts instructions and blocks in sum and writes them to this file.
pub fn arguments(output: &Path) -> Vec<String> {
    Settings { output: output.to_owned(), ..Settings::default() }.arguments()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_understands_its_arguments() {
        let read = |arguments: &[String]| Settings::of(arguments.iter().map(String::as_str));
        let plain = Settings { output: "/tmp/a b,c.json".into(), ..Settings::default() };
        assert_eq!(read(&arguments(&plain.output)), Ok(plain.clone()));
        for (_, detail) in DETAILS {
            let model = Model { l1d: "64K/4".parse().unwrap(), ..Model::default() };
            let settings = Settings { wanted: Wanted { detail, model }, turns: true, ..plain.clone() };
            assert_eq!(read(&settings.arguments()), Ok(settings));
        }
        for bad in ["out=", "other=x", "detail=all", "l1d=7", "turns"] {
            assert!(Settings::of([bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_without_the_plugin_gives_cargos_words() {
        let dir = tempfile::tempdir().unwrap();
        let error = build(dir.path(), dir.path()).unwrap_err().to_string();
        assert!(error.contains("Cargo.toml"), "{error}");
    }
}
