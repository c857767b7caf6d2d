//! The kernel's source, unpacked and ready to compile single units.

use crate::cache::Cache;
use crate::error::LabError;
use crate::kernel::Kernel;
use crate::progress::Progress;
use std::path::PathBuf;

/// The prepared source tree of this kernel.
pub fn source(_cache: &Cache, kernel: &Kernel, _progress: &mut dyn Progress) -> Result<PathBuf, LabError> {
    kernel.source.clone().ok_or_else(|| LabError::Archive { reason: "not there".into() })
}

pub(crate) fn prepared(_cache: &Cache, _version: &str) -> Option<PathBuf> {
    None
}
