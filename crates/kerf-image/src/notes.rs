//! ELF notes: the build id.

use crate::bytes::{align_up, u32_at};
use crate::model::BuildId;

const NT_GNU_BUILD_ID: u32 = 3;

/// The build id in a sequence of notes, such as `/sys/kernel/notes` or the sections `.notes` and `.note.gnu.build-id`.
pub(crate) fn build_id(mut notes: &[u8]) -> Option<BuildId> {
    loop {
        let name_size = u32_at(notes, 0)? as usize;
        let size = u32_at(notes, 4)? as usize;
        let kind = u32_at(notes, 8)?;
        let start = 12usize.checked_add(align_up(name_size, 4)?)?;
        let name = notes.get(12..12usize.checked_add(name_size)?)?;
        let end = start.checked_add(size)?;
        let description = notes.get(start..end)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return BuildId::from_bytes(description);
        }
        // The padding of the last note may be missing.
        notes = notes.get(align_up(end, 4)?..)?;
    }
}
