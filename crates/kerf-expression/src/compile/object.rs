//! Programs as the object of a policy: an ELF file as a compiler would have made it.

use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

use super::Program;

/// The section of a program that decides begins with this; the constant follows.
const TUNE: &str = "kprobe/kerf:";
/// The helpers that read memory want it.
const LICENCE: &[u8] = b"GPL\0";

/// An object with a program for each constant: the constant's id, the program's name, the program.
///
/// # Errors
/// If a name cannot be written to an ELF file.
pub fn object(programs: &[(&str, &str, &Program)]) -> Result<Vec<u8>, object::write::Error> {
    let mut file = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    for (constant, name, program) in programs {
        let section = file.add_section(Vec::new(), format!("{TUNE}{constant}").into_bytes(), SectionKind::Text);
        file.append_section_data(section, &program.code, 8);
        file.add_symbol(symbol(name, program.code.len(), SymbolKind::Text, SymbolSection::Section(section)));
    }
    let section = file.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    file.append_section_data(section, LICENCE, 1);
    file.add_symbol(symbol("LICENSE", LICENCE.len(), SymbolKind::Data, SymbolSection::Section(section)));
    file.write()
}

fn symbol(name: &str, size: usize, kind: SymbolKind, section: SymbolSection) -> Symbol {
    Symbol {
        name: name.as_bytes().to_vec(),
        value: 0,
        size: size as u64,
        kind,
        scope: SymbolScope::Dynamic,
        weak: false,
        section,
        flags: SymbolFlags::None,
    }
}
