//! One type for every form of a kernel.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::bytes::text_at;
use crate::decompress::{self, Compression};
use crate::error::{ImageError, Problem};
use crate::kcore::Kcore;
use crate::lookup::Lookup;
use crate::model::{BuildId, ImageKind, Relocation, Section, Symbol, SymbolSource};
use crate::patch::PatchSites;
use crate::space::Space;
use crate::{bzimage, elf, kernel_symbols, notes, patch_tables, running};

/// A kernel, a module or an object file, as data.
///
/// One `u64` address names a byte everywhere. For linked kernels it is the link address, for the running kernel the
/// address it has now, and for relocatable files (`.ko`, `.o`), whose sections have none, a synthetic one: sections lie
/// from 0x10000 up, on pages of their own, and relocations are not applied.
///
/// Clones share the data.
#[derive(Clone, Debug)]
pub struct Image {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parts: Parts,
    space: Space,
    lookup: Lookup,
}

/// What an image is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) kind: ImageKind,
    pub(crate) build_id: Option<BuildId>,
    pub(crate) release: Option<String>,
    pub(crate) sections: Vec<Section>,
    /// Sorted by address.
    pub(crate) symbols: Vec<Symbol>,
    pub(crate) source: SymbolSource,
    pub(crate) relocations: Vec<Vec<Relocation>>,
    pub(crate) contents: Contents,
}

/// Where the bytes are.
#[derive(Debug)]
pub(crate) enum Contents {
    /// In a file that was read; for each section, its part of the file.
    File { data: Vec<u8>, ranges: Vec<Range<usize>> },
    /// In the memory of this machine. `btf` is the content of `/sys/kernel/btf/vmlinux`, empty if there is none.
    Live { kcore: Kcore, btf: Vec<u8> },
}

impl Image {
    /// Reads a file. Its content tells what it is: a boot image, an ELF file, or an ELF file compressed with xz, zstd or
    /// gzip.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is no kernel for 64-bit x86, or is damaged.
    pub fn open(path: &Path) -> Result<Image, ImageError> {
        let bytes = std::fs::read(path).map_err(|source| ImageError::Read { path: path.to_owned(), source })?;
        Image::parse(&path.display().to_string(), bytes)
    }

    /// Reads the content of a file. `name` is for messages.
    ///
    /// # Errors
    ///
    /// The bytes are no kernel for 64-bit x86, or are damaged.
    pub fn parse(name: &str, bytes: Vec<u8>) -> Result<Image, ImageError> {
        let parts = parts(bytes).map_err(|problem| problem.within(name))?;
        tracing::debug!(name, kind = %parts.kind, symbols = parts.symbols.len(), "image read");
        Ok(Image::new(parts))
    }

    /// The ELF file that a boot image holds. `name` is for messages.
    ///
    /// # Errors
    ///
    /// The bytes are no boot image, or are damaged.
    pub fn unpack(name: &str, bytes: &[u8]) -> Result<Vec<u8>, ImageError> {
        bzimage::unpack(bytes).map_err(|problem| problem.within(name))
    }

    /// The kernel that runs on this machine. Its bytes are read when they are asked for.
    ///
    /// # Errors
    ///
    /// The user may not see the kernel's addresses or memory: this needs root, `/proc/kcore`, and no lockdown.
    pub fn running() -> Result<Image, ImageError> {
        running::parts().map(Image::new)
    }

    fn new(parts: Parts) -> Image {
        let space = Space::new(&parts.sections);
        let lookup = Lookup::new(&parts.symbols);
        Image { inner: Arc::new(Inner { parts, space, lookup }) }
    }

    fn parts(&self) -> &Parts {
        &self.inner.parts
    }

    /// What kind of image this is.
    pub fn kind(&self) -> ImageKind {
        self.parts().kind
    }

    /// The build id, if the image has one; objects do not.
    pub fn build_id(&self) -> Option<&BuildId> {
        self.parts().build_id.as_ref()
    }

    /// The kernel release, such as `6.12.43+deb12-amd64`: of the kernel itself, or the one that a module was built for.
    pub fn release(&self) -> Option<&str> {
        self.parts().release.as_deref()
    }

    /// All sections. The position is the index that symbols and relocations use.
    pub fn sections(&self) -> &[Section] {
        &self.parts().sections
    }

    /// The first section called `name`, and its index.
    pub fn section_named(&self, name: &str) -> Option<(usize, &Section)> {
        self.sections().iter().enumerate().find(|(_, section)| section.name == name)
    }

    /// The section that holds `address`, and its index.
    pub fn section_at(&self, address: u64) -> Option<(usize, &Section)> {
        let index = self.inner.space.section_at(address)?;
        Some((index, self.sections().get(index)?))
    }

    /// All defined symbols that have an address, sorted by it.
    pub fn symbols(&self) -> &[Symbol] {
        &self.parts().symbols
    }

    /// Where the symbols came from, or why there are none.
    pub fn symbol_source(&self) -> &SymbolSource {
        &self.parts().source
    }

    /// The symbols called `name`; local names are often shared by many functions.
    pub fn symbols_named<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Symbol> + use<'a> {
        self.inner.lookup.named(self.symbols(), name)
    }

    /// The function whose range holds `address`. Of several names for it, the global one.
    pub fn function_at(&self, address: u64) -> Option<&Symbol> {
        self.inner.lookup.function_at(self.symbols(), address)
    }

    /// All functions, sorted by address.
    pub fn functions(&self) -> impl Iterator<Item = &Symbol> {
        self.inner.lookup.functions(self.symbols())
    }

    /// At most `n` names of symbols that look like `name`, the best first: for "did you mean".
    pub fn similar_symbols(&self, name: &str, n: usize) -> Vec<&str> {
        self.inner.lookup.similar(self.symbols(), name, n)
    }

    /// `len` bytes from `address` on; `None` if they are not wholly inside one section (for the running kernel: inside
    /// memory that is still its own). Sections without bytes in the file read as zeros.
    pub fn bytes(&self, address: u64, len: usize) -> Option<Cow<'_, [u8]>> {
        match &self.parts().contents {
            Contents::File { data, ranges } => {
                let (index, section) = self.section_at(address)?;
                let offset = address - section.address;
                if (len as u64) > section.size - offset {
                    return None;
                }
                if !section.file_backed {
                    return Some(Cow::Owned(vec![0; len]));
                }
                let content = data.get(ranges.get(index)?.clone())?;
                let offset = usize::try_from(offset).ok()?;
                content.get(offset..offset.checked_add(len)?).map(Cow::Borrowed)
            }
            Contents::Live { kcore, .. } => kcore.read(address, len).map(Cow::Owned),
        }
    }

    /// The content of a section as the file has it, sections that take up no memory (debug information) included; empty
    /// if the file has none, and for the running kernel.
    pub fn section_bytes(&self, section: usize) -> &[u8] {
        match &self.parts().contents {
            Contents::File { data, ranges } => {
                ranges.get(section).and_then(|range| data.get(range.clone())).unwrap_or_default()
            }
            Contents::Live { .. } => &[],
        }
    }

    /// The relocations of a section of a relocatable file, sorted by address; empty for linked images, and for sections
    /// that take up no memory.
    pub fn relocations(&self, section: usize) -> &[Relocation] {
        self.parts().relocations.get(section).map_or(&[], Vec::as_slice)
    }

    /// The kernel's own type information (BTF), if it has some; read it with [`crate::btf::Btf`].
    pub fn btf(&self) -> Option<&[u8]> {
        let btf = match &self.parts().contents {
            Contents::File { .. } => self.section_named(".BTF").map(|(index, _)| self.section_bytes(index))?,
            Contents::Live { btf, .. } => btf,
        };
        (!btf.is_empty()).then_some(btf)
    }

    /// Every place in the code that the kernel patches by itself, from the image's own tables.
    ///
    /// The sizes and members of the tables' records come from the image's own types (BTF). Relocatable files have no such
    /// types: there the size of a record follows from the positions of its relocations, and the place of an
    /// alternative's length from the replacements' lengths. Nothing depends on a kernel version. Of the running kernel,
    /// only the tables that it keeps after booting can be read; [`PatchSites::unavailable`] names the others.
    ///
    /// # Errors
    ///
    /// A table contradicts its format.
    pub fn patch_sites(&self) -> Result<PatchSites, ImageError> {
        let name =
            || self.release().map_or_else(|| self.kind().to_string(), |release| format!("{} {release}", self.kind()));
        patch_tables::collect(self).map_err(|problem| problem.within(&name()))
    }
}

/// Takes the bytes of a file apart.
fn parts(mut bytes: Vec<u8>) -> Result<Parts, Problem> {
    let mut boot_image = false;
    if elf::detect(&bytes) {
    } else if bzimage::detect(&bytes) {
        bytes = bzimage::unpack(&bytes)?;
        boot_image = true;
    } else if let Some(compression) = Compression::detect(&bytes) {
        bytes = compression.decompress(&bytes, decompress::LIMIT)?;
    }
    if !elf::detect(&bytes) {
        let magic = match bytes.get(..8).unwrap_or(&bytes) {
            [] => "nothing, it is empty".to_owned(),
            start => bzimage::hex(start),
        };
        return Err(Problem::Unrecognised { magic });
    }
    let elf = elf::parse(&bytes)?;
    let mut parts = Parts {
        kind: if boot_image && elf.kind == ImageKind::Vmlinux { ImageKind::Vmlinuz } else { elf.kind },
        build_id: None,
        release: None,
        sections: elf.sections,
        symbols: elf.symbols,
        source: elf.source,
        relocations: elf.relocations,
        contents: Contents::File { data: vec![], ranges: vec![] },
    };
    let data = |index: usize| elf.ranges.get(index).and_then(|range| bytes.get(range.clone())).unwrap_or_default();
    parts.symbols.sort_by_key(|symbol| symbol.address);
    if parts.symbols.is_empty() && matches!(parts.kind, ImageKind::Vmlinuz | ImageKind::Vmlinux) {
        match kernel_symbols::embedded(&parts.sections, data) {
            Some(symbols) => {
                parts.symbols = symbols;
                parts.source = SymbolSource::EmbeddedKallsyms;
            }
            None => {
                let why = "the file has no symbol table, and no kallsyms tables were found in it (CONFIG_KALLSYMS)";
                parts.source = SymbolSource::Missing(why.into());
            }
        }
    }
    parts.build_id = build_id(&parts.sections, data);
    parts.release = release(&parts, data);
    parts.contents = Contents::File { ranges: elf.ranges, data: bytes };
    Ok(parts)
}

/// The build id from whichever note section has it.
fn build_id<'a>(sections: &[Section], data: impl Fn(usize) -> &'a [u8]) -> Option<BuildId> {
    let notes = sections.iter().enumerate().filter(|(_, section)| section.name.starts_with(".note"));
    notes.into_iter().find_map(|(index, _)| notes::build_id(data(index)))
}

/// A module says what it was built for; a kernel has a banner.
fn release<'a>(parts: &Parts, data: impl Fn(usize) -> &'a [u8]) -> Option<String> {
    let first_word = |text: &str| text.split_ascii_whitespace().next().map(str::to_owned);
    if let Some(index) = parts.sections.iter().position(|section| section.name == ".modinfo") {
        let fields = data(index).split(|&byte| byte == 0).filter_map(|field| std::str::from_utf8(field).ok());
        return fields.into_iter().find_map(|field| first_word(field.strip_prefix("vermagic=")?));
    }
    let banner = |bytes: &[u8], at: usize| first_word(text_at(bytes, at)?.strip_prefix("Linux version ")?);
    if let Some(symbol) = parts.symbols.iter().find(|symbol| &*symbol.name == "linux_banner") {
        let index = symbol.section?;
        let offset = symbol.address.checked_sub(parts.sections.get(index)?.address)?;
        return banner(data(index), usize::try_from(offset).ok()?);
    }
    if !matches!(parts.kind, ImageKind::Vmlinux | ImageKind::Vmlinuz) {
        return None;
    }
    let searched = parts.sections.iter().enumerate().filter(|(_, section)| section.alloc && section.file_backed);
    searched.into_iter().find_map(|(index, _)| {
        let bytes = data(index);
        // The pattern "Linux version %s" is in the image too.
        memchr::memmem::find_iter(bytes, b"Linux version ")
            .find_map(|at| banner(bytes, at).filter(|release| release.starts_with(|c: char| c.is_ascii_digit())))
    })
}
