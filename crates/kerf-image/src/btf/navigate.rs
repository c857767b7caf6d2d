//! From a function to its parameters, from a pointer to what it points to, from an offset to the member there.

use std::collections::HashMap;

use super::{
    Btf, DEPTH, KIND_ARRAY, KIND_ENUM, KIND_ENUM64, KIND_FUNC, KIND_FUNC_PROTO, KIND_INT, KIND_POINTER, KIND_STRUCT,
    KIND_UNION, Kind, NAME,
};
use crate::bytes::{text_at, u32_at};

/// A type, by its number. Names and qualifiers in front of it do not count: two numbers differ only if the types do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(u32);

/// The types of a function's parameters and of its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// What each parameter is; `None` for a final `...`.
    pub parameters: Vec<Option<TypeId>>,
    /// What it returns; `None` for nothing.
    pub result: Option<TypeId>,
}

/// A member of a structure, the innermost one with a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The structure or union that holds it. One without a name counts as part of what is around it.
    pub holder: TypeId,
    /// Its name.
    pub holder_name: String,
    /// The member's name. Of an array, any element is meant.
    pub name: String,
    /// Where the member begins, in bytes from the start of the holder.
    pub offset: u32,
    /// What it is; of an array, what its elements are.
    pub member: Option<TypeId>,
}

impl Btf<'_> {
    /// What functions take and return, by name; nothing of a name that stands for functions of different types.
    pub fn prototypes(&self) -> HashMap<&str, Prototype> {
        let mut found: HashMap<&str, Option<Prototype>> = HashMap::new();
        for &start in &self.starts {
            let function = Kind::read(self.types, start as usize).filter(|k| k.kind == KIND_FUNC);
            let Some((name, prototype)) = function.and_then(|function| self.prototype(&function)) else { continue };
            let same = |known: &Option<Prototype>| known.as_ref() == Some(&prototype);
            match found.get(name) {
                Some(known) if same(known) => {}
                Some(_) => drop(found.insert(name, None)),
                None => drop(found.insert(name, Some(prototype))),
            }
        }
        found.into_iter().filter_map(|(name, prototype)| Some((name, prototype?))).collect()
    }

    fn prototype(&self, function: &Kind) -> Option<(&str, Prototype)> {
        let name = text_at(self.strings, function.name)?;
        let (start, kind) = self.kind((function.size_or_type as usize).checked_sub(1)?)?;
        if kind.kind != KIND_FUNC_PROTO {
            return None;
        }
        let parameter = |n: usize| u32_at(self.types, start + 12 + 8 * n + 4).and_then(|number| self.type_id(number));
        let parameters = (0..kind.length).map(parameter).collect();
        Some((name, Prototype { parameters, result: self.type_id(kind.size_or_type) }))
    }

    pub(super) fn type_id(&self, number: u32) -> Option<TypeId> {
        self.plain(number).map(|index| TypeId(index as u32 + 1))
    }

    pub(super) fn of(&self, id: TypeId) -> Option<(usize, Kind)> {
        self.kind((id.0 as usize).checked_sub(1)?)
    }

    /// What a pointer points to; `None` for other types and for `void *`.
    pub fn pointee(&self, id: TypeId) -> Option<TypeId> {
        let (_, kind) = self.of(id).filter(|(_, kind)| kind.kind == KIND_POINTER)?;
        self.type_id(kind.size_or_type)
    }

    /// How many parameters functions of a type take, and whether they return something; `None` if it is no function's type, or has a
    /// final `...`.
    pub fn function_type(&self, id: TypeId) -> Option<(usize, bool)> {
        let (start, kind) = self.of(id).filter(|(_, kind)| kind.kind == KIND_FUNC_PROTO)?;
        let last = kind.length.checked_sub(1).and_then(|n| u32_at(self.types, start + 12 + 8 * n + 4));
        (last != Some(0)).then_some((kind.length, kind.size_or_type != 0))
    }

    /// The first structure or union of a name.
    pub fn composite_named(&self, name: &str) -> Option<TypeId> {
        let named = |start: u32| {
            let kind = Kind::read(self.types, start as usize);
            kind.is_some_and(|k| k.is_composite() && k.length > 0 && text_at(self.strings, k.name) == Some(name))
        };
        let index = self.starts.iter().position(|&start| named(start))?;
        Some(TypeId(index as u32 + 1))
    }

    /// The size of a type in bytes; 0 if it has none.
    pub fn size(&self, id: TypeId) -> u32 {
        self.size_of(id, DEPTH)
    }

    fn size_of(&self, id: TypeId, depth: usize) -> u32 {
        let Some((start, kind)) = self.of(id).filter(|_| depth > 0) else { return 0 };
        match kind.kind {
            KIND_INT | KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_ENUM64 => kind.size_or_type,
            KIND_POINTER => 8,
            KIND_ARRAY => {
                let (Some(element), Some(count)) = (self.element(start), u32_at(self.types, start + 20)) else {
                    return 0;
                };
                self.size_of(element, depth - 1).saturating_mul(count)
            }
            _ => 0,
        }
    }

    pub(super) fn element(&self, start: usize) -> Option<TypeId> {
        self.type_id(u32_at(self.types, start + 12)?)
    }

    /// The member of a structure or union that holds the byte at an offset. Of a union's members it is the first that fits.
    pub fn field(&self, composite: TypeId, offset: u32) -> Option<Field> {
        let (_, kind) = self.of(composite).filter(|(_, kind)| kind.is_composite())?;
        let holder = (composite, text_at(self.strings, kind.name).unwrap_or_default());
        self.field_in(composite, offset, holder, 0, DEPTH)
    }

    fn field_in(
        &self,
        composite: TypeId,
        offset: u32,
        holder: (TypeId, &str),
        base: u32,
        depth: usize,
    ) -> Option<Field> {
        let (start, kind) = self.of(composite).filter(|(_, kind)| kind.is_composite() && depth > 0)?;
        for number in 0..kind.length {
            let at = start + 12 + 12 * number;
            let name = text_at(self.strings, u32_at(self.types, at)? as usize).filter(|name| name.len() <= NAME)?;
            let member = self.type_id(u32_at(self.types, at + 4)?);
            let place = u32_at(self.types, at + 8)?;
            let (width, bits) = if kind.flag { (place >> 24, place & 0xff_ffff) } else { (0, place) };
            let from = bits / 8;
            let size = if width > 0 { (bits % 8 + width).div_ceil(8) } else { member.map_or(0, |id| self.size(id)) };
            if !(from..from.saturating_add(size)).contains(&offset) {
                continue;
            }
            if let Some(found) = self.inside(member, name, offset - from, holder, base + from, depth) {
                return Some(found);
            }
        }
        None
    }

    /// The member itself, or what lies in it.
    fn inside(
        &self,
        member: Option<TypeId>,
        name: &str,
        offset: u32,
        holder: (TypeId, &str),
        from: u32,
        depth: usize,
    ) -> Option<Field> {
        let itself = |member| Field {
            holder: holder.0,
            holder_name: holder.1.to_owned(),
            name: name.to_owned(),
            offset: from,
            member,
        };
        let mut inner = member;
        let mut within = offset;
        while let Some((start, _)) = inner.and_then(|id| self.of(id)).filter(|(_, kind)| kind.kind == KIND_ARRAY) {
            inner = self.element(start);
            within %= inner.map_or(1, |id| self.size(id)).max(1);
        }
        let Some((id, kind)) = inner.and_then(|id| Some((id, self.of(id)?.1))).filter(|(_, k)| k.is_composite()) else {
            return Some(itself(inner));
        };
        let own = text_at(self.strings, kind.name).unwrap_or_default();
        if name.is_empty() {
            return self.field_in(id, within, holder, from, depth - 1);
        }
        let (holder, base) = if own.is_empty() { (holder, from) } else { ((id, own), 0) };
        self.field_in(id, within, holder, base, depth - 1)
    }
}
