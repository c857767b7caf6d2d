//! Strings and control groups, which are compared with strings in quotes and with nothing else.

use super::{Checked, Checker, Kind};
use crate::ast::Node;
use crate::error::Problem;
use crate::limits;
use crate::render::Span;
use crate::tree::{COMM, Text, Truth};

/// Which strings can be compared.
const HINT: &str = ": a string is compared with one in quotes";

impl Checker<'_> {
    /// Whether a string is one of several.
    pub(super) fn strings(&self, value: (Span, Kind), items: Vec<(Span, Kind)>) -> Checked<Truth> {
        let whole = items.last().map_or(value.0, |(last, _)| value.0.to(*last));
        if let ((at, Kind::Quoted(text)), [_]) = (&value, items.as_slice()) {
            let quoted = (*at, Kind::Quoted(text.clone()));
            let Some((other_at, other)) = items.into_iter().next() else { return Ok(Truth::Constant(false)) };
            if let Kind::Quoted(_) = other {
                return Err((whole, both(&self.describe(&other))));
            }
            return self.strings((other_at, other), vec![quoted]);
        }
        let described = self.describe(&value.1);
        let text = match value.1 {
            Kind::Text(text, _) => text,
            Kind::Pointer(Some(to), word) if self.points_to_text(to) => Text::Pointer(word),
            _ => {
                let hint = ": only a `char` array, a `char *` and comm are strings";
                return Err((whole, Problem::Mismatch { left: described, right: "a string".into(), hint }));
            }
        };
        let (what, most) = match &text {
            Text::Comm => ("a thread's name", COMM - 1),
            Text::Array { length, .. } => ("this array", *length as usize),
            Text::Pointer(_) => ("a string", limits::TEXT),
        };
        let mut literals = Vec::new();
        for (at, item) in items {
            match item {
                Kind::Quoted(literal) if literal.len() > most => {
                    return Err((at, Problem::LongText { what, most, bytes: literal.len() }));
                }
                Kind::Quoted(literal) => literals.push(literal),
                other => {
                    let right = self.describe(&other);
                    return Err((value.0.to(at), Problem::Mismatch { left: described, right, hint: HINT }));
                }
            }
        }
        Ok(Truth::TextAmong(text, literals))
    }

    fn points_to_text(&self, to: kerf_image::btf::TypeId) -> bool {
        self.scope.types.is_some_and(|types| super::members::is_character(types, to))
    }

    /// Whether the thread's control group is one of several.
    pub(super) fn cgroups(&self, value: (Span, Kind), items: Vec<(Span, Kind)>) -> Checked<Truth> {
        let paths = match (&value.1, items.as_slice()) {
            (Kind::Cgroup, _) => items,
            // Written the other way round.
            (_, [(_, Kind::Cgroup)]) => vec![value],
            _ => return Err((value.0, Problem::Under)),
        };
        let mut ids = Vec::new();
        for (at, path) in paths {
            let Kind::Quoted(path) = path else {
                let right = self.describe(&path);
                let hint = ": write its path in quotes, such as \"/system.slice\"";
                return Err((at, Problem::Mismatch { left: "the thread's cgroup".into(), right, hint }));
            };
            ids.push(self.scope.cgroups.find(&path).map_err(|why| (at, Problem::NoCgroup(why)))?.id);
        }
        Ok(Truth::CgroupAmong(ids))
    }

    /// `cgroup under "/path"`.
    pub(super) fn under(&self, span: Span, left: &Node, right: &Node) -> Checked<Kind> {
        match (self.kind(left)?, self.kind(right)?) {
            (Kind::Cgroup, Kind::Quoted(path)) => {
                let found = self.scope.cgroups.find(&path).map_err(|why| (right.span, Problem::NoCgroup(why)))?;
                Ok(Kind::Truth(Truth::CgroupUnder { level: found.level, id: found.id }))
            }
            _ => Err((span, Problem::Under)),
        }
    }
}

fn both(what: &str) -> Problem {
    Problem::Mismatch { left: what.to_owned(), right: what.to_owned(), hint: " here: both sides are in quotes" }
}
