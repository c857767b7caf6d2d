//! The symbols and relocations of ELF files.

use std::sync::Arc;

use object::elf;
use object::read::elf::{Rela, SectionHeader, SectionTable, Sym, SymbolTable};
use object::{LittleEndian, SectionIndex, SymbolIndex};

use crate::elf::{Header, LE, damaged};
use crate::error::Problem;
use crate::model::{Binding, Relocation, Section, Symbol, SymbolKind, Target};

type ElfSymbol = elf::Sym64<LittleEndian>;
type Symbols<'data> = SymbolTable<'data, Header>;

/// The defined symbols that have an address, in the table's order. Empty if there is no table.
pub(crate) fn symbols(
    table: &SectionTable<'_, Header>,
    bytes: &[u8],
    sections: &[Section],
    relocatable: bool,
) -> Result<Vec<Symbol>, Problem> {
    let entries = table.symbols(LE, bytes, elf::SHT_SYMTAB).map_err(damaged("the ELF symbol table"))?;
    let mut symbols = Vec::with_capacity(entries.len());
    for (index, entry) in entries.enumerate().skip(1) {
        if let Some(symbol) = symbol(&entries, index, entry, sections, relocatable)? {
            symbols.push(symbol);
        }
    }
    Ok(symbols)
}

/// One symbol; `None` if it is undefined, names a file, or lies in a section that takes up no memory.
fn symbol(
    entries: &Symbols<'_>,
    index: SymbolIndex,
    entry: &ElfSymbol,
    sections: &[Section],
    relocatable: bool,
) -> Result<Option<Symbol>, Problem> {
    if entry.st_type() == elf::STT_FILE {
        return Ok(None);
    }
    let place = place(entries, index, entry, sections, relocatable)?;
    let (address, section) = match place {
        Place::Address(address, section) => (address, Some(section)),
        Place::Absolute(value) => (value, None),
        Place::Nowhere => return Ok(None),
    };
    let name: Box<str> = match section.and_then(|section| sections.get(section)) {
        Some(section) if entry.st_type() == elf::STT_SECTION => section.name.as_str().into(),
        _ => text(entries, entry)?.into(),
    };
    let exec = section.and_then(|section| sections.get(section)).is_some_and(|section| section.exec);
    let kind = kind(entry.st_type(), &name, section.is_some(), exec);
    let binding = match entry.st_bind() {
        elf::STB_LOCAL => Binding::Local,
        elf::STB_WEAK => Binding::Weak,
        _ => Binding::Global,
    };
    Ok(Some(Symbol { name, address, size: Some(entry.st_size(LE)), kind, binding, section, module: None }))
}

/// What an ELF symbol names. Labels of assembler code often have no type: the section decides.
fn kind(st_type: elf::SymbolType, name: &str, placed: bool, exec: bool) -> SymbolKind {
    match st_type {
        _ if is_padding(name) => SymbolKind::Other,
        elf::STT_FUNC | elf::STT_GNU_IFUNC => SymbolKind::Function,
        elf::STT_OBJECT | elf::STT_COMMON | elf::STT_TLS => SymbolKind::Data,
        elf::STT_SECTION => SymbolKind::Section,
        elf::STT_NOTYPE if placed && !exec => SymbolKind::Data,
        _ => SymbolKind::Other,
    }
}

/// Whether a symbol names the padding before a function rather than the function.
pub(crate) fn is_padding(name: &str) -> bool {
    name.starts_with("__pfx_") || name.starts_with("__cfi_")
}

enum Place {
    /// An address, and the section that holds it.
    Address(u64, usize),
    Absolute(u64),
    Nowhere,
}

/// Where a symbol is.
fn place(
    entries: &Symbols<'_>,
    index: SymbolIndex,
    entry: &ElfSymbol,
    sections: &[Section],
    relocatable: bool,
) -> Result<Place, Problem> {
    if entry.is_absolute(LE) {
        return Ok(Place::Absolute(entry.st_value(LE)));
    }
    let section = entries.symbol_section(LE, entry, index).map_err(damaged("the section of an ELF symbol"))?;
    let Some(SectionIndex(index)) = section else { return Ok(Place::Nowhere) };
    let section = sections.get(index).ok_or_else(|| {
        Problem::malformed("the ELF symbol table", format!("a symbol lies in section {index}, which does not exist"))
    })?;
    if !section.alloc {
        return Ok(Place::Nowhere);
    }
    let base = if relocatable { section.address } else { 0 };
    Ok(Place::Address(base.wrapping_add(entry.st_value(LE)), index))
}

fn text<'data>(entries: &Symbols<'data>, entry: &ElfSymbol) -> Result<std::borrow::Cow<'data, str>, Problem> {
    let name = entries.symbol_name(LE, entry).map_err(damaged("the name of an ELF symbol"))?;
    Ok(String::from_utf8_lossy(name))
}

/// The relocations of every section that takes up memory, sorted by address.
pub(crate) fn relocations(
    table: &SectionTable<'_, Header>,
    bytes: &[u8],
    sections: &[Section],
) -> Result<Vec<Vec<Relocation>>, Problem> {
    let entries = table.symbols(LE, bytes, elf::SHT_SYMTAB).map_err(damaged("the ELF symbol table"))?;
    let mut all = vec![Vec::new(); sections.len()];
    let mut names: Vec<Option<Arc<str>>> = vec![None; entries.len()];
    for header in table.iter() {
        let Some((rows, _)) = header.rela(LE, bytes).map_err(damaged("an ELF relocation section"))? else { continue };
        let index = header.sh_info(LE) as usize;
        let section = sections.get(index).ok_or_else(|| {
            Problem::malformed(
                "an ELF relocation section",
                format!("it is about section {index}, which does not exist"),
            )
        })?;
        if !section.alloc {
            continue;
        }
        let Some(list) = all.get_mut(index) else { continue };
        list.reserve(rows.len());
        for row in rows {
            list.push(relocation(row, section, &entries, sections, &mut names)?);
        }
        list.sort_by_key(|relocation| relocation.address);
    }
    Ok(all)
}

fn relocation(
    row: &elf::Rela64<LittleEndian>,
    section: &Section,
    entries: &Symbols<'_>,
    sections: &[Section],
    names: &mut [Option<Arc<str>>],
) -> Result<Relocation, Problem> {
    let offset = row.r_offset(LE);
    if offset >= section.size {
        return Err(Problem::malformed(
            format!("a relocation of section {}", section.name),
            format!("its offset {offset:#x} is outside the section's {:#x} bytes", section.size),
        ));
    }
    let symbol_index = row.r_sym(LE, false);
    let index = SymbolIndex(symbol_index as usize);
    let entry = entries.symbol(index).map_err(damaged("the symbol of a relocation"))?;
    let target = match place(entries, index, entry, sections, true)? {
        _ if symbol_index == 0 => Target::Absolute(0),
        Place::Address(address, _) => Target::Address(address),
        Place::Absolute(value) => Target::Absolute(value),
        Place::Nowhere => Target::Undefined,
    };
    let symbol = match names.get_mut(index.0) {
        Some(Some(name)) => name.clone(),
        Some(slot) => slot.insert(relocation_name(entries, index, entry, sections)?).clone(),
        None => relocation_name(entries, index, entry, sections)?,
    };
    Ok(Relocation {
        address: section.address.wrapping_add(offset),
        r_type: row.r_type(LE, false).0,
        symbol_index,
        symbol,
        addend: row.r_addend(LE),
        target,
    })
}

/// The name that a relocation shows: the symbol's, or the section's for a section symbol.
fn relocation_name(
    entries: &Symbols<'_>,
    index: SymbolIndex,
    entry: &ElfSymbol,
    sections: &[Section],
) -> Result<Arc<str>, Problem> {
    if entry.st_type() == elf::STT_SECTION {
        let section = entries.symbol_section(LE, entry, index).map_err(damaged("the section of an ELF symbol"))?;
        if let Some(section) = section.and_then(|section| sections.get(section.0)) {
            return Ok(section.name.as_str().into());
        }
    }
    Ok(text(entries, entry)?.into())
}
