//! Loaded modules as targets: which build it is, and where its sections ended up.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::{BuildId, LiveError, Target};

/// A module that is loaded now. Needs root: others are shown zeros for addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedModule {
    /// Its name, with underscores.
    pub name: String,
    /// Of the module file.
    pub build_id: BuildId,
    /// Address at which its text starts; offsets of locations count from here.
    pub base: u64,
    /// Addresses of its sections that stayed, by name.
    pub sections: BTreeMap<String, u64>,
}

impl LoadedModule {
    /// Looks a module up by name; dashes count as underscores.
    ///
    /// # Errors
    /// [`LiveError::NotFound`] if it is not loaded or has no build id; [`LiveError::NotPermitted`] without root.
    pub fn find(name: &str) -> Result<LoadedModule, LiveError> {
        LoadedModule::find_under(Path::new("/"), name)
    }

    fn find_under(root: &Path, name: &str) -> Result<LoadedModule, LiveError> {
        let name = name.replace('-', "_");
        let missing = |what: &str| LiveError::NotFound(format!("module {name}: {what}"));
        let modules = fs::read_to_string(root.join("proc/modules")).map_err(|_| missing("/proc/modules is missing"))?;
        let line = modules.lines().find(|line| line.split(' ').next() == Some(name.as_str()));
        let address = line.ok_or_else(|| missing("not loaded"))?.split(' ').nth(5).unwrap_or_default();
        let base = hexadecimal(address).ok_or_else(|| missing("no address in /proc/modules"))?;
        if base == 0 {
            return Err(LiveError::NotPermitted);
        }
        let directory = root.join("sys/module").join(&name);
        let note = fs::read(directory.join("notes/.note.gnu.build-id")).map_err(|_| missing("it has no build id"))?;
        // A note is three 32-bit numbers, the name `GNU` and the id.
        let build_id = note.get(16..).and_then(|id| BuildId::from_bytes(id).ok());
        let build_id = build_id.ok_or_else(|| missing("its build id is malformed"))?;
        let mut sections = BTreeMap::new();
        for entry in fs::read_dir(directory.join("sections")).into_iter().flatten().flatten() {
            let address = fs::read_to_string(entry.path()).ok().and_then(|text| hexadecimal(text.trim()));
            if let (Ok(section), Some(address)) = (entry.file_name().into_string(), address) {
                sections.insert(section, address);
            }
        }
        Ok(LoadedModule { name, build_id, base, sections })
    }

    /// Offset from the start of the module's text to the start of one of its sections.
    pub fn section_offset(&self, section: &str) -> Option<u64> {
        self.sections.get(section)?.checked_sub(self.base)
    }

    /// This module as the target of a location.
    pub fn target(&self) -> Target {
        Target::Module { name: self.name.clone(), build_id: self.build_id.clone() }
    }
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(address: &str, note: &[u8]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let module = root.path().join("sys/module/null_blk");
        for directory in ["proc", "sys/module/null_blk/notes", "sys/module/null_blk/sections"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let line = format!("ext4 1 0 - Live 0xffffffffc0000000\nnull_blk 1 0 - Live {address}\n");
        fs::write(root.path().join("proc/modules"), line).unwrap();
        fs::write(module.join("notes/.note.gnu.build-id"), note).unwrap();
        fs::write(module.join("sections/.text"), "0xffffffffc0200040\n").unwrap();
        fs::write(module.join("sections/.init.data"), "0x0000000000000000\n").unwrap();
        root
    }

    const NOTE: [u8; 18] = [4, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, b'G', b'N', b'U', 0, 0xab, 0xcd];

    #[test]
    fn finds_text_and_build() {
        let root = machine("0xffffffffc0200000", &NOTE);
        let module = LoadedModule::find_under(root.path(), "null-blk").unwrap();
        assert_eq!((module.base, module.build_id.to_string()), (0xffff_ffff_c020_0000, "abcd".to_owned()));
        assert_eq!(module.section_offset(".text"), Some(0x40));
        assert_eq!(module.section_offset(".init.data"), None);
        assert_eq!(module.section_offset(".nonesuch"), None);
    }

    #[test]
    fn says_what_is_missing() {
        let hidden = machine("0x0000000000000000", &NOTE);
        assert!(matches!(LoadedModule::find_under(hidden.path(), "null_blk"), Err(LiveError::NotPermitted)));
        let anonymous = machine("0xffffffffc0200000", &NOTE[..16]);
        let error = LoadedModule::find_under(anonymous.path(), "null_blk").unwrap_err();
        assert_eq!(error.to_string(), "not found: module null_blk: its build id is malformed");
        let error = LoadedModule::find_under(anonymous.path(), "brd").unwrap_err();
        assert_eq!(error.to_string(), "not found: module brd: not loaded");
    }
}
