//! A Linux kernel as data: vmlinuz, vmlinux, modules, objects and the running kernel.
//!
//! [`Image`] is one type for all of them. It knows formats, and nothing of what anybody wants to do with a kernel.
//!
//! ```no_run
//! use kerf_image::Image;
//!
//! let image = Image::open("/boot/vmlinuz".as_ref())?;
//! for symbol in image.symbols_named("blk_mq_submit_bio") {
//!     println!("{:#x} {:?}", symbol.address, image.bytes(symbol.address, 16));
//! }
//! # Ok::<(), kerf_image::ImageError>(())
//! ```

mod branch;
pub mod btf;
mod bytes;
mod bzimage;
mod decompress;
mod elf;
mod elf_symbols;
mod error;
mod image;
mod kallsyms;
mod kcore;
mod kernel_symbols;
mod lookup;
mod model;
mod notes;
mod patch;
mod patch_relocatable;
mod patch_tables;
mod running;
mod space;

#[cfg(test)]
#[path = "../tests/common/tables.rs"]
mod fixture;

pub use error::{ImageError, Problem};
pub use image::Image;
pub use model::{
    Binding, BuildId, BuildIdError, ImageKind, Relocation, Section, Symbol, SymbolKind, SymbolSource, Target,
};
pub use patch::{PatchKind, PatchSite, PatchSites, UnavailableTable};
