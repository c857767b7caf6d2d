//! Debug information of a compiled object: its sections, with relocations applied as a linker would.

use std::borrow::Cow;
use std::collections::HashMap;

use gimli::{EndianSlice, LittleEndian, SectionId};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget};

use crate::error::ConstError;

/// Bytes of a debug section.
pub type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Sections of an object by name.
pub struct Sections {
    found: HashMap<String, Vec<u8>>,
    functions: HashMap<String, u64>,
}

pub fn malformed(error: impl std::fmt::Display) -> ConstError {
    ConstError::Internal(format!("cannot read the debug information of a compiled object: {error}"))
}

/// Sections of code begin at addresses of their own, so that places in two of them are never mistaken.
fn base(section: usize) -> u64 {
    (section as u64) << 32
}

impl Sections {
    /// Reads an object.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn of(object: &[u8]) -> Result<Sections, ConstError> {
        let file = object::File::parse(object).map_err(malformed)?;
        let address = |symbol: &object::Symbol| {
            let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
            let code = section.filter(|s| s.kind() == object::SectionKind::Text);
            symbol.address() + code.map_or(0, |s| base(s.index().0))
        };
        let mut found = HashMap::new();
        for section in file.sections() {
            let Ok(name) = section.name() else { continue };
            if !name.starts_with(".debug_") {
                continue;
            }
            let data: Cow<[u8]> = section.uncompressed_data().map_err(malformed)?;
            let mut data = data.into_owned();
            for (offset, relocation) in section.relocations() {
                let RelocationTarget::Symbol(index) = relocation.target() else { continue };
                let symbol = file.symbol_by_index(index).map_err(malformed)?;
                let value = (address(&symbol) as i64).wrapping_add(relocation.addend()) as u64;
                let width = usize::from(relocation.size() / 8);
                if let Some(field) = data.get_mut(offset as usize..offset as usize + width) {
                    field.copy_from_slice(&value.to_le_bytes()[..width]);
                }
            }
            found.insert(name.to_string(), data);
        }
        let functions = file
            .symbols()
            .filter(|s| s.kind() == object::SymbolKind::Text)
            .filter_map(|s| Some((s.name().ok()?.to_string(), address(&s))))
            .collect();
        Ok(Sections { found, functions })
    }

    /// A section's bytes; none if the object has no such section.
    pub fn section(&self, id: SectionId) -> Slice<'_> {
        EndianSlice::new(self.found.get(id.name()).map_or(&[][..], Vec::as_slice), LittleEndian)
    }

    /// All of it, for reading types and variables.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn dwarf(&self) -> Result<gimli::Dwarf<Slice<'_>>, ConstError> {
        gimli::Dwarf::load(|id| Ok::<_, gimli::Error>(self.section(id))).map_err(malformed)
    }

    /// The function that begins at an address of the debug information.
    pub fn function_at(&self, address: u64) -> Option<&str> {
        self.functions.iter().find(|(_, start)| **start == address).map(|(name, _)| name.as_str())
    }

    /// Where a function begins, in the addresses of the debug information.
    pub fn function(&self, name: &str) -> Option<u64> {
        self.functions.get(name).copied()
    }
}
