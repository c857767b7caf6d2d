//! The values that describe a kernel: sections, symbols, relocations, build ids.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// Where a kernel came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageKind {
    /// A boot image (bzImage) whose payload was decompressed.
    Vmlinuz,
    /// A linked ELF file.
    Vmlinux,
    /// A kernel module (`.ko`), possibly compressed.
    Module,
    /// An object file (`.o`).
    Object,
    /// The kernel that runs on this machine.
    Running,
}

impl fmt::Display for ImageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ImageKind::Vmlinuz => "vmlinuz",
            ImageKind::Vmlinux => "vmlinux",
            ImageKind::Module => "module",
            ImageKind::Object => "object",
            ImageKind::Running => "running kernel",
        })
    }
}

/// Where an image's symbols came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SymbolSource {
    /// The ELF symbol table.
    ElfTable,
    /// The kallsyms tables inside the kernel's read-only data.
    EmbeddedKallsyms,
    /// `/proc/kallsyms`.
    ProcKallsyms,
    /// There are none; the text says why.
    Missing(String),
}

/// The build id of a kernel or module: the note `NT_GNU_BUILD_ID`. Displays as lower-case hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(Vec<u8>);

/// A text that is not a build id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a build id: expected an even number of hexadecimal digits, 2 to 128 of them")]
pub struct BuildIdError {
    text: String,
}

impl BuildId {
    /// The longest build id that is accepted, in bytes.
    const MAX: usize = 64;

    /// A build id from the note's bytes; `None` if there are none or more than 64.
    pub fn from_bytes(bytes: &[u8]) -> Option<BuildId> {
        (1..=Self::MAX).contains(&bytes.len()).then(|| BuildId(bytes.to_vec()))
    }

    /// The bytes of the note.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

impl FromStr for BuildId {
    type Err = BuildIdError;

    fn from_str(text: &str) -> Result<BuildId, BuildIdError> {
        let fail = || BuildIdError { text: text.to_owned() };
        let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>().ok_or_else(fail)?;
        if !digits.len().is_multiple_of(2) {
            return Err(fail());
        }
        let bytes: Vec<u8> =
            digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8)).collect();
        BuildId::from_bytes(&bytes).ok_or_else(fail)
    }
}

/// A section of an image. Its position in [`crate::Image::sections`] is the index that symbols and relocations use;
/// for ELF files that is the ELF section index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The name, such as `.text`.
    pub name: String,
    /// Where it lies in memory: the link address, the synthetic one of a relocatable file, or the running one. 0 if not
    /// [`alloc`](Section::alloc).
    pub address: u64,
    /// The size in bytes.
    pub size: u64,
    /// Takes up memory while the kernel runs.
    pub alloc: bool,
    /// Holds code.
    pub exec: bool,
    /// Is writable.
    pub write: bool,
    /// Its bytes are in the file; otherwise it reads as zeros (`.bss`).
    pub file_backed: bool,
}

impl Section {
    /// The address after the last byte.
    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.size)
    }

    /// Whether the section takes up memory and holds `address`.
    pub fn contains(&self, address: u64) -> bool {
        self.alloc && self.address <= address && address < self.end()
    }
}

/// What a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SymbolKind {
    /// Code. For kallsyms every label in code counts, but not the padding before functions (`__pfx_…`, `__cfi_…`).
    Function,
    /// A variable or constant.
    Data,
    /// A section.
    Section,
    /// Anything else: absolute values, padding before a function.
    Other,
}

/// Who sees a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binding {
    /// Only its own translation unit.
    Local,
    /// Everybody.
    Global,
    /// Everybody, unless another definition exists.
    Weak,
}

/// A defined symbol with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// The name; many local functions of a kernel share one.
    pub name: Box<str>,
    /// The address, in the same space as [`Section::address`].
    pub address: u64,
    /// The size in bytes. For kallsyms, which has none: to the next address that has a symbol, or the section's end.
    pub size: Option<u64>,
    /// What it names.
    pub kind: SymbolKind,
    /// Who sees it.
    pub binding: Binding,
    /// The section that holds it.
    pub section: Option<usize>,
    /// The module that it belongs to, where the running kernel says so.
    pub module: Option<Arc<str>>,
}

impl Symbol {
    /// The address after the last byte; the address itself if the size is not known.
    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.size.unwrap_or(0))
    }

    /// Whether this is a function.
    pub fn is_function(&self) -> bool {
        self.kind == SymbolKind::Function
    }
}

/// What a relocation refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A place in this image: the symbol's address, without the addend.
    Address(u64),
    /// A value that is no place.
    Absolute(u64),
    /// A symbol that another file defines, or one in a section that takes up no memory.
    Undefined,
}

/// A relocation of a relocatable file. It is not applied to what [`crate::Image::bytes`] returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The address of the field.
    pub address: u64,
    /// The ELF type, `R_X86_64_…`.
    pub r_type: u32,
    /// The index in the ELF symbol table.
    pub symbol_index: u32,
    /// The symbol's name; for a section symbol, the section's.
    pub symbol: Arc<str>,
    /// The addend.
    pub addend: i64,
    /// What the symbol stands for.
    pub target: Target,
}

impl Relocation {
    /// The symbol's value plus the addend (`S + A`), if the symbol is defined here.
    ///
    /// A PC-relative field of an instruction has an addend that counts back from the instruction's end, usually −4.
    pub fn value(&self) -> Option<u64> {
        match self.target {
            Target::Address(base) | Target::Absolute(base) => Some(base.wrapping_add_signed(self.addend)),
            Target::Undefined => None,
        }
    }
}
