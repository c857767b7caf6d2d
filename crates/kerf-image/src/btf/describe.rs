//! What a type is, how C writes it, and which one C's words mean: for who reads members by their names.

use super::navigate::TypeId;
use super::{
    Btf, DEPTH, ENCODING_SIGNED, KIND_ARRAY, KIND_ENUM, KIND_ENUM64, KIND_FUNC_PROTO, KIND_INT, KIND_POINTER,
    KIND_STRUCT, KIND_TYPEDEF, KIND_UNION, Kind, MEMBERS, NAME,
};
use crate::bytes::{text_at, u32_at};

/// What a type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A number.
    Integer {
        /// Its size.
        bytes: u32,
        /// Whether it can be negative.
        signed: bool,
        /// `bool`.
        truth: bool,
        /// `char`: an element of text.
        character: bool,
    },
    /// A number with names.
    Enumeration {
        /// Its size.
        bytes: u32,
        /// Whether it can be negative.
        signed: bool,
    },
    /// An address; `None`: of anything.
    Pointer(Option<TypeId>),
    /// Elements of one type. The number is 0 where the array has no end of its own.
    Array {
        /// The type of the elements.
        element: TypeId,
        /// How many there are.
        count: u32,
    },
    /// A structure or union.
    Composite,
    /// Something else: a function, a structure of which nothing is known.
    Other,
}

/// A member, where it is and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedMember {
    /// The name.
    pub name: String,
    /// Where it begins, in bits from the start of the outermost structure.
    pub bit_offset: u32,
    /// How many bits a bit-field has.
    pub bits: Option<u32>,
    /// What it is.
    pub member: TypeId,
}

impl Btf<'_> {
    /// What a type is.
    pub fn shape(&self, id: TypeId) -> Shape {
        let Some((start, kind)) = self.of(id) else { return Shape::Other };
        match kind.kind {
            KIND_INT => {
                let encoding = u32_at(self.types, start + 12).map_or(0, |word| word >> 24);
                let character = kind.size_or_type == 1 && text_at(self.strings, kind.name) == Some("char");
                let signed = character || encoding & ENCODING_SIGNED != 0;
                Shape::Integer { bytes: kind.size_or_type, signed, truth: self.is_truth(start, &kind), character }
            }
            KIND_ENUM | KIND_ENUM64 => Shape::Enumeration { bytes: kind.size_or_type, signed: kind.flag },
            KIND_POINTER => Shape::Pointer(self.pointee(id)),
            KIND_ARRAY => match (self.element(start), u32_at(self.types, start + 20)) {
                (Some(element), Some(count)) => Shape::Array { element, count },
                _ => Shape::Other,
            },
            KIND_STRUCT | KIND_UNION => Shape::Composite,
            _ => Shape::Other,
        }
    }

    /// The members of a structure or union, those of anonymous ones inside included.
    pub fn typed_members(&self, id: TypeId) -> Vec<TypedMember> {
        let (mut members, mut left) = (Vec::new(), MEMBERS);
        self.collect_members(id, 0, DEPTH, &mut left, &mut members);
        members
    }

    fn collect_members(&self, id: TypeId, base: u32, depth: usize, left: &mut usize, out: &mut Vec<TypedMember>) {
        let Some((start, kind)) = self.of(id).filter(|(_, kind)| kind.is_composite() && depth > 0) else { return };
        for at in (0..kind.length).map(|number| start + 12 + 12 * number) {
            let fields = (u32_at(self.types, at), u32_at(self.types, at + 4), u32_at(self.types, at + 8));
            let (Some(name), Some(number), Some(place)) = fields else { return };
            let Some(rest) = left.checked_sub(1) else { return };
            *left = rest;
            let (width, offset) = if kind.flag { (place >> 24, place & 0xff_ffff) } else { (0, place) };
            let (Some(name), Some(member)) = (text_at(self.strings, name as usize), self.type_id(number)) else {
                continue;
            };
            let bit_offset = base.saturating_add(offset);
            if name.is_empty() {
                self.collect_members(member, bit_offset, depth - 1, left, out);
            } else if name.len() <= NAME {
                let bits = (width > 0).then_some(width);
                out.push(TypedMember { name: name.to_owned(), bit_offset, bits, member });
            }
        }
    }

    /// The names of an enumeration with their values.
    pub fn enumerators(&self, id: TypeId) -> Vec<(String, i128)> {
        let Some((start, kind)) = self.of(id) else { return Vec::new() };
        let word = |at: usize| u32_at(self.types, at);
        let signed = kind.flag;
        let read = |number: usize| match kind.kind {
            KIND_ENUM => {
                let at = start + 12 + 8 * number;
                let value = word(at + 4)?;
                Some((word(at)?, if signed { i128::from(value as i32) } else { i128::from(value) }))
            }
            KIND_ENUM64 => {
                let at = start + 12 + 12 * number;
                let value = u64::from(word(at + 4)?) | u64::from(word(at + 8)?) << 32;
                Some((word(at)?, if signed { i128::from(value as i64) } else { i128::from(value) }))
            }
            _ => None,
        };
        let named = |(name, value): (u32, i128)| Some((text_at(self.strings, name as usize)?.to_owned(), value));
        (0..kind.length).filter_map(|number| named(read(number)?)).collect()
    }

    /// How C writes a type.
    pub fn spelling(&self, id: TypeId) -> String {
        self.spelling_of(id, DEPTH)
    }

    fn spelling_of(&self, id: TypeId, depth: usize) -> String {
        let Some((start, kind)) = self.of(id).filter(|_| depth > 0) else { return "?".into() };
        let name = text_at(self.strings, kind.name).filter(|name| !name.is_empty()).unwrap_or("{ … }");
        match kind.kind {
            KIND_INT => name.to_owned(),
            KIND_STRUCT => format!("struct {name}"),
            KIND_UNION => format!("union {name}"),
            KIND_ENUM | KIND_ENUM64 => format!("enum {name}"),
            KIND_POINTER => {
                let to = self.pointee(id).map_or_else(|| "void".into(), |to| self.spelling_of(to, depth - 1));
                if to.ends_with('*') { format!("{to}*") } else { format!("{to} *") }
            }
            KIND_ARRAY => {
                let count = u32_at(self.types, start + 20).unwrap_or(0);
                let element = self.element(start).map_or_else(|| "?".into(), |id| self.spelling_of(id, depth - 1));
                format!("{element} [{count}]")
            }
            KIND_FUNC_PROTO => "function".into(),
            _ if name == "{ … }" => "?".into(),
            _ => format!("struct {name}"),
        }
    }

    /// The type that C's words mean: `struct request_queue *`, `const char *`, `sector_t`. Qualifiers do not count.
    pub fn type_spelled(&self, text: &str) -> Option<TypeId> {
        let depth = text.chars().filter(|c| *c == '*').count();
        let words = text.split(|c: char| c.is_whitespace() || c == '*').filter(|word| !word.is_empty());
        let words: Vec<&str> = words.filter(|word| !matches!(*word, "const" | "volatile" | "restrict")).collect();
        if depth > DEPTH {
            return None;
        }
        if words.as_slice() == ["void"] {
            let pointer = (depth > 0).then(|| self.pointer_to(None)).flatten();
            return (1..depth).try_fold(pointer?, |id, _| self.pointer_to(Some(id)));
        }
        let base = match words.as_slice() {
            ["struct", name] => self.named(name, &[KIND_STRUCT]),
            ["union", name] => self.named(name, &[KIND_UNION]),
            ["enum", name] => self.named(name, &[KIND_ENUM, KIND_ENUM64]),
            _ => self.named(&words.join(" "), &[KIND_INT, KIND_TYPEDEF]),
        };
        (0..depth).try_fold(base?, |id, _| self.pointer_to(Some(id)))
    }

    fn named(&self, name: &str, kinds: &[u32]) -> Option<TypeId> {
        let wanted = |start: u32| {
            let kind = Kind::read(self.types, start as usize).filter(|kind| kinds.contains(&kind.kind));
            kind.is_some_and(|kind| text_at(self.strings, kind.name) == Some(name))
        };
        let index = self.starts.iter().position(|&start| wanted(start))?;
        self.type_id(u32::try_from(index).ok()? + 1)
    }

    /// The pointer type to a type; `None`: to anything.
    fn pointer_to(&self, id: Option<TypeId>) -> Option<TypeId> {
        let wanted = |start: u32| {
            let kind = Kind::read(self.types, start as usize).filter(|kind| kind.kind == KIND_POINTER);
            kind.is_some_and(|kind| self.type_id(kind.size_or_type) == id)
        };
        let index = self.starts.iter().position(|&start| wanted(start))?;
        self.type_id(u32::try_from(index).ok()? + 1)
    }
}
