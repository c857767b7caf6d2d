//! Finds, fetches and extracts the distribution's kernel packages.

use crate::cache::Cache;
use crate::error::LabError;
use crate::kernel::Kernel;
use crate::progress::Progress;

/// The kernel that the lab boots by default.
pub fn kernel(cache: &Cache, _progress: &mut dyn Progress) -> Result<Kernel, LabError> {
    let releases = cache.releases();
    let Some(release) = releases.last() else {
        return Err(LabError::NoSuchKernel { name: "(any)".into(), cached: releases });
    };
    Kernel::cached(cache, release)
}

pub(crate) fn version_of(_kernel: &Kernel) -> Option<String> {
    None
}
