//! Operators: what their sides must be, how constants among them fold, which of signed and unsigned they mean.

use super::{Checked, Checker, Kind, Number};
use crate::ast::{Arithmetic, Binary, Node, NodeKind, Order, Unary};
use crate::error::Problem;
use crate::number;
use crate::render::Span;
use crate::tree::{Truth, Word};

/// Whether a constant must be one that the other side can have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strict {
    Yes,
    No,
}

/// A number that takes its kind from the other side, or has one.
type Side = (Span, Kind);

fn numeric(signed: bool, word: Word) -> Kind {
    Kind::Number(Number { signed, word, names: None })
}

fn kind_name(signed: bool) -> &'static str {
    if signed { "signed" } else { "unsigned" }
}

/// Whether a constant alone counts as signed.
fn natural(value: i128) -> bool {
    i64::try_from(value).is_ok()
}

impl Checker<'_> {
    fn number(&self, node: &Node, wanted: impl Fn() -> String) -> Checked<Side> {
        match self.kind(node)? {
            kind @ (Kind::Literal(_) | Kind::Number(_)) => Ok((node.span, kind)),
            other => Err((node.span, Problem::NotNumber { wanted: wanted(), found: self.describe(&other) })),
        }
    }

    pub(super) fn unary(&self, span: Span, operator: Unary, operand: &Node) -> Checked<Kind> {
        if operator == Unary::Not {
            return Ok(match self.truth(operand, "what `!` stands before")? {
                Truth::Constant(truth) => Kind::Truth(Truth::Constant(!truth)),
                truth => Kind::Truth(Truth::Not(Box::new(truth))),
            });
        }
        let symbol = if operator == Unary::Negate { '-' } else { '~' };
        let (_, kind) = self.number(operand, || format!("what `{symbol}` stands before"))?;
        match kind {
            Kind::Literal(value) if operator == Unary::Negate => {
                number::fitting(-value).map(Kind::Literal).map_err(|problem| (span, problem))
            }
            Kind::Literal(value) => Ok(Kind::Literal(number::complement(value))),
            Kind::Number(Number { signed, word, .. }) => Ok(numeric(
                signed,
                match (operator, word) {
                    (Unary::Negate, Word::Constant(bits)) => Word::Constant(bits.wrapping_neg()),
                    (_, Word::Constant(bits)) => Word::Constant(!bits),
                    (Unary::Negate, word) => Word::Negate(Box::new(word)),
                    (_, word) => Word::Complement(Box::new(word)),
                },
            )),
            other => Ok(other),
        }
    }

    /// `signed(x)` and `unsigned(x)`: the same bits. An address becomes a number this way too.
    pub(super) fn converted(&self, span: Span, signed: bool, inner: &Node) -> Checked<Kind> {
        match self.kind(inner)? {
            Kind::Literal(value) => Ok(numeric(signed, Word::Constant(number::bits(value)))),
            Kind::Number(Number { word, .. }) | Kind::Pointer(_, word) => Ok(numeric(signed, word)),
            other => {
                let wanted = format!("what {}(…) converts", kind_name(signed));
                Err((span, Problem::NotNumber { wanted, found: self.describe(&other) }))
            }
        }
    }

    pub(super) fn binary(&self, span: Span, operator: Binary, left: &Node, right: &Node) -> Checked<Kind> {
        match operator {
            Binary::Arithmetic(operator) => self.arithmetic(span, operator, left, right),
            Binary::Order(order) => self.ordered(order, left, right).map(Kind::Truth),
            Binary::Equal => self.among(left, &[right]).map(Kind::Truth),
            Binary::NotEqual => Ok(Kind::Truth(match self.among(left, &[right])? {
                Truth::Constant(truth) => Truth::Constant(!truth),
                truth => Truth::Not(Box::new(truth)),
            })),
            Binary::And | Binary::Or => {
                let wanted = if operator == Binary::And { "each side of `&&`" } else { "each side of `||`" };
                let sides = Box::new((self.truth(left, wanted)?, self.truth(right, wanted)?));
                Ok(Kind::Truth(if operator == Binary::And { Truth::And(sides) } else { Truth::Or(sides) }))
            }
        }
    }

    fn arithmetic(&self, span: Span, operator: Arithmetic, left: &Node, right: &Node) -> Checked<Kind> {
        let wanted = || format!("each side of `{}`", operator.symbol());
        let (left, right) = (self.number(left, wanted)?, self.number(right, wanted)?);
        let divides = matches!(operator, Arithmetic::Divide | Arithmetic::Remainder);
        let shifts = matches!(operator, Arithmetic::ShiftLeft | Arithmetic::ShiftRight);
        match constant(&right.1) {
            Some(0) if divides => return Err((right.0, Problem::Zero)),
            Some(by) if shifts && !(0..64).contains(&by) => return Err((right.0, Problem::Shift)),
            _ => {}
        }
        if let (Kind::Literal(l), Kind::Literal(r)) = (&left.1, &right.1) {
            return number::fold(operator, *l, *r).map(Kind::Literal).map_err(|problem| (span, problem));
        }
        let (signed, left, right) = if shifts {
            // The number of places says nothing of what is shifted.
            let (signed, left) = alone(left.1);
            (signed, left, alone(right.1).1)
        } else {
            pair(left, right, operator.symbol(), if divides { Strict::Yes } else { Strict::No })?
        };
        let word = match (left, right) {
            (Word::Constant(l), Word::Constant(r)) => Word::Constant(number::compute(operator, signed, l, r)),
            sides => Word::Arithmetic { operator, signed, sides: Box::new(sides) },
        };
        Ok(numeric(signed, word))
    }

    fn ordered(&self, order: Order, left: &Node, right: &Node) -> Checked<Truth> {
        let wanted = || format!("each side of `{}`", order.symbol());
        let (left, right) = (self.number(left, wanted)?, self.number(right, wanted)?);
        if let (Kind::Literal(l), Kind::Literal(r)) = (&left.1, &right.1) {
            return Ok(Truth::Constant(number::holds(order, l.cmp(r))));
        }
        let (signed, left, right) = pair(left, right, order.symbol(), Strict::Yes)?;
        Ok(Truth::Ordered { order, signed, sides: Box::new((left, right)) })
    }

    /// `if` as a part of an expression: both branches are the same kind of thing.
    pub(super) fn conditional(&self, span: Span, condition: &Node, yes: &Node, no: &Node) -> Checked<Kind> {
        let condition = self.truth(condition, "the condition of an `if`")?;
        match (self.kind(yes)?, self.kind(no)?) {
            (Kind::Truth(yes), Kind::Truth(no)) => Ok(Kind::Truth(Truth::If(Box::new((condition, yes, no))))),
            (a @ (Kind::Literal(_) | Kind::Number(_)), b @ (Kind::Literal(_) | Kind::Number(_))) => {
                let (signed, a, b) = pair((yes.span, a), (no.span, b), "if", Strict::Yes)?;
                Ok(numeric(signed, Word::If(Box::new(condition), Box::new((a, b)))))
            }
            (Kind::Pointer(a, yes), Kind::Pointer(b, no)) if a == b => {
                Ok(Kind::Pointer(a, Word::If(Box::new(condition), Box::new((yes, no)))))
            }
            (a, b) => {
                let (left, right) = (self.describe(&a), self.describe(&b));
                let hint = ", nor chosen from: both branches of an `if` are numbers, or true or false";
                Err((span, Problem::Mismatch { left, right, hint }))
            }
        }
    }

    /// Whether a value is one of several: `==` with one, `in` with more.
    pub(super) fn among(&self, value: &Node, items: &[&Node]) -> Checked<Truth> {
        let (value, items) = self.with_names(value, items)?;
        let quoted = |(_, kind): &Side| matches!(kind, Kind::Quoted(_));
        if matches!(value.1, Kind::Cgroup) || items.iter().any(|(_, kind)| matches!(kind, Kind::Cgroup)) {
            return self.cgroups(value, items);
        }
        if quoted(&value) || items.iter().any(quoted) || matches!(value.1, Kind::Text(..)) {
            return self.strings(value, items);
        }
        if let Some(truth) = constants_among(&value, &items) {
            return Ok(Truth::Constant(truth));
        }
        if let ((_, Kind::Truth(one)), [(_, Kind::Truth(other))]) = (&value, items.as_slice()) {
            return Ok(Truth::Same(Box::new((one.clone(), other.clone()))));
        }
        let (mut chosen, mut words) = (Word::Constant(0), Vec::new());
        for item in items {
            let (left, right) = self.equal_sides(value.clone(), item)?;
            chosen = left;
            words.push(right);
        }
        Ok(Truth::Among(chosen, words))
    }

    /// The sides of an equation. A name of an enumeration is looked up where the other side is of that enumeration.
    fn with_names(&self, value: &Node, items: &[&Node]) -> Checked<(Side, Vec<Side>)> {
        let kind = |node: &Node, other: Option<&Kind>| match (self.kind(node), other) {
            (
                Err((span, Problem::UnknownName { name, near, arguments })),
                Some(Kind::Number(Number { names: Some(id), .. })),
            ) if matches!(node.kind, NodeKind::Name(_)) => {
                let all = self.scope.types.map(|types| types.enumerators(*id)).unwrap_or_default();
                let found = all.iter().find(|(own, _)| *own == name).map(|(_, value)| Kind::Literal(*value));
                found.map(|kind| (span, kind)).ok_or_else(|| {
                    let mut like = super::names::near(&name, all.iter().map(|(own, _)| own.as_str()));
                    like.extend(near);
                    (span, Problem::UnknownName { name, near: like, arguments })
                })
            }
            (other, _) => other.map(|kind| (node.span, kind)),
        };
        match kind(value, None) {
            Ok(value) => {
                let items = items.iter().map(|item| kind(item, Some(&value.1))).collect::<Checked<Vec<_>>>()?;
                Ok((value, items))
            }
            Err(wrong) => {
                // The name may stand on the left side.
                let Some(Ok(item)) = items.first().map(|item| kind(item, None)) else { return Err(wrong) };
                let value = kind(value, Some(&item.1))?;
                let items = items.iter().map(|item| kind(item, None)).collect::<Checked<Vec<_>>>()?;
                Ok((value, items))
            }
        }
    }

    /// Two words that are equal if the sides are.
    fn equal_sides(&self, left: Side, right: Side) -> Checked<(Word, Word)> {
        let span = left.0.to(right.0);
        match (left.1, right.1) {
            (l @ (Kind::Literal(_) | Kind::Number(_)), r @ (Kind::Literal(_) | Kind::Number(_))) => {
                let variables = matches!((&l, &r), (Kind::Number(_), Kind::Number(_)));
                let strict = if variables { Strict::No } else { Strict::Yes };
                let (_, l, r) = pair((left.0, l), (right.0, r), "==", strict)?;
                Ok((l, r))
            }
            (Kind::Pointer(_, word), Kind::Null | Kind::Literal(0)) => Ok((word, Word::Constant(0))),
            (Kind::Null | Kind::Literal(0), Kind::Pointer(_, word)) => Ok((Word::Constant(0), word)),
            (Kind::Pointer(_, l), Kind::Pointer(_, r)) => Ok((l, r)),
            (l, r) => {
                let hint = match (&l, &r) {
                    (Kind::Truth(_), _) | (_, Kind::Truth(_)) => ": write `true` or `false`, or nothing at all",
                    (Kind::Pointer(..), _) | (_, Kind::Pointer(..)) => {
                        ": an address is compared with `null` or another one; unsigned(…) makes it a number"
                    }
                    _ => "",
                };
                Err((span, Problem::Mismatch { left: self.describe(&l), right: self.describe(&r), hint }))
            }
        }
    }
}

/// Whether a constant is among others, if all of them are constants.
fn constants_among(value: &Side, items: &[Side]) -> Option<bool> {
    let literal = |(_, kind): &Side| if let Kind::Literal(value) = kind { Some(*value) } else { None };
    let all: Vec<i128> = items.iter().map(literal).collect::<Option<_>>()?;
    Some(all.contains(&literal(value)?))
}

/// A constant of any kind.
fn constant(kind: &Kind) -> Option<i128> {
    match kind {
        Kind::Literal(value) => Some(*value),
        Kind::Number(Number { signed: true, word: Word::Constant(bits), .. }) => Some(i128::from(*bits as i64)),
        Kind::Number(Number { word: Word::Constant(bits), .. }) => Some(i128::from(*bits)),
        _ => None,
    }
}

/// A number that nothing else says the kind of.
fn alone(kind: Kind) -> (bool, Word) {
    match kind {
        Kind::Number(Number { signed, word, .. }) => (signed, word),
        Kind::Literal(value) => (natural(value), Word::Constant(number::bits(value))),
        _ => (false, Word::Constant(0)),
    }
}

/// Two numbers of one kind: a constant takes that of the other side. Where the kind matters, two different ones are refused.
fn pair(left: Side, right: Side, operator: &'static str, strict: Strict) -> Checked<(bool, Word, Word)> {
    let fitted = |(span, value): (Span, i128), signed: bool| {
        if strict == Strict::Yes && !number::fits(value, signed) {
            return Err((span, Problem::Unfit { value, kind: kind_name(signed) }));
        }
        Ok(Word::Constant(number::bits(value)))
    };
    let span = left.0.to(right.0);
    match (left, right) {
        ((_, Kind::Number(l)), (at, Kind::Literal(value))) => Ok((l.signed, l.word, fitted((at, value), l.signed)?)),
        ((at, Kind::Literal(value)), (_, Kind::Number(r))) => Ok((r.signed, fitted((at, value), r.signed)?, r.word)),
        ((at, Kind::Literal(l)), (_, Kind::Literal(r))) => {
            let signed = natural(l) && natural(r);
            let left = fitted((at, l), signed)?;
            Ok((signed, left, fitted((at, r), signed)?))
        }
        ((_, l), (_, r)) => {
            let (left_signed, left) = alone(l);
            let (right_signed, right) = alone(r);
            if left_signed != right_signed && strict == Strict::Yes {
                return Err((span, Problem::MixedSigns { operator }));
            }
            Ok((left_signed && right_signed, left, right))
        }
    }
}
