//! From what is written to what it means: names, types, constants. All that can be wrong with an expression is found here.

mod members;
mod names;
mod operators;
mod text;

use std::cell::OnceCell;
use std::collections::HashMap;

use kerf_image::btf::{Btf, Prototype, TypeId};

use crate::ast::{Node, NodeKind};
use crate::cgroup::Cgroups;
use crate::error::{ExpressionError, Problem};
use crate::number;
use crate::parse::Expression;
use crate::place::Place;
use crate::render::Span;
use crate::tree::{Choice, Decision, Text, Truth, Word};

/// What an expression is checked against.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The kernel's types; without them no argument can be read.
    pub types: Option<&'a Btf<'a>>,
    /// The places of the constant.
    pub places: &'a [Place],
    /// The control groups that paths mean.
    pub cgroups: &'a dyn Cgroups,
}

/// The values that a constant may have.
#[derive(Clone, Copy)]
pub struct Certified<'a> {
    /// The constant, as people call it.
    pub constant: &'a str,
    /// The values in words.
    pub domain: &'a str,
    /// Whether a value is one of them.
    pub holds: &'a dyn Fn(i128) -> bool,
}

/// A checked condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition(pub(crate) Truth);

impl Expression {
    /// Checks an expression that must be true or false.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn condition(&self, scope: &Scope) -> Result<Condition, ExpressionError> {
        let checker = Checker::new(*scope, None);
        checker.condition(&self.root).map(Condition).map_err(|wrong| ExpressionError::new(&self.text, wrong))
    }

    /// Checks an expression that must be a value, or `keep`.
    ///
    /// # Errors
    /// The first thing that is wrong with it; also a constant value that is not certified.
    pub fn value(&self, scope: &Scope, certified: &Certified) -> Result<Decision, ExpressionError> {
        let checker = Checker::new(*scope, Some(*certified));
        checker.choice(&self.root).map(Decision).map_err(|wrong| ExpressionError::new(&self.text, wrong))
    }
}

type Checked<T> = Result<T, (Span, Problem)>;

/// What a part of an expression is.
#[derive(Clone)]
enum Kind {
    /// A constant without a type of its own: it takes that of the other side.
    Literal(i128),
    Number(Number),
    Truth(Truth),
    /// An address of this; `None`: of anything.
    Pointer(Option<TypeId>, Word),
    Null,
    /// A string of the kernel's. One in a structure can also be looked at byte by byte.
    Text(Text, Option<Location>),
    /// A string in quotes.
    Quoted(String),
    /// A structure or an array in memory.
    Object(Location),
    Cgroup,
}

#[derive(Clone)]
struct Number {
    signed: bool,
    word: Word,
    /// Of an enumeration, its type.
    names: Option<TypeId>,
}

/// A place in memory that is known by an address and an offset.
#[derive(Clone)]
struct Location {
    base: Word,
    /// In bytes.
    offset: u32,
    type_id: TypeId,
}

struct Checker<'a> {
    scope: Scope<'a>,
    certified: Option<Certified<'a>>,
    prototypes: OnceCell<HashMap<&'a str, Prototype>>,
}

impl<'a> Checker<'a> {
    fn new(scope: Scope<'a>, certified: Option<Certified<'a>>) -> Checker<'a> {
        Checker { scope, certified, prototypes: OnceCell::new() }
    }

    /// The whole of a condition.
    fn condition(&self, node: &Node) -> Checked<Truth> {
        match node.kind {
            NodeKind::Keep => Err((node.span, Problem::KeepCondition)),
            _ => self.truth(node, "a condition"),
        }
    }

    /// The whole of a value, or a branch of it.
    fn choice(&self, node: &Node) -> Checked<Choice> {
        match &node.kind {
            NodeKind::Keep => Ok(Choice::Keep),
            NodeKind::If(condition, yes, no) => Ok(Choice::If(
                self.truth(condition, "the condition of an `if`")?,
                Box::new(self.choice(yes)?),
                Box::new(self.choice(no)?),
            )),
            _ => match self.kind(node)? {
                Kind::Literal(value) => {
                    self.certify(node.span, value)?;
                    Ok(Choice::Value(Word::Constant(number::bits(value)), i64::try_from(value).is_ok()))
                }
                Kind::Number(Number { signed, word, .. }) => {
                    if let Word::Constant(bits) = word {
                        self.certify(node.span, if signed { i128::from(bits as i64) } else { i128::from(bits) })?;
                    }
                    Ok(Choice::Value(word, signed))
                }
                other => {
                    let found = self.describe(&other);
                    Err((node.span, Problem::NotNumber { wanted: "a value".into(), found }))
                }
            },
        }
    }

    /// Refuses a constant value that the constant cannot have.
    fn certify(&self, span: Span, value: i128) -> Checked<()> {
        match &self.certified {
            Some(certified) if !(certified.holds)(value) => {
                let (constant, domain) = (certified.constant.to_owned(), certified.domain.to_owned());
                Err((span, Problem::Uncertified { value, constant, domain }))
            }
            _ => Ok(()),
        }
    }

    /// A part that must be true or false.
    fn truth(&self, node: &Node, wanted: &'static str) -> Checked<Truth> {
        match self.kind(node)? {
            Kind::Truth(truth) => Ok(truth),
            other => Err((node.span, Problem::NotTruth { wanted, found: self.describe(&other) })),
        }
    }

    fn kind(&self, node: &Node) -> Checked<Kind> {
        match &node.kind {
            NodeKind::Number(value) => Ok(Kind::Literal(*value)),
            NodeKind::Text(text) => Ok(Kind::Quoted(text.clone())),
            NodeKind::Truth(truth) => Ok(Kind::Truth(Truth::Constant(*truth))),
            NodeKind::Null => Ok(Kind::Null),
            NodeKind::Keep => Err((node.span, Problem::Keep)),
            NodeKind::Name(name) => self.name(node.span, name),
            NodeKind::Argument(name) => self.argument(node.span, name, &[]),
            NodeKind::Member { base, arrow, name, at } => self.member(base, *arrow, name, *at),
            NodeKind::Index(base, index) => self.index(base, index),
            NodeKind::Unary(operator, operand) => self.unary(node.span, *operator, operand),
            NodeKind::Binary(operator, left, right) => self.binary(node.span, *operator, left, right),
            NodeKind::If(condition, yes, no) => self.conditional(node.span, condition, yes, no),
            NodeKind::In(value, items) => self.among(value, &items.iter().collect::<Vec<_>>()).map(Kind::Truth),
            NodeKind::Under(left, right) => self.under(node.span, left, right),
            NodeKind::Signed(signed, inner) => self.converted(node.span, *signed, inner),
        }
    }

    /// What a part is, for a person.
    fn describe(&self, kind: &Kind) -> String {
        let spelled = |id: TypeId| self.scope.types.map_or_else(String::new, |types| types.spelling(id));
        match kind {
            Kind::Literal(_) => "a number".into(),
            Kind::Number(Number { names: Some(id), .. }) => format!("a number (`{}`)", spelled(*id)),
            Kind::Number(Number { signed: true, .. }) => "a signed number".into(),
            Kind::Number(_) => "an unsigned number".into(),
            Kind::Truth(_) => "true or false".into(),
            Kind::Pointer(None, _) => "a pointer (`void *`)".into(),
            Kind::Pointer(Some(id), _) => format!("a pointer to `{}`", spelled(*id)),
            Kind::Null => "the null pointer".into(),
            Kind::Text(..) | Kind::Quoted(_) => "a string".into(),
            Kind::Object(location) => format!("all of a `{}`", spelled(location.type_id)),
            Kind::Cgroup => "the thread's cgroup".into(),
        }
    }
}
