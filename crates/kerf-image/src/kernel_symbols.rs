//! Symbols from kallsyms, embedded or of the running kernel: kinds, sections and sizes, which kallsyms does not have.

use crate::elf_symbols::is_padding;
use crate::kallsyms::{self, RawSymbol};
use crate::model::{Binding, Section, Symbol, SymbolKind};
use crate::space::Space;

/// Finds the tables in an image's sections. `data` gives a section's bytes.
pub(crate) fn embedded<'a>(sections: &[Section], data: impl Fn(usize) -> &'a [u8]) -> Option<Vec<Symbol>> {
    let space = Space::new(sections);
    let candidates = sections.iter().enumerate().filter(|(_, section)| section.alloc && section.file_backed);
    let raw = candidates
        .into_iter()
        .find_map(|(index, _)| kallsyms::find(data(index), |symbols| plausible(symbols, sections, &space, &data)))?;
    Some(complete(raw.into_iter().map(|raw| (raw, None)), sections, &space))
}

/// Whether a reading of the tables fits the image: nearly all addresses are inside, the text starts in code, and the
/// banner is where its symbol says.
fn plausible<'a>(
    symbols: &[RawSymbol],
    sections: &[Section],
    space: &Space,
    data: &impl Fn(usize) -> &'a [u8],
) -> bool {
    let inside = symbols.iter().filter(|symbol| space.section_at(symbol.address).is_some()).count();
    let mut anchors = 0;
    for symbol in symbols {
        let section = || space.section_at(symbol.address).and_then(|index| Some((index, sections.get(index)?)));
        let holds = match &*symbol.name {
            "_text" | "_stext" => section().is_some_and(|(_, section)| section.exec),
            "linux_banner" => section().is_some_and(|(index, section)| {
                let offset = (symbol.address - section.address) as usize;
                data(index).get(offset..).is_some_and(|bytes| bytes.starts_with(b"Linux version "))
            }),
            _ => continue,
        };
        if !holds {
            return false;
        }
        anchors += 1;
    }
    anchors > 0 && inside * 10 >= symbols.len() * 9
}

/// Sorts raw symbols by address and completes them. The second of each pair is the module's name.
pub(crate) fn complete(
    raw: impl Iterator<Item = (RawSymbol, Option<std::sync::Arc<str>>)>,
    sections: &[Section],
    space: &Space,
) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = raw
        .map(|(raw, module)| {
            let section = space.section_at(raw.address);
            let exec = section.and_then(|index| sections.get(index)).is_some_and(|section| section.exec);
            let kind = kind(&raw, exec || section.is_none(), section.is_some());
            Symbol {
                address: raw.address,
                size: None,
                kind,
                binding: binding(raw.letter),
                section,
                module,
                name: raw.name,
            }
        })
        .collect();
    symbols.sort_by_key(|symbol| symbol.address);
    fill_sizes(&mut symbols, sections);
    symbols
}

/// A symbol reaches to the next address that has one, but not beyond its section or module.
fn fill_sizes(symbols: &mut [Symbol], sections: &[Section]) {
    let mut next: Option<(u64, Option<std::sync::Arc<str>>)> = None;
    let mut previous: Option<(u64, Option<u64>)> = None;
    for symbol in symbols.iter_mut().rev() {
        symbol.size = match previous {
            // Another name of the same address.
            Some((address, size)) if address == symbol.address => size,
            _ => {
                let section_end = symbol.section.and_then(|index| sections.get(index)).map(Section::end);
                let next_start = next.as_ref().filter(|(_, module)| *module == symbol.module).map(|(start, _)| *start);
                let end = match (next_start, section_end) {
                    (Some(start), Some(end)) => Some(start.min(end)),
                    (start, end) => start.or(end),
                };
                end.map(|end| end.saturating_sub(symbol.address))
            }
        };
        previous = Some((symbol.address, symbol.size));
        next = Some((symbol.address, symbol.module.clone()));
    }
}

fn kind(raw: &RawSymbol, may_be_code: bool, placed: bool) -> SymbolKind {
    match raw.letter.to_ascii_lowercase() {
        _ if is_padding(&raw.name) => SymbolKind::Other,
        b't' | b'w' | b'i' if may_be_code => SymbolKind::Function,
        b'b' | b'd' | b'r' | b'g' | b's' | b'v' => SymbolKind::Data,
        // Per-CPU variables are absolute to kallsyms, but lie in a section that starts at address 0.
        b'a' if placed && !may_be_code => SymbolKind::Data,
        _ => SymbolKind::Other,
    }
}

fn binding(letter: u8) -> Binding {
    match letter {
        b'w' | b'W' | b'v' | b'V' => Binding::Weak,
        letter if letter.is_ascii_uppercase() => Binding::Global,
        _ => Binding::Local,
    }
}
