//! Names: what is built in, and the arguments of the functions that use the constant.

use kerf_image::btf::{Btf, Shape, TypeId};

use super::{Checked, Checker, Kind, Number};
use crate::error::Problem;
use crate::place::{Argument, Place, REGISTERS};
use crate::render::Span;
use crate::tree::{Builtin, Text, Truth, Word};

/// The names of what is known of the running thread.
const BUILTINS: [&str; 8] = ["comm", "pid", "tgid", "uid", "gid", "cpu", "node", "cgroup"];

/// How many names are suggested.
const SUGGESTIONS: usize = 4;

/// The names that look like one, the most similar first.
pub(super) fn near<'n>(name: &str, all: impl Iterator<Item = &'n str>) -> Vec<String> {
    let wanted = name.to_lowercase();
    let distance = |other: &str| {
        let other = other.to_lowercase();
        let distance = strsim::damerau_levenshtein(&wanted, &other);
        let part = wanted.len() >= 3 && other.contains(&wanted);
        (distance <= 1 + name.len() / 4 || part).then_some(distance)
    };
    let mut found: Vec<(usize, &str)> = all.filter_map(|other| Some((distance(other)?, other))).collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(|(_, name)| name.to_owned()).take(SUGGESTIONS).collect()
}

impl<'a> Checker<'a> {
    /// A name alone: what is built in comes first, and `arg.NAME` means an argument always.
    pub(super) fn name(&self, span: Span, name: &str) -> Checked<Kind> {
        let number = |builtin| Kind::Number(Number { signed: false, word: Word::Builtin(builtin), names: None });
        Ok(match name {
            "comm" => Kind::Text(Text::Comm, None),
            "cgroup" => Kind::Cgroup,
            "pid" => number(Builtin::Pid),
            "tgid" => number(Builtin::Tgid),
            "uid" => number(Builtin::Uid),
            "gid" => number(Builtin::Gid),
            "cpu" => number(Builtin::Cpu),
            "node" => number(Builtin::Node),
            _ => return self.argument(span, name, &BUILTINS),
        })
    }

    /// An argument, which must be the same at all places of the constant. `others` are names that may have been meant as well.
    pub(super) fn argument(&self, span: Span, name: &str, others: &[&str]) -> Checked<Kind> {
        let wrong = |problem| (span, problem);
        let positions: Vec<Option<usize>> = self.scope.places.iter().map(|place| place.position(name)).collect();
        let Some(number) = positions.iter().flatten().next().copied() else {
            return Err(wrong(self.unknown(name, others)));
        };
        let mut chosen: Option<(TypeId, &Place)> = None;
        for (place, position) in self.scope.places.iter().zip(positions) {
            let Some(position) = position else {
                let (function, has) = (place.function.clone(), place.listed());
                return Err(wrong(Problem::NotEverywhere { name: name.to_owned(), function, has }));
            };
            let type_id = self.type_at(place, position).map_err(wrong)?;
            match chosen {
                Some((first, at)) if first != type_id || position != number => {
                    let (one, other) = (what(at, number), what(place, position));
                    return Err(wrong(Problem::Different { name: name.to_owned(), one, other }));
                }
                _ => chosen = Some((type_id, place)),
            }
        }
        if number >= REGISTERS {
            return Err(wrong(Problem::OnStack(name.to_owned())));
        }
        let gone = |place: &&Place| place.arguments.get(number).is_none_or(|argument| !argument.held);
        if let Some(place) = self.scope.places.iter().find(gone) {
            let (function, offset) = (place.function.clone(), place.offset);
            let there = place.readable();
            return Err(wrong(Problem::Dead { name: name.to_owned(), function, offset, there }));
        }
        let (Some((type_id, _)), Some(types)) = (chosen, self.scope.types) else {
            return Err(wrong(Problem::NoTypes));
        };
        self.in_register(types, number, type_id).map_err(wrong)
    }

    fn unknown(&self, name: &str, others: &[&str]) -> Problem {
        let arguments = self.scope.places.first().map(Place::readable).unwrap_or_default();
        let everywhere = |name: &String| self.scope.places.iter().all(|place| place.readable().contains(name));
        let arguments: Vec<String> = arguments.into_iter().filter(everywhere).collect();
        let all = others.iter().copied().chain(arguments.iter().map(String::as_str));
        Problem::UnknownName { name: name.to_owned(), near: near(name, all), arguments }
    }

    /// The type of an argument. The function's own type knows which of several structures of one name is meant.
    fn type_at(&self, place: &Place, position: usize) -> Result<TypeId, Problem> {
        let types = self.scope.types.ok_or(Problem::NoTypes)?;
        let prototypes = self.prototypes.get_or_init(|| types.prototypes());
        let argument = place.arguments.get(position);
        let spelled = argument.and_then(|argument| types.type_spelled(&argument.type_name));
        let own = prototypes.get(place.function.as_str()).and_then(|p| p.parameters.get(position).copied().flatten());
        let same = |own: &TypeId| spelled.is_none_or(|spelled| types.spelling(spelled) == types.spelling(*own));
        own.filter(same).or(spelled).ok_or_else(|| {
            let (name, type_name) = argument.map(|a| (a.name.clone(), a.type_name.clone())).unwrap_or_default();
            Problem::UnknownType { name, type_name }
        })
    }

    /// An argument's value, of which only the bits of its type mean something.
    fn in_register(&self, types: &Btf, number: usize, type_id: TypeId) -> Result<Kind, Problem> {
        let word = |bytes: u32, signed| Word::Argument { number, bits: 8 * bytes, signed };
        match types.shape(type_id) {
            Shape::Integer { truth: true, bytes, .. } => Ok(Kind::Truth(Truth::NonZero(word(bytes, false)))),
            Shape::Integer { bytes: bytes @ 1..=8, signed, .. } => {
                Ok(Kind::Number(Number { signed, word: word(bytes, signed), names: None }))
            }
            Shape::Enumeration { bytes: bytes @ 1..=8, signed } => {
                Ok(Kind::Number(Number { signed, word: word(bytes, signed), names: Some(type_id) }))
            }
            Shape::Pointer(to) => Ok(Kind::Pointer(to, word(8, false))),
            _ => {
                let what = format!("an argument of type `{}`", types.spelling(type_id));
                Err(Problem::NoValue { what, why: "which is not passed in one register" })
            }
        }
    }
}

/// An argument in words.
fn what(place: &Place, position: usize) -> String {
    let argument = place.arguments.get(position).map_or_else(|| "?".into(), Argument::declaration);
    format!("argument {} of {} is `{argument}`", position + 1, place.function)
}
