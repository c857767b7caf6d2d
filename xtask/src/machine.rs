//! Virtual machines with the `kerf` program as their first process and this program at hand.

use crate::setup::Setup;
use crate::workspace::Workspace;
use anyhow::Context;
use kerf_lab::{FileSpec, Machine};
use std::path::Path;
use std::process::{Command, Stdio};

/// A machine in which `kerf` and `xtask` can be called by name.
pub fn with_this_program(workspace: &Workspace, setup: &Setup, kerf: &Path) -> anyhow::Result<Machine> {
    let program = std::env::current_exe().context("find this program")?;
    let small = workspace.directory("guest")?.join("xtask");
    // Debugging information only slows the guest down; without `strip` it goes along.
    let stripped = Command::new("strip").arg("-o").arg(&small).arg(&program).stderr(Stdio::null()).status();
    let host = if stripped.is_ok_and(|status| status.success()) { small } else { program };
    let mut machine = Machine::new(&setup.cache, setup.kernel.clone(), kerf);
    machine.files.push(FileSpec { host, guest: "/bin/xtask".into() });
    Ok(machine)
}
