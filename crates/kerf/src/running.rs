//! What can be known of the running kernel without the module.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The kernel's notes.
const NOTES: &str = "/sys/kernel/notes";

/// What `uname -r` prints.
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The running kernel's build id, hexadecimal.
///
/// # Errors
/// If the kernel does not show it.
pub fn build_id() -> anyhow::Result<String> {
    let notes = fs::read(NOTES).with_context(|| format!("read the running kernel's build id from {NOTES}"))?;
    note_build_id(&notes).with_context(|| format!("find a build id in {NOTES}: the kernel was linked without one"))
}

/// The build id of a loaded module, from its own notes.
pub fn module_build_id(name: &str) -> Option<String> {
    note_build_id(&fs::read(format!("/sys/module/{name}/notes/.note.gnu.build-id")).ok()?)
}

/// Where a loaded module's text begins. Root's to know.
pub fn module_text(name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/sys/module/{name}/sections/.text")).ok()?;
    u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok().filter(|address| *address != 0)
}

/// Whether a module has started and is not on its way out.
pub fn module_is_live(name: &str) -> bool {
    module_state(name).is_some_and(|state| state == "live")
}

/// Whether a module is being loaded.
pub fn module_is_starting(name: &str) -> bool {
    module_state(name).is_some_and(|state| state == "coming")
}

fn module_state(name: &str) -> Option<String> {
    let file = format!("/sys/module/{}/initstate", name.replace('-', "_"));
    Some(fs::read_to_string(file).ok()?.trim().to_owned())
}

/// Headers that modules for the running kernel are built against.
pub fn headers() -> PathBuf {
    Path::new("/lib/modules").join(release()).join("build")
}

/// The GNU build id in a sequence of ELF notes.
fn note_build_id(mut notes: &[u8]) -> Option<String> {
    let word = |bytes: &[u8], at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    loop {
        let (name, content, kind) = (word(notes, 0)?, word(notes, 4)?, word(notes, 8)?);
        let start = 12usize.checked_add(name.checked_next_multiple_of(4)?)?;
        let end = start.checked_add(content)?;
        if kind == 3 && notes.get(12..12 + name.min(4)) == Some(b"GNU\0") {
            return Some(notes.get(start..end)?.iter().map(|b| format!("{b:02x}")).collect());
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for n in [name.len() as u32, content.len() as u32, kind] {
            bytes.extend(n.to_le_bytes());
        }
        for part in [name, content] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn the_build_id_is_found_behind_other_notes() {
        let mut notes = note(b"Linux\0", 257, &[1, 2, 3]);
        notes.extend(note(b"GNU\0", 3, &[0xab, 0x01]));
        assert_eq!(note_build_id(&notes).as_deref(), Some("ab01"));
        assert_eq!(note_build_id(&notes[..notes.len() - 6]), None);
        assert_eq!(note_build_id(&note(b"Xen\0", 3, &[1])), None);
        assert_eq!(note_build_id(&[0xff; 40]), None);
    }
}
