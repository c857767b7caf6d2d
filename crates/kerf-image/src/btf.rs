//! The types that a kernel carries about itself (BTF): sizes of structures and places of their members.
//!
//! Only what is needed to read records from an image: the format is described in the kernel's
//! Documentation/bpf/btf.rst.

mod describe;
mod navigate;

use std::collections::HashMap;

use thiserror::Error;

use crate::bytes::{text_at, u16_at, u32_at};

pub use describe::{Shape, TypedMember};
pub use navigate::{Field, Prototype, TypeId};

const MAGIC: u16 = 0xeb9f;

const KIND_INT: u32 = 1;
const KIND_POINTER: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// The bit of an integer's encoding that says that it can be negative.
const ENCODING_SIGNED: u32 = 1;
/// The bit of an integer's encoding that says that it is a truth value.
const ENCODING_BOOL: u32 = 1 << 2;

/// What stands in front of a type and does not change what it is.
const QUALIFIERS: [u32; 5] = [KIND_TYPEDEF, KIND_VOLATILE, KIND_CONST, KIND_RESTRICT, KIND_TYPE_TAG];

/// Structures are nested, and names stand for names, at most this deep.
const DEPTH: usize = 16;

/// No structure has more members than this, those of anonymous ones inside included. A damaged blob can nest a type in
/// itself.
const MEMBERS: usize = 1 << 14;

/// No identifier is longer.
const NAME: usize = 512;

/// A BTF blob that contradicts its format.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the kernel's type information (BTF) is damaged: {why}")]
pub struct BtfError {
    why: String,
}

/// A structure or union.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struct {
    /// The size in bytes.
    pub size: u32,
    /// The members, those of anonymous structures and unions inside included.
    pub members: Vec<Member>,
}

impl Struct {
    /// The member called `name`.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }
}

/// A member of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The name.
    pub name: String,
    /// Where it begins, in bits from the start of the outermost structure.
    pub bit_offset: u32,
}

impl Member {
    /// Where it begins, in bytes; `None` for a bit field that does not begin with a byte.
    pub fn offset(&self) -> Option<usize> {
        self.bit_offset.is_multiple_of(8).then_some((self.bit_offset / 8) as usize)
    }
}

/// One blob from the kernel's types and those of a module, which count on from them.
///
/// # Errors
///
/// One of them has no outline.
pub fn joined(kernel: &[u8], module: &[u8]) -> Result<Vec<u8>, BtfError> {
    let (first, second) = (Parts::of(kernel)?, Parts::of(module)?);
    let (types, strings) = ([first.types, second.types].concat(), [first.strings, second.strings].concat());
    let mut blob = kernel.get(..8).unwrap_or_default().to_vec();
    for number in [0, types.len(), types.len(), strings.len()] {
        blob.extend((number as u32).to_le_bytes());
    }
    // The header says how long it is.
    if let Some(length) = blob.get_mut(4..8) {
        length.copy_from_slice(&24u32.to_le_bytes());
    }
    blob.extend(types);
    blob.extend(strings);
    Ok(blob)
}

/// The two parts of a blob.
struct Parts<'data> {
    types: &'data [u8],
    strings: &'data [u8],
}

impl<'data> Parts<'data> {
    fn of(blob: &'data [u8]) -> Result<Parts<'data>, BtfError> {
        let fail = |why: &str| BtfError { why: why.to_owned() };
        let header =
            |offset| u32_at(blob, offset).map(|value| value as usize).ok_or_else(|| fail("the header is cut off"));
        if u16_at(blob, 0) != Some(MAGIC) {
            return Err(fail("it does not begin with its magic number"));
        }
        let body = blob.get(header(4)?..).ok_or_else(|| fail("the header is cut off"))?;
        let part = |offset: usize, size: usize, what: &str| {
            offset
                .checked_add(size)
                .and_then(|end| body.get(offset..end))
                .ok_or_else(|| fail(&format!("the {what} reach beyond its end")))
        };
        let types = part(header(8)?, header(12)?, "types")?;
        let strings = part(header(16)?, header(20)?, "names")?;
        Ok(Parts { types, strings })
    }
}

/// What a function takes and returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// How many parameters it has, a final `...` counted.
    pub parameters: usize,
    /// Whether the last parameter is `...`.
    pub variadic: bool,
    /// Whether it returns nothing.
    pub void: bool,
}

/// The types of a kernel.
#[derive(Clone, Debug)]
pub struct Btf<'data> {
    types: &'data [u8],
    strings: &'data [u8],
    /// Where each type begins in `types`; type 1 is the first.
    starts: Vec<u32>,
}

impl<'data> Btf<'data> {
    /// Reads the outline of a blob: every type is visited, none is interpreted.
    ///
    /// # Errors
    ///
    /// The blob is truncated, or has a kind of type that is not known, behind which nothing can be found.
    pub fn parse(blob: &'data [u8]) -> Result<Btf<'data>, BtfError> {
        let fail = |why: &str| BtfError { why: why.to_owned() };
        let Parts { types, strings } = Parts::of(blob)?;
        let mut starts = Vec::new();
        let mut at = 0;
        while at < types.len() {
            let kind = Kind::read(types, at).ok_or_else(|| fail(&format!("type {} is cut off", starts.len() + 1)))?;
            let extra = kind.extra_size().ok_or_else(|| {
                fail(&format!("type {} is of kind {}, which is not known here", starts.len() + 1, kind.kind))
            })?;
            // A length of types fits 32 bits, since the header has it in 32 bits.
            starts.push(at as u32);
            at += 12 + extra;
        }
        if at != types.len() {
            return Err(fail("the last type is cut off"));
        }
        Ok(Btf { types, strings, starts })
    }

    /// How many types there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are no types.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// What functions take and return, by name. Functions of one name with different types are left out.
    pub fn signatures(&self) -> HashMap<&'data str, Signature> {
        let mut found: HashMap<&'data str, Option<Signature>> = HashMap::new();
        for &start in &self.starts {
            let Some(function) = Kind::read(self.types, start as usize).filter(|k| k.kind == KIND_FUNC) else {
                continue;
            };
            let Some((name, signature)) = self.signature(&function) else { continue };
            found.entry(name).and_modify(|known| *known = known.filter(|k| *k == signature)).or_insert(Some(signature));
        }
        found.into_iter().filter_map(|(name, signature)| Some((name, signature?))).collect()
    }

    fn signature(&self, function: &Kind) -> Option<(&'data str, Signature)> {
        let text = self.strings.get(function.name..)?;
        let name = std::str::from_utf8(text.get(..text.iter().position(|b| *b == 0)?)?).ok()?;
        let start = *self.starts.get((function.size_or_type as usize).checked_sub(1)?)? as usize;
        let prototype = Kind::read(self.types, start).filter(|k| k.kind == KIND_FUNC_PROTO)?;
        let last = prototype.length.checked_sub(1).map(|n| u32_at(self.types, start + 12 + 8 * n + 4));
        let variadic = last == Some(Some(0));
        Some((name, Signature { parameters: prototype.length, variadic, void: prototype.size_or_type == 0 }))
    }

    /// The truth values (`bool`) that lie in the structures that a function's parameters point to: number of the
    /// parameter and offset in bytes. Members of unions are left out; nothing is told of a function whose name stands
    /// for several types.
    pub fn booleans(&self, function: &str) -> Vec<(usize, u32)> {
        let mut prototypes: Vec<usize> = Vec::new();
        for &start in &self.starts {
            let Some(kind) = Kind::read(self.types, start as usize).filter(|k| k.kind == KIND_FUNC) else { continue };
            if text_at(self.strings, kind.name) == Some(function) {
                prototypes.extend((kind.size_or_type as usize).checked_sub(1));
            }
        }
        let [prototype] = prototypes[..] else { return Vec::new() };
        let Some((start, kind)) = self.kind(prototype).filter(|(_, k)| k.kind == KIND_FUNC_PROTO) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for number in 0..kind.length {
            let Some(parameter) = u32_at(self.types, start + 12 + 8 * number + 4) else { break };
            let pointed =
                self.plain(parameter).and_then(|index| self.kind(index)).filter(|(_, k)| k.kind == KIND_POINTER);
            let Some(target) = pointed.and_then(|(_, pointer)| self.plain(pointer.size_or_type)) else { continue };
            let (mut offsets, mut left) = (Vec::new(), MEMBERS);
            self.booleans_in(target, 0, DEPTH, &mut left, &mut offsets);
            found.extend(offsets.into_iter().map(|offset| (number, offset)));
        }
        found
    }

    fn booleans_in(&self, index: usize, base: u32, depth: usize, left: &mut usize, out: &mut Vec<u32>) {
        let Some((start, kind)) = self.kind(index).filter(|_| depth > 0) else { return };
        if self.is_truth(start, &kind) && base.is_multiple_of(8) {
            out.push(base / 8);
        }
        for number in 0..if kind.kind == KIND_STRUCT { kind.length } else { 0 } {
            let at = start + 12 + 12 * number;
            let (Some(member), Some(offset)) = (u32_at(self.types, at + 4), u32_at(self.types, at + 8)) else { return };
            let Some(rest) = left.checked_sub(1) else { return };
            *left = rest;
            // A bit field has a width in the top eight bits, and is no byte of its own.
            let (width, offset) = if kind.flag { (offset >> 24, offset & 0xff_ffff) } else { (0, offset) };
            if let (0, Some(inner)) = (width, self.plain(member)) {
                self.booleans_in(inner, base.saturating_add(offset), depth - 1, left, out);
            }
        }
    }

    fn is_truth(&self, start: usize, kind: &Kind) -> bool {
        let encoding = u32_at(self.types, start + 12).map(|word| word >> 24);
        kind.kind == KIND_INT && kind.size_or_type == 1 && encoding.is_some_and(|e| e & ENCODING_BOOL != 0)
    }

    /// A type by its position, and where it begins.
    fn kind(&self, index: usize) -> Option<(usize, Kind)> {
        let start = *self.starts.get(index)? as usize;
        Some((start, Kind::read(self.types, start)?))
    }

    /// The position of a type, given by its number, without the names and qualifiers in front of it.
    fn plain(&self, number: u32) -> Option<usize> {
        let mut index = (number as usize).checked_sub(1)?;
        for _ in 0..DEPTH {
            let (_, kind) = self.kind(index)?;
            if !QUALIFIERS.contains(&kind.kind) {
                return Some(index);
            }
            index = (kind.size_or_type as usize).checked_sub(1)?;
        }
        None
    }

    /// The first structure or union of that name.
    pub fn struct_named(&self, name: &str) -> Option<Struct> {
        let named = |kind: Kind| {
            let rest = self.strings.get(kind.name..).and_then(|rest| rest.strip_prefix(name.as_bytes()));
            kind.is_composite() && rest.and_then(<[u8]>::first) == Some(&0)
        };
        let index = self.starts.iter().position(|&start| Kind::read(self.types, start as usize).is_some_and(named))?;
        let kind = Kind::read(self.types, *self.starts.get(index)? as usize)?;
        let (mut members, mut left) = (Vec::new(), MEMBERS);
        self.members(index, 0, DEPTH, &mut left, &mut members);
        Some(Struct { size: kind.size_or_type, members })
    }

    /// Collects the members of the composite at `index`, which begins at bit `base`; visits `left` members at most.
    fn members(&self, index: usize, base: u32, depth: usize, left: &mut usize, out: &mut Vec<Member>) {
        if depth == 0 {
            return;
        }
        let Some(&start) = self.starts.get(index) else { return };
        let start = start as usize;
        let Some(kind) = Kind::read(self.types, start).filter(Kind::is_composite) else { return };
        for number in 0..kind.length {
            let at = start + 12 + 12 * number;
            let fields = (u32_at(self.types, at), u32_at(self.types, at + 4), u32_at(self.types, at + 8));
            let (Some(name), Some(member_type), Some(offset)) = fields else { return };
            match left.checked_sub(1) {
                Some(rest) => *left = rest,
                None => return,
            }
            // With bit fields in the structure, the top eight bits are the member's width.
            let offset = if kind.flag { offset & 0xff_ffff } else { offset };
            let bit_offset = base.saturating_add(offset);
            match text_at(self.strings, name as usize) {
                Some("") => {
                    if let Some(inner) = (member_type as usize).checked_sub(1) {
                        self.members(inner, bit_offset, depth - 1, left, out);
                    }
                }
                Some(name) if name.len() > NAME => {}
                Some(name) => out.push(Member { name: name.to_owned(), bit_offset }),
                None => {}
            }
        }
    }
}

/// The common head of a type.
struct Kind {
    name: usize,
    kind: u32,
    flag: bool,
    length: usize,
    size_or_type: u32,
}

impl Kind {
    fn read(types: &[u8], at: usize) -> Option<Kind> {
        let name = u32_at(types, at)? as usize;
        let info = u32_at(types, at + 4)?;
        let size_or_type = u32_at(types, at + 8)?;
        Some(Kind {
            name,
            kind: info >> 24 & 0x1f,
            flag: info >> 31 != 0,
            length: (info & 0xffff) as usize,
            size_or_type,
        })
    }

    fn is_composite(&self) -> bool {
        matches!(self.kind, KIND_STRUCT | KIND_UNION)
    }

    /// How many bytes follow the head; `None` for an unknown kind.
    fn extra_size(&self) -> Option<usize> {
        match self.kind {
            KIND_INT | KIND_VAR | KIND_DECL_TAG => Some(4),
            KIND_ARRAY => Some(12),
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => Some(12 * self.length),
            KIND_ENUM | KIND_FUNC_PROTO => Some(8 * self.length),
            // Pointers, forwards, typedefs, qualifiers, functions, floats, type tags.
            KIND_POINTER | 7..=KIND_FUNC | 16 | KIND_TYPE_TAG => Some(0),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "btf_tests.rs"]
mod tests;
