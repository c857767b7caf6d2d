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
    let ours = || status.entries.iter().flat_map(|entry| &entry.locations).filter(|location| location.target == name);
    let read = |offset: u64, len: usize| {
        let mut bytes = image.bytes(base.checked_add(offset)?, len)?.into_owned();
        ours().for_each(|location| put_back(&mut bytes, offset, (location.image_offset, &location.stock)));
        Some(bytes)
    };
    let build_id: Option<BuildId> = running::module_build_id(name).and_then(|id| id.parse().ok());
    let build_id = build_id.with_context(|| format!("find the build id of the loaded module {name}"))?;
    Ok(make(&Running { slide, module: Some(ModuleText { build_id, read: &read }) })?)
}

/// Puts stock bytes that lie at another offset of the same text into a piece of it: what is in force there now is our own.
fn put_back(bytes: &mut [u8], offset: u64, (at, stock): (u64, &[u8])) {
    for (n, stock) in (at..).zip(stock) {
        let place = n.checked_sub(offset).and_then(|place| usize::try_from(place).ok());
        if let Some(byte) = place.and_then(|place| bytes.get_mut(place)) {
            *byte = *stock;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_changes_are_not_seen() {
        let put = |at, stock: &[u8]| {
            let mut bytes = [9; 4];
            put_back(&mut bytes, 10, (at, stock));
            bytes
        };
        assert_eq!(put(11, &[1, 2]), [9, 1, 2, 9]);
        assert_eq!(put(8, &[1, 2, 3]), [3, 9, 9, 9]);
        assert_eq!(put(13, &[1, 2, 3]), [9, 9, 9, 1]);
        assert_eq!(put(20, &[1]), [9; 4]);
    }
}
