//! `kerf lab-init`: the first process of a lab machine.

use anyhow::Context;

/// Sets the guest up, runs its command and powers it off.
pub fn run() -> anyhow::Result<u8> {
    kerf_lab::guest::run().context("run as a guest's first process")?;
    Ok(0)
}
