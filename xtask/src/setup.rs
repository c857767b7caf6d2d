//! What every word needs first: packages on this host, the distribution's kernel, its headers and its source.

use crate::steps::Steps;
use anyhow::Context;
use kerf_lab::host::{self, Need};
use kerf_lab::{Cache, Kernel};

/// What set-up gives.
pub struct Setup {
    /// Where it all is.
    pub cache: Cache,
    /// The kernel that is booted and changed; its source is prepared.
    pub kernel: Kernel,
}

impl Setup {
    /// Fetches and prepares what is missing; quick when nothing is.
    pub fn run(steps: &mut Steps) -> anyhow::Result<Self> {
        install(steps, &[Need::Machines, Need::Modules, Need::Source, Need::Proofs, Need::Policies])?;
        let mut progress = |what: &str| println!("    {what}");
        let cache = Cache::open_default().context("open the cache")?;
        let kernel = steps.need("the distribution's kernel and its headers", || {
            let kernel = kerf_lab::kernel(&cache, &mut progress).context("get the kernel")?;
            progress(&format!("{} in {}", kernel.release, cache.root().display()));
            Ok(kernel)
        })?;
        let source = steps.need("its source, configured as it was built", || {
            kerf_lab::source(&cache, &kernel, &mut progress).context("get the kernel's source")
        })?;
        let kernel = Kernel { source: Some(source), ..kernel };
        Ok(Setup { cache, kernel })
    }
}

/// Installs what is missing for these purposes, and says what.
pub fn install(steps: &mut Steps, needs: &[Need]) -> anyhow::Result<()> {
    let missing = host::missing(needs);
    let name = match missing.as_slice() {
        [] => "packages on this host".to_owned(),
        missing => format!("packages on this host: {} are missing", missing.join(", ")),
    };
    let mut progress = |what: &str| println!("    {what}");
    steps.need(&name, || host::install(needs, &mut progress).context("install packages"))
}
