//! Members of structures and elements of arrays, read through the kernel's types.

use kerf_image::btf::{Btf, Shape, TypeId, TypedMember};

use super::names::near;
use super::{Checked, Checker, Kind, Location, Number};
use crate::ast::Node;
use crate::error::Problem;
use crate::render::Span;
use crate::tree::{Field, Text, Truth, Word};

/// How many members are listed when none looks like what was written.
const LISTED: usize = 6;

/// Offsets from an address fit an instruction.
const FARTHEST: u32 = i32::MAX as u32;

impl Checker<'_> {
    fn types(&self, span: Span) -> Checked<&Btf<'_>> {
        self.scope.types.ok_or((span, Problem::NoTypes))
    }

    /// `base->name` or `base.name`.
    pub(super) fn member(&self, base: &Node, arrow: bool, name: &str, at: Span) -> Checked<Kind> {
        let kind = self.kind(base)?;
        let types = self.types(base.span)?;
        let (address, offset, composite) = match (kind, arrow) {
            (Kind::Pointer(Some(to), word), true) if types.shape(to) == Shape::Composite => (word, 0, to),
            (Kind::Object(location), false) if types.shape(location.type_id) == Shape::Composite => {
                (location.base, location.offset, location.type_id)
            }
            (kind @ Kind::Pointer(..), false) => {
                return Err((at, Problem::Arrow { what: self.describe(&kind), write: "->" }));
            }
            (kind @ Kind::Object(_), true) => {
                return Err((at, Problem::Arrow { what: self.describe(&kind), write: "." }));
            }
            (kind, _) => {
                let what = self.describe(&kind);
                return Err((base.span, Problem::NoValue { what, why: "of which no members are known" }));
            }
        };
        let members = types.typed_members(composite);
        let Some(member) = members.iter().find(|member| member.name == name) else {
            let type_name = types.spelling(composite);
            return Err((
                at,
                Problem::UnknownMember { type_name, member: name.to_owned(), near: like(name, &members) },
            ));
        };
        let place = offset.checked_add(member.bit_offset / 8).filter(|offset| *offset <= FARTHEST);
        let offset = place.ok_or_else(|| (at, far(&types.spelling(composite))))?;
        let location = Location { base: address, offset, type_id: member.member };
        load(types, location, Some(member)).map_err(|problem| (at, problem))
    }

    /// `base[index]`.
    pub(super) fn index(&self, base: &Node, index: &Node) -> Checked<Kind> {
        let (kind, types) = (self.kind(base)?, self.types(base.span)?);
        let position = match self.kind(index)? {
            Kind::Literal(value) => u32::try_from(value).map_err(|_| (index.span, Problem::Index))?,
            _ => return Err((index.span, Problem::Index)),
        };
        let (address, start, element) = match kind {
            Kind::Pointer(Some(to), word) => (word, 0, to),
            Kind::Object(location) | Kind::Text(_, Some(location)) => match types.shape(location.type_id) {
                Shape::Array { count, .. } if count > 0 && position >= count => {
                    return Err((index.span, Problem::Outside(count)));
                }
                Shape::Array { element, .. } => (location.base, location.offset, element),
                _ => {
                    let what = self.describe(&Kind::Object(location));
                    return Err((base.span, Problem::NoValue { what, why: "which has no elements" }));
                }
            },
            kind => {
                let what = self.describe(&kind);
                return Err((base.span, Problem::NoValue { what, why: "which has no elements" }));
            }
        };
        let span = base.span.to(index.span);
        let size = types.size(element);
        if size == 0 {
            let what = format!("a `{}`", types.spelling(element));
            return Err((span, Problem::NoValue { what, why: "whose size is not known" }));
        }
        let offset = position.checked_mul(size).and_then(|n| n.checked_add(start)).filter(|n| *n <= FARTHEST);
        let offset = offset.ok_or_else(|| (span, far(&types.spelling(element))))?;
        load(types, Location { base: address, offset, type_id: element }, None).map_err(|problem| (span, problem))
    }
}

fn far(type_name: &str) -> Problem {
    Problem::NoValue { what: format!("too far inside of a `{type_name}`"), why: "farther than 2 GiB" }
}

/// Members to try instead.
fn like(name: &str, members: &[TypedMember]) -> Vec<String> {
    let all = || members.iter().map(|member| member.name.as_str());
    let similar = near(name, all());
    if similar.is_empty() { all().take(LISTED).map(str::to_owned).collect() } else { similar }
}

/// What lies at a place. A member says where a bit-field begins.
fn load(types: &Btf, location: Location, member: Option<&TypedMember>) -> Result<Kind, Problem> {
    let Location { base, offset, type_id } = location.clone();
    let word = |bytes: u32, signed: bool| {
        let skip = member.map_or(0, |member| member.bit_offset % 8);
        let bits = member.and_then(|member| member.bits).unwrap_or(8 * bytes);
        let field = Field { offset, skip, bits, signed };
        let what = format!("a bit-field of {bits} bits");
        if !(1..=64).contains(&bits) || skip + bits > 64 {
            return Err(Problem::NoValue { what, why: "which does not lie in 64 bits" });
        }
        Ok(Word::Load { base: Box::new(base.clone()), field })
    };
    match types.shape(type_id) {
        Shape::Integer { truth: true, bytes, .. } => Ok(Kind::Truth(Truth::NonZero(word(bytes, false)?))),
        Shape::Integer { bytes: bytes @ 1..=8, signed, .. } => {
            Ok(Kind::Number(Number { signed, word: word(bytes, signed)?, names: None }))
        }
        Shape::Enumeration { bytes: bytes @ 1..=8, signed } => {
            Ok(Kind::Number(Number { signed, word: word(bytes, signed)?, names: Some(type_id) }))
        }
        Shape::Pointer(to) => Ok(Kind::Pointer(to, word(8, false)?)),
        Shape::Array { element, count } if is_character(types, element) => {
            let text = match count {
                // The string begins where the structure ends, and has no end of its own.
                0 => Text::Pointer(address(base, offset)),
                length => Text::Array { base, offset, length },
            };
            Ok(Kind::Text(text, Some(location)))
        }
        Shape::Array { .. } | Shape::Composite => Ok(Kind::Object(location)),
        Shape::Integer { .. } | Shape::Enumeration { .. } | Shape::Other => Err(Problem::NoValue {
            what: format!("a `{}`", types.spelling(type_id)),
            why: "which is no number of 64 bits",
        }),
    }
}

fn address(base: Word, offset: u32) -> Word {
    let sides = Box::new((base, Word::Constant(offset.into())));
    Word::Arithmetic { operator: crate::ast::Arithmetic::Add, signed: false, sides }
}

pub(super) fn is_character(types: &Btf, id: TypeId) -> bool {
    matches!(types.shape(id), Shape::Integer { character: true, .. })
}
