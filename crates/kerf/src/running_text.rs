//! What has to be known of the running kernel before bytes are made for it.

use anyhow::Context;
use kerf_const::ConstError;
use kerf_const::apply::{ModuleText, Running};
use kerf_const::entry::Entry;
use kerf_image::Image;
use kerf_live::{BuildId, Status};

use crate::running;

/// Calls `make` with how far the running kernel lies from where the entry's image was linked, and with the text of the module
/// that holds the constant if it is loaded.
pub fn with_running<T>(
    entry: &Entry,
    status: &Status,
    make: impl FnOnce(&Running) -> Result<T, ConstError>,
) -> anyhow::Result<T> {
    if entry.image.text == 0 {
        let why = "it does not say where its image was linked".into();
        return Err(ConstError::Damaged { id: entry.label().into(), why }.into());
    }
    let slide = status.text_base.wrapping_sub(entry.image.text);
    let Some(name) = entry.image.module.as_deref().filter(|name| running::module_text(name).is_some()) else {
        return Ok(make(&Running { slide, module: None })?);
    };
    let image = Image::running().map_err(ConstError::from)?;
    let base = running::module_text(name).unwrap_or(0);
    let read = |offset: u64, len: usize| image.bytes(base.checked_add(offset)?, len).map(|b| b.into_owned());
    let build_id: Option<BuildId> = running::module_build_id(name).and_then(|id| id.parse().ok());
    let build_id = build_id.with_context(|| format!("find the build id of the loaded module {name}"))?;
    Ok(make(&Running { slide, module: Some(ModuleText { build_id, read: &read }) })?)
}
