//! Functions of an object file as decoded instructions whose references are names, so that two compilations compare.

use std::collections::HashMap;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use kerf_image::{Image, PatchKind, Relocation, Symbol, SymbolKind, Target};
use object::elf::{self, RelocationType};

use crate::error::ConstError;

/// What a field of an instruction refers to, in words that do not depend on where things lie.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A symbol, defined here or elsewhere, and an offset into it.
    Symbol(String, i64),
    /// A string literal, by its content.
    Text(Vec<u8>),
    /// Unnamed data, by its section and the offset there.
    Unnamed(String, u64),
}

/// A relocated field of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Offset of the field from the start of the instruction.
    pub offset: usize,
    /// The ELF type, `R_X86_64_…`.
    pub r_type: u32,
    /// Where it points.
    pub place: Place,
}

/// One instruction of a function. Its `ip` is the offset from the function's start.
#[derive(Clone, Debug)]
pub struct Insn {
    /// The decoded instruction.
    pub insn: Instruction,
    /// Its bytes, relocations not applied.
    pub bytes: Vec<u8>,
    /// The relocated fields.
    pub references: Vec<Reference>,
    /// Whether the kernel patches it itself (static keys, fentry): its bytes say nothing.
    pub patched: bool,
    /// Whether the kernel rewrites it when it starts (alternatives, lock prefixes and the like).
    pub rewritten: bool,
    /// The static key that switches it, with the bits that say which way it starts.
    pub key: Option<Place>,
}

impl Insn {
    /// Offset of the instruction in its function.
    pub fn offset(&self) -> u64 {
        self.insn.ip()
    }

    /// Whether it does nothing: padding for alignment.
    pub fn is_nop(&self) -> bool {
        let exchange = self.insn.mnemonic() == Mnemonic::Xchg && self.insn.op0_register() == self.insn.op1_register();
        !self.patched
            && (self.insn.mnemonic() == Mnemonic::Nop || (exchange && self.insn.op0_register() == Register::AX))
    }

    /// The offset in the function that a direct branch without relocation goes to.
    pub fn branch_target(&self) -> Option<u64> {
        let near = matches!(self.insn.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
        (near && self.references.is_empty()).then(|| self.insn.near_branch_target())
    }
}

/// A function of an object.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name in the symbol table.
    pub name: String,
    /// Its address in the object's address space.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Its instructions in order.
    pub code: Vec<Insn>,
    /// Name of the section that holds it.
    pub section: String,
}

/// All functions of an object, by name.
#[derive(Debug, Default)]
pub struct Code {
    /// The functions in the order of their addresses.
    pub functions: Vec<Function>,
}

impl Code {
    /// The function of that name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|f| f.name == name)
    }
}

/// Decodes all functions of an object or module.
pub fn read(object: &Image) -> Result<Code, ConstError> {
    let names = Names::new(object);
    let sites = object.patch_sites()?;
    let keys = static_keys(object, &names);
    let mut functions = Vec::new();
    let mut seen: HashMap<u64, ()> = HashMap::new();
    for symbol in object.functions() {
        let (Some(size), Some(section)) = (symbol.size.filter(|s| *s > 0), symbol.section) else { continue };
        if seen.insert(symbol.address, ()).is_some() {
            continue;
        }
        let Some(bytes) = object.bytes(symbol.address, size as usize) else { continue };
        let relocations = object.relocations(section);
        let first = relocations.partition_point(|r| r.address < symbol.address);
        let mut pending = relocations[first..].iter().take_while(|r| r.address < symbol.end()).peekable();
        let mut code = Vec::new();
        for insn in Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE) {
            let start = insn.ip() as usize;
            let address = symbol.address + insn.ip();
            let end = address + insn.len() as u64;
            let mut references = Vec::new();
            while let Some(r) = pending.next_if(|r| r.address < end) {
                let place = names.place(object, r, end);
                references.push(Reference {
                    offset: r.address.saturating_sub(address) as usize,
                    r_type: r.r_type,
                    place,
                });
            }
            let own = sites.overlapping(address..end);
            let patched = own.iter().any(|s| matches!(s.kind, PatchKind::StaticKey | PatchKind::Fentry));
            let rewritten = !patched && !own.is_empty();
            let key = keys.get(&address).filter(|_| patched).cloned();
            let bytes = bytes[start..start + insn.len()].to_vec();
            code.push(Insn { insn, bytes, references, patched, rewritten, key });
        }
        name_direct_calls(object, symbol, &mut code);
        let section = object.sections().get(section).map(|s| s.name.clone()).unwrap_or_default();
        functions.push(Function { name: symbol.name.to_string(), address: symbol.address, size, code, section });
    }
    Ok(Code { functions })
}

/// The keys of an object's static branches, by the branches' addresses: an entry of the table has the distance to the code,
/// that to the target, and behind them the one to the key, which is 64 bits wide.
fn static_keys(object: &Image, names: &Names) -> HashMap<u64, Place> {
    let table = object.sections().iter().position(|s| s.name == "__jump_table");
    let entries = table.map_or(&[][..], |index| object.relocations(index));
    let mut keys = HashMap::new();
    for three in entries.windows(3) {
        let [code, _, key] = three else { continue };
        if key.r_type == elf::R_X86_64_PC64.0 && code.r_type == elf::R_X86_64_PC32.0 {
            keys.extend(code.value().map(|address| (address, names.place(object, key, key.address))));
        }
    }
    keys
}

/// The assembler resolves calls to static functions of the same section by itself: give them back their names.
fn name_direct_calls(object: &Image, symbol: &Symbol, code: &mut [Insn]) {
    for insn in code {
        let Some(target) = insn.branch_target() else { continue };
        let address = symbol.address.wrapping_add(target);
        if (symbol.address..symbol.end()).contains(&address) {
            continue;
        }
        if let Some(callee) = object.function_at(address) {
            let place = Place::Symbol(callee.name.to_string(), (address - callee.address) as i64);
            let offset = insn.insn.len().saturating_sub(4);
            insn.references.push(Reference { offset, r_type: elf::R_X86_64_PC32.0, place });
        }
    }
}

struct Names {
    /// Named places of each section, sorted by address.
    by_section: HashMap<usize, Vec<(u64, u64, String)>>,
}

impl Names {
    fn new(object: &Image) -> Names {
        let mut by_section: HashMap<usize, Vec<(u64, u64, String)>> = HashMap::new();
        for symbol in object.symbols() {
            if let Some(section) = symbol.section
                && matches!(symbol.kind, SymbolKind::Function | SymbolKind::Data)
            {
                by_section.entry(section).or_default().push((symbol.address, symbol.end(), symbol.name.to_string()));
            }
        }
        by_section.values_mut().for_each(|v| v.sort());
        Names { by_section }
    }

    /// Where a relocated field points, for a field of an instruction that ends at `end`.
    fn place(&self, object: &Image, relocation: &Relocation, end: u64) -> Place {
        let correction = if is_relative(relocation.r_type) { end.wrapping_sub(relocation.address) as i64 } else { 0 };
        let addend = relocation.addend.wrapping_add(correction);
        match relocation.target {
            Target::Address(base) => {
                self.at(object, base.wrapping_add_signed(addend), base, addend, &relocation.symbol)
            }
            _ => Place::Symbol(relocation.symbol.to_string(), addend),
        }
    }

    fn at(&self, object: &Image, address: u64, base: u64, addend: i64, symbol: &str) -> Place {
        let section = object.sections().iter().position(|s| s.alloc && s.address <= base && base <= s.end());
        let Some(index) = section else { return Place::Symbol(symbol.to_string(), addend) };
        let holder = &object.sections()[index];
        if holder.name.starts_with(".rodata.str") || holder.name.contains(".str1.") {
            return Place::Text(text_at(object, address));
        }
        let named = self.by_section.get(&index).and_then(|places| {
            let last = places.partition_point(|(start, ..)| *start <= address);
            places[..last].iter().rev().find(|(start, end, _)| address < *end || address == *start)
        });
        match named {
            Some((start, _, name)) => Place::Symbol(name.clone(), (address - start) as i64),
            // A symbol of its own keeps its name even when the address lies outside it.
            None if symbol != holder.name && !symbol.is_empty() => Place::Symbol(symbol.to_string(), addend),
            None => Place::Unnamed(holder.name.clone(), address.wrapping_sub(holder.address)),
        }
    }
}

fn text_at(object: &Image, address: u64) -> Vec<u8> {
    let mut text = Vec::new();
    while let Some(byte) = object.bytes(address + text.len() as u64, 1) {
        match byte[0] {
            0 => break,
            b if text.len() < 4096 => text.push(b),
            _ => break,
        }
    }
    text
}

/// Whether a relocated field counts from the place where it stands.
pub fn is_relative(r_type: u32) -> bool {
    matches!(RelocationType(r_type), elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 | elf::R_X86_64_PC64 | elf::R_X86_64_PC8)
}

/// Bytes of a relocated field.
pub fn field_size(r_type: u32) -> usize {
    match RelocationType(r_type) {
        elf::R_X86_64_64 | elf::R_X86_64_PC64 => 8,
        elf::R_X86_64_8 | elf::R_X86_64_PC8 => 1,
        elf::R_X86_64_16 | elf::R_X86_64_PC16 => 2,
        _ => 4,
    }
}

/// A function `f` of the assembler's instructions, with a `ret` behind them.
#[cfg(test)]
pub(crate) fn assembled(text: &str) -> Function {
    let directory = tempfile::tempdir().unwrap();
    let (source, object) = (directory.path().join("a.s"), directory.path().join("a.o"));
    let function = format!(".globl f\n.type f, @function\nf:\n{text}\nret\n.size f, .-f\n");
    std::fs::write(&source, function).unwrap();
    let status = std::process::Command::new("gcc").arg("-c").arg("-o").args([&object, &source]).status();
    assert!(status.unwrap().success());
    read(&Image::open(&object).unwrap()).unwrap().functions.remove(0)
}
