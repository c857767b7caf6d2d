//! The symbols and relocations of ELF files.

use std::borrow::Cow;
use std::sync::Arc;

use object::elf;
use object::read::elf::{Rela, SectionHeader, SectionTable, Sym, SymbolTable};
use object::{LittleEndian, SectionIndex, SymbolIndex};

use crate::elf::{Header, LE, damaged};
use crate::error::Problem;
use crate::model::{Binding, Relocation, Section, Symbol, SymbolKind, Target};

type ElfSymbol = elf::Sym64<LittleEndian>;
type Symbols<'data> = SymbolTable<'data, Header>;

/// How much text names may take: string tables are shared, so a damaged file of a few megabytes could ask for
/// terabytes.
pub(crate) struct NameBudget(usize);

impl NameBudget {
    /// A budget for a file of `len` bytes.
    pub(crate) fn new(len: usize) -> NameBudget {
        NameBudget(len.saturating_mul(4).saturating_add(1 << 16))
    }

    /// `name` as text, if the budget allows.
    pub(crate) fn take<'n>(&mut self, name: &'n [u8]) -> Result<Cow<'n, str>, Problem> {
        self.0 = self.0.checked_sub(name.len()).ok_or_else(|| {
            Problem::malformed("the ELF string tables", "the names are many times longer than the file")
        })?;
        Ok(String::from_utf8_lossy(name))
    }
}

/// The defined symbols that have an address, in the table's order. Empty if there is no table.
pub(crate) fn symbols(
    table: &SectionTable<'_, Header>,
    bytes: &[u8],
    sections: &[Section],
    relocatable: bool,
) -> Result<Vec<Symbol>, Problem> {
    let entries = table.symbols(LE, bytes, elf::SHT_SYMTAB).map_err(damaged("the ELF symbol table"))?;
    let mut budget = NameBudget::new(bytes.len());
    let mut symbols = Vec::with_capacity(entries.len());
    for (index, entry) in entries.enumerate().skip(1) {
        if let Some(symbol) = symbol(&entries, index, entry, sections, relocatable, &mut budget)? {
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
    budget: &mut NameBudget,
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
        Some(section) if entry.st_type() == elf::STT_SECTION => budget.take(section.name.as_bytes())?.into(),
        _ => text(entries, entry, budget)?.into(),
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

fn text<'data>(
    entries: &Symbols<'data>,
    entry: &ElfSymbol,
    budget: &mut NameBudget,
) -> Result<Cow<'data, str>, Problem> {
    let name = entries.symbol_name(LE, entry).map_err(damaged("the name of an ELF symbol"))?;
    budget.take(name)
}

/// The relocations of every section that takes up memory, sorted by address.
pub(crate) fn relocations(
    table: &SectionTable<'_, Header>,
    bytes: &[u8],
    sections: &[Section],
) -> Result<Vec<Vec<Relocation>>, Problem> {
    let entries = table.symbols(LE, bytes, elf::SHT_SYMTAB).map_err(damaged("the ELF symbol table"))?;
    let names = vec![None; entries.len()];
    let mut reader = Reader { entries, sections, names, budget: NameBudget::new(bytes.len()) };
    let mut all = vec![Vec::new(); sections.len()];
    let mut total = 0;
    for header in table.iter() {
        let Some((rows, _)) = header.rela(LE, bytes).map_err(damaged("an ELF relocation section"))? else { continue };
        let fail = |why: String| Problem::malformed("an ELF relocation section", why);
        total += size_of_val(rows);
        if total > bytes.len() {
            return Err(fail("it shares its bytes with others".into()));
        }
        let index = header.sh_info(LE) as usize;
        let list = sections.get(index).zip(all.get_mut(index));
        let (section, list) = list.ok_or_else(|| fail(format!("it is about section {index}, which does not exist")))?;
        if section.alloc {
            for row in rows {
                list.push(reader.relocation(row, section)?);
            }
            list.sort_by_key(|relocation| relocation.address);
        }
    }
    Ok(all)
}

/// Reads relocations. Names are kept: many relocations share one.
struct Reader<'data> {
    entries: Symbols<'data>,
    sections: &'data [Section],
    names: Vec<Option<Arc<str>>>,
    budget: NameBudget,
}

impl Reader<'_> {
    fn relocation(&mut self, row: &elf::Rela64<LittleEndian>, section: &Section) -> Result<Relocation, Problem> {
        let offset = row.r_offset(LE);
        if offset >= section.size {
            return Err(Problem::malformed(
                format!("a relocation of section {}", section.name),
                format!("its offset {offset:#x} is outside the section's {:#x} bytes", section.size),
            ));
        }
        let symbol_index = row.r_sym(LE, false);
        let index = SymbolIndex(symbol_index as usize);
        let entry = self.entries.symbol(index).map_err(damaged("the symbol of a relocation"))?;
        let target = match place(&self.entries, index, entry, self.sections, true)? {
            _ if symbol_index == 0 => Target::Absolute(0),
            Place::Address(address, _) => Target::Address(address),
            Place::Absolute(value) => Target::Absolute(value),
            Place::Nowhere => Target::Undefined,
        };
        Ok(Relocation {
            address: section.address.wrapping_add(offset),
            r_type: row.r_type(LE, false).0,
            symbol_index,
            symbol: self.name(index, entry)?,
            addend: row.r_addend(LE),
            target,
        })
    }

    /// The name that a relocation shows: the symbol's, or the section's for a section symbol.
    fn name(&mut self, index: SymbolIndex, entry: &ElfSymbol) -> Result<Arc<str>, Problem> {
        if let Some(Some(name)) = self.names.get(index.0) {
            return Ok(name.clone());
        }
        let section = match entry.st_type() {
            elf::STT_SECTION => self
                .entries
                .symbol_section(LE, entry, index)
                .map_err(damaged("the section of an ELF symbol"))?
                .and_then(|section| self.sections.get(section.0)),
            _ => None,
        };
        let name: Arc<str> = match section {
            Some(section) => self.budget.take(section.name.as_bytes())?.into(),
            None => text(&self.entries, entry, &mut self.budget)?.into(),
        };
        if let Some(slot) = self.names.get_mut(index.0) {
            *slot = Some(name.clone());
        }
        Ok(name)
    }
}
