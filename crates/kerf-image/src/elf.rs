//! ELF files as values: sections with addresses, and the bytes behind them.
//!
//! Relocatable files have no addresses. Their sections are laid out here, from [`FIRST_ADDRESS`] up, each on pages of
//! its own, so that one `u64` names a byte everywhere.

use std::ops::Range;

use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable};
use object::{LittleEndian, SectionIndex};

use crate::elf_symbols::{self, NameBudget};
use crate::error::Problem;
use crate::model::{ImageKind, Relocation, Section, Symbol, SymbolSource};

/// Where the first section of a relocatable file is put.
const FIRST_ADDRESS: u64 = 0x1_0000;

/// Sections of a relocatable file start on multiples of this.
const PAGE: u64 = 4096;

/// No section without bytes in the file (`.bss`) is larger than this.
const BSS_LIMIT: u64 = 4 << 30;

/// No section asks for a larger alignment than this.
const ALIGN_LIMIT: u64 = 1 << 30;

pub(crate) const LE: LittleEndian = LittleEndian;
pub(crate) type Header = FileHeader64<LittleEndian>;

/// An ELF file, read.
pub(crate) struct Elf {
    pub(crate) kind: ImageKind,
    pub(crate) sections: Vec<Section>,
    /// For each section, where its bytes are in the file; empty if it has none.
    pub(crate) ranges: Vec<Range<usize>>,
    /// In the order of the table.
    pub(crate) symbols: Vec<Symbol>,
    pub(crate) source: SymbolSource,
    /// For each section, the relocations of its fields; empty for linked files.
    pub(crate) relocations: Vec<Vec<Relocation>>,
}

/// Whether `bytes` begin like an ELF file.
pub(crate) fn detect(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// Reads an ELF file. What lies behind it in `bytes` (KASLR's relocations in a boot image) does not matter.
pub(crate) fn parse(bytes: &[u8]) -> Result<Elf, Problem> {
    check_machine(bytes)?;
    let header = Header::parse(bytes).map_err(damaged("the ELF header"))?;
    let relocatable = match header.e_type(LE) {
        elf::ET_REL => true,
        elf::ET_EXEC | elf::ET_DYN => false,
        other => {
            return Err(Problem::Unsupported { what: format!("ELF file type {}", other.0), hint: USE_LINKED.into() });
        }
    };
    let table = header.sections(LE, bytes).map_err(damaged("the ELF section headers"))?;
    if table.is_empty() {
        return from_segments(header, bytes);
    }
    let (mut sections, ranges) = read_sections(&table, bytes)?;
    if sections.iter().any(|section| section.name == ".interp") {
        return Err(Problem::Unsupported { what: "a user-space program".into(), hint: USE_LINKED.into() });
    }
    let kind = if relocatable {
        lay_out(&mut sections, &table)?;
        let module = sections.iter().any(|section| section.name == ".gnu.linkonce.this_module");
        if module { ImageKind::Module } else { ImageKind::Object }
    } else {
        ImageKind::Vmlinux
    };
    let symbols = elf_symbols::symbols(&table, bytes, &sections, relocatable)?;
    let relocations = if relocatable { elf_symbols::relocations(&table, bytes, &sections)? } else { Vec::new() };
    let source = if symbols.is_empty() {
        SymbolSource::Missing("the ELF file has no symbol table".into())
    } else {
        SymbolSource::ElfTable
    };
    Ok(Elf { kind, sections, ranges, symbols, source, relocations })
}

const USE_LINKED: &str = "use a linked vmlinux, a module or an object file";

/// Refuses what is not 64-bit little-endian x86, by name.
fn check_machine(bytes: &[u8]) -> Result<(), Problem> {
    let ident = bytes.get(..20).ok_or_else(|| Problem::Truncated {
        what: "the ELF header".into(),
        end: 64,
        have: bytes.len() as u64,
    })?;
    let foreign = |machine: &str| Err(Problem::Foreign { machine: machine.to_owned() });
    let machine = match (ident.get(5), ident.get(18..20)) {
        (Some(2), Some([high, low])) => u16::from_be_bytes([*high, *low]),
        (_, Some([low, high])) => u16::from_le_bytes([*low, *high]),
        _ => 0,
    };
    match (machine, ident.get(4..6)) {
        (62, Some([2, 1])) => Ok(()),
        (62, _) => foreign("x86-64 with 32-bit addresses (x32)"),
        (3, _) => foreign("32-bit x86 (i386)"),
        (183, _) => foreign("64-bit Arm"),
        (40, _) => foreign("32-bit Arm"),
        (243, _) => foreign("RISC-V"),
        (247, _) => foreign("eBPF"),
        (21, _) => foreign("64-bit PowerPC"),
        (22, _) => foreign("S/390"),
        (other, _) => foreign(&format!("ELF machine {other}")),
    }
}

/// Turns an error of the ELF reader into ours.
pub(crate) fn damaged<'a, E: std::fmt::Display>(what: &'a str) -> impl Fn(E) -> Problem + 'a {
    move |error| Problem::malformed(what, error.to_string())
}

/// The sections as the headers give them, and where their bytes are.
fn read_sections(table: &SectionTable<'_, Header>, bytes: &[u8]) -> Result<(Vec<Section>, Vec<Range<usize>>), Problem> {
    let mut sections = Vec::with_capacity(table.len());
    let mut ranges = Vec::with_capacity(table.len());
    let mut budget = NameBudget::new(bytes.len());
    for header in table.iter() {
        let name = table.section_name(LE, header).map_err(damaged("the name of an ELF section"))?;
        let name = budget.take(name)?.into_owned();
        let flags = header.sh_flags(LE);
        let backed = header.sh_type(LE) != elf::SHT_NOBITS && header.sh_type(LE) != elf::SHT_NULL;
        let range = if backed { file_range(&name, header.sh_offset(LE), header.sh_size(LE), bytes)? } else { 0..0 };
        let size = header.sh_size(LE);
        if !backed && size > BSS_LIMIT {
            return Err(Problem::TooLarge { what: format!("section {name}"), size, limit: BSS_LIMIT });
        }
        let alloc = flags.contains(elf::SHF_ALLOC);
        let section = Section {
            name,
            address: if alloc { header.sh_addr(LE) } else { 0 },
            size,
            alloc,
            exec: flags.contains(elf::SHF_EXECINSTR),
            write: flags.contains(elf::SHF_WRITE),
            file_backed: backed,
        };
        if alloc && section.address.checked_add(section.size).is_none() {
            return Err(Problem::malformed(format!("section {}", section.name), "it wraps around the address space"));
        }
        sections.push(section);
        ranges.push(range);
    }
    Ok((sections, ranges))
}

/// The bytes `offset..offset + size` of the file, if it has them.
fn file_range(name: &str, offset: u64, size: u64, bytes: &[u8]) -> Result<Range<usize>, Problem> {
    let end = offset.saturating_add(size);
    if end > bytes.len() as u64 {
        return Err(Problem::Truncated { what: format!("section {name}"), end, have: bytes.len() as u64 });
    }
    // Both are at most the length of a slice now.
    Ok(offset as usize..end as usize)
}

/// Gives the sections of a relocatable file addresses that do not overlap.
fn lay_out(sections: &mut [Section], table: &SectionTable<'_, Header>) -> Result<(), Problem> {
    let mut next = FIRST_ADDRESS;
    for (index, section) in sections.iter_mut().enumerate().filter(|(_, section)| section.alloc) {
        let header = table.section(SectionIndex(index)).map_err(damaged("the ELF section headers"))?;
        let align = header.sh_addralign(LE).max(1);
        if !align.is_power_of_two() || align > ALIGN_LIMIT {
            return Err(Problem::malformed(
                format!("section {}", section.name),
                format!("its alignment is {align:#x}"),
            ));
        }
        // Sizes are bounded by the file's length and `BSS_LIMIT`, so only absurd numbers of sections get near 2^64.
        let address = next.checked_next_multiple_of(align.max(PAGE));
        let end = address.and_then(|address| address.checked_add(section.size.max(1)));
        let (Some(address), Some(end)) = (address, end) else {
            return Err(Problem::malformed("the ELF section headers", "the sections do not fit 64 bits of addresses"));
        };
        section.address = address;
        next = end;
    }
    Ok(())
}

/// A linked file without section headers: its loadable segments serve as sections.
fn from_segments(header: &Header, bytes: &[u8]) -> Result<Elf, Problem> {
    let segments = header.program_headers(LE, bytes).map_err(damaged("the ELF program headers"))?;
    let mut sections = vec![];
    let mut ranges = vec![];
    for (index, segment) in segments.iter().enumerate().filter(|(_, segment)| segment.p_type(LE) == elf::PT_LOAD) {
        let name = format!("LOAD{index}");
        let (address, size) = (segment.p_vaddr(LE), segment.p_filesz(LE));
        let range = file_range(&name, segment.p_offset(LE), size, bytes)?;
        if address.checked_add(size).is_none() {
            return Err(Problem::malformed(format!("segment {name}"), "it wraps around the address space"));
        }
        let flags = segment.p_flags(LE);
        let (exec, write) = (flags.contains(elf::PF_X), flags.contains(elf::PF_W));
        sections.push(Section { name, address, size, alloc: true, exec, write, file_backed: true });
        ranges.push(range);
    }
    if sections.is_empty() {
        return Err(Problem::malformed("the ELF file", "it has neither sections nor loadable segments"));
    }
    let source = SymbolSource::Missing("the ELF file has no section headers".into());
    Ok(Elf { kind: ImageKind::Vmlinux, sections, ranges, symbols: vec![], source, relocations: vec![] })
}
