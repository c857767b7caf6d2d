//! Whether a function is the same code in two linked images: instruction by instruction, addresses compared by what lies there.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, Register};
use kerf_image::{Image, PatchSites, Symbol};

use crate::deployed::without_number;
use crate::error::ConstError;

/// One of the two images, ready to be looked up.
struct Side<'a> {
    image: &'a Image,
    sites: PatchSites,
}

/// Two images, and what was found of their functions.
pub struct Pair<'a> {
    old: Side<'a>,
    new: Side<'a>,
    known: RefCell<BTreeMap<u64, Result<u64, String>>>,
}

impl<'a> Pair<'a> {
    /// Reads what both images say of their own patching.
    ///
    /// # Errors
    /// If a table of one of them is damaged.
    pub fn new(old: &'a Image, new: &'a Image) -> Result<Pair<'a>, ConstError> {
        let side =
            |image: &'a Image| -> Result<Side<'a>, ConstError> { Ok(Side { image, sites: image.patch_sites()? }) };
        Ok(Pair { old: side(old)?, new: side(new)?, known: RefCell::default() })
    }

    /// The image to port from.
    pub fn old(&self) -> &'a Image {
        self.old.image
    }

    /// The image to port to.
    pub fn new_image(&self) -> &'a Image {
        self.new.image
    }

    /// The new image's address of the function that begins at an address of the old one.
    ///
    /// # Errors
    /// In words, if the new image has no such function, another one, or several.
    pub fn counterpart(&self, address: u64) -> Result<u64, String> {
        if let Some(known) = self.known.borrow().get(&address) {
            return known.clone();
        }
        let found = self.find(address);
        self.known.borrow_mut().insert(address, found.clone());
        found
    }

    fn find(&self, address: u64) -> Result<u64, String> {
        let symbol = self.old.image.function_at(address).filter(|s| s.address == address);
        let symbol = symbol.ok_or_else(|| format!("no function begins at {address:#x} of the old image"))?;
        let named = self.new.image.symbols_named(&symbol.name).filter(|s| s.is_function());
        let (mut same, mut verdict) = (BTreeSet::new(), format!("the new image has no function {}", symbol.name));
        for candidate in named {
            match self.compare(symbol, candidate) {
                Ok(()) => {
                    same.insert(candidate.address);
                }
                Err((offset, why)) => verdict = format!("{}+{offset:#x} differs: {why}", symbol.name),
            }
        }
        match (same.pop_first(), same.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(_), false) => Err(format!("the new image has several functions like {}", symbol.name)),
            (None, _) => Err(verdict),
        }
    }

    /// All functions that the compiler made of one of the source: each must be there, and the same, in both images.
    ///
    /// # Errors
    /// In words, with the first that is not.
    pub fn same_parts(&self, function: &str) -> Result<(), String> {
        let parts = |image: &Image| -> BTreeSet<String> {
            let own = |name: &str| name == function || name.strip_prefix(function).is_some_and(|r| r.starts_with('.'));
            let functions = image.functions().filter(|s| own(&s.name));
            functions.map(|s| s.name.to_string()).collect()
        };
        let (old, new) = (parts(self.old.image), parts(self.new.image));
        if let Some(name) = old.symmetric_difference(&new).next() {
            let (with, without) = if old.contains(name) { ("old", "new") } else { ("new", "old") };
            return Err(format!("{name} is a function of its own in the {with} image and not in the {without} one"));
        }
        for name in &old {
            let all = self.old.image.symbols_named(name).filter(|s| s.is_function());
            let verdicts: Vec<Result<u64, String>> = all.map(|s| self.counterpart(s.address)).collect();
            // Of functions that share a name, those of other units do not matter.
            if let Some(Err(why)) = verdicts.iter().find(|v| v.is_err()).filter(|_| !verdicts.iter().any(Result::is_ok))
            {
                return Err(why.clone());
            }
        }
        Ok(())
    }

    fn compare(&self, old: &Symbol, new: &Symbol) -> Result<(), (u64, String)> {
        let (a, b) = (code(self.old.image, old), code(self.new.image, new));
        let (old_end, new_end) = (end(&a), end(&b));
        for (a, b) in a.iter().zip(&b).take_while(|(a, _)| a.ip() < old_end) {
            let offset = a.ip() - old.address;
            let places = [(a, old.address..old_end), (b, new.address..new_end)];
            self.compare_one(places).map_err(|why| (offset, why))?;
        }
        let sizes = (old_end - old.address, new_end - new.address);
        (sizes.0 == sizes.1).then_some(()).ok_or_else(|| {
            (
                sizes.0.min(sizes.1),
                format!("it has {:#x} bytes in the old image and {:#x} in the new one", sizes.0, sizes.1),
            )
        })
    }

    fn compare_one(&self, [(a, old), (b, new)]: [(&Instruction, std::ops::Range<u64>); 2]) -> Result<(), String> {
        let other = || Err(format!("`{a}` became `{b}`"));
        if a.code() != b.code() || a.len() != b.len() || self.patched(a, b) {
            return other();
        }
        let (Some((bytes, mask)), Some((others, _))) = (fixed(self.old.image, a), fixed(self.new.image, b)) else {
            return other();
        };
        if (0..bytes.len()).any(|n| !mask[n] && bytes[n] != others[n]) {
            return other();
        }
        let branch = |insn: &Instruction| insn.near_branch_target();
        if a.op_count() > 0 && a.op0_kind() == b.op0_kind() && branch(a) != 0 {
            let (from, to) = (branch(a), branch(b));
            if old.contains(&from) || new.contains(&to) {
                let same = from.wrapping_sub(old.start) == to.wrapping_sub(new.start);
                return if same { Ok(()) } else { other() };
            }
            return if self.same_place(from, to) { Ok(()) } else { other() };
        }
        let memory = |insn: &Instruction| match insn.is_ip_rel_memory_operand() {
            true => insn.ip_rel_memory_address(),
            false => insn.memory_displacement64(),
        };
        let (from, to) = (memory(a), memory(b));
        let own_cpu = a.memory_segment() == Register::GS && from != to;
        let immediates = (0..a.op_count()).filter_map(|n| Some((a.try_immediate(n).ok()?, b.try_immediate(n).ok()?)));
        let memory = (a.is_ip_rel_memory_operand() || own_cpu, from, to);
        for (address, from, to) in immediates.map(|(from, to)| (false, from, to)).chain([memory]) {
            let address = address || linked(from) || linked(to) || (from != to && self.per_cpu(from, to));
            if address && self.same_content((from, to), a.memory_size().size()) {
                continue;
            }
            if (address && !self.same_place(from, to)) || (!address && from != to) {
                return other();
            }
        }
        Ok(())
    }

    /// Whether the kernel patches one of two instructions in a way in which it does not patch the other.
    fn patched(&self, a: &Instruction, b: &Instruction) -> bool {
        let sites = |side: &Side, insn: &Instruction| -> Vec<_> {
            let own = side.sites.overlapping(insn.ip()..insn.next_ip());
            own.iter().map(|s| (s.kind, s.address.wrapping_sub(insn.ip()), s.len)).collect()
        };
        sites(&self.old, a) != sites(&self.new, b)
    }

    /// Whether two addresses name the same thing: a symbol and an offset in it, or equal texts.
    fn same_place(&self, old: u64, new: u64) -> bool {
        // Texts have no symbols of their own, and count from whatever lies before them.
        let text = |image: &Image, at: u64| text(image, at).filter(|text| !text.is_empty());
        match (text(self.old.image, old), text(self.new.image, new)) {
            (None, None) => names(self.old.image, old).intersection(&names(self.new.image, new)).next().is_some(),
            (a, b) => a == b,
        }
    }

    /// Whether two places in read-only data have no name of their own, and the same content as far as an instruction reads it.
    fn same_content(&self, (old, new): (u64, u64), size: usize) -> bool {
        let own = |image: &'a Image, at: u64| {
            let (_, section) = image.section_at(at).filter(|_| !names(image, at).iter().any(|(_, far)| *far == 0))?;
            section.name.starts_with(".rodata").then(|| image.bytes(at, size.max(1)))?
        };
        // What only an address is taken of may be a text without characters.
        let content = own(self.old.image, old).zip(own(self.new.image, new));
        content.is_some_and(|(a, b)| a == b && (size > 0 || a[0] == 0))
    }

    /// Whether two numbers are offsets of per-CPU variables, which lie from 0 on.
    fn per_cpu(&self, old: u64, new: u64) -> bool {
        let inside = |image: &Image, at: u64| {
            let end = image.symbols_named("__per_cpu_end").next().map_or(0, |s| s.address);
            (0x1000..end).contains(&at)
        };
        inside(self.old.image, old) && inside(self.new.image, new)
    }
}

/// The instructions of a function, padding behind it included.
fn code(image: &Image, symbol: &Symbol) -> Vec<Instruction> {
    let bytes = image.bytes(symbol.address, symbol.size.unwrap_or(0) as usize).unwrap_or_default();
    Decoder::with_ip(64, &bytes, symbol.address, DecoderOptions::NONE).into_iter().collect()
}

/// Where the padding behind a function begins.
fn end(code: &[Instruction]) -> u64 {
    let padding = |insn: &&Instruction| matches!(insn.mnemonic(), Mnemonic::Nop | Mnemonic::Int3);
    code.iter().rev().find(|insn| !padding(insn)).map_or(0, Instruction::next_ip)
}

/// An instruction's bytes, and which of them belong to numbers that are compared by their meaning.
fn fixed(image: &Image, insn: &Instruction) -> Option<(Vec<u8>, Vec<bool>)> {
    let bytes = image.bytes(insn.ip(), insn.len())?.into_owned();
    let mut decoder = Decoder::with_ip(64, &bytes, insn.ip(), DecoderOptions::NONE);
    let decoded = decoder.decode();
    let offsets = decoder.get_constant_offsets(&decoded);
    let mut mask = vec![false; bytes.len()];
    for (at, size) in [
        (offsets.displacement_offset(), offsets.displacement_size()),
        (offsets.immediate_offset(), offsets.immediate_size()),
        (offsets.immediate_offset2(), offsets.immediate_size2()),
    ] {
        mask.get_mut(at..at + size)?.fill(true);
    }
    Some((bytes, mask))
}

/// Whether a number looks like an address of the kernel's own text or data.
fn linked(number: u64) -> bool {
    (0xffff_ffff_8000_0000..0xffff_ffff_ff00_0000).contains(&number)
}

/// The symbols that an address counts from, with its distance.
fn names(image: &Image, address: u64) -> BTreeSet<(&str, u64)> {
    let symbols = image.symbols();
    let behind = symbols.partition_point(|s| s.address <= address);
    let Some(start) = symbols[..behind].last().map(|s| s.address) else { return BTreeSet::new() };
    let own = symbols[..behind].iter().rev().take_while(|s| s.address == start);
    own.map(|s| (without_number(&s.name), address - start)).collect()
}

/// The printable text at an address of read-only data.
fn text(image: &Image, address: u64) -> Option<Vec<u8>> {
    let (_, section) = image.section_at(address)?;
    // The kernel's linker marks its read-only data as writable.
    if section.exec || (section.write && !section.name.starts_with(".rodata")) {
        return None;
    }
    let bytes = image.bytes(address, (section.end() - address).min(4096) as usize)?;
    let text = bytes.split(|b| *b == 0).next()?;
    let plain = |b: &u8| b.is_ascii_graphic() || matches!(b, 1..=7 | b' ' | b'\n' | b'\t');
    (text.len() < bytes.len() && text.iter().all(plain)).then(|| text.to_vec())
}

#[cfg(test)]
mod tests;
