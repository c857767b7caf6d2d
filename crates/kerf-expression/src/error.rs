//! What can be wrong with an expression: what, where, why, and what to write instead.

use thiserror::Error;

use crate::render::{Span, show};

/// An expression that cannot be used. Its text shows the place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("this expression cannot be used:\n{}", self.render())]
pub struct ExpressionError {
    /// The whole expression.
    pub text: String,
    /// The place.
    pub span: Span,
    /// What is wrong there.
    pub problem: Box<Problem>,
}

impl ExpressionError {
    pub(crate) fn new(text: &str, (span, problem): (Span, Problem)) -> ExpressionError {
        ExpressionError { text: text.to_owned(), span, problem: Box::new(problem) }
    }

    /// The line with the place, carets under it, what is wrong and what to do.
    pub fn render(&self) -> String {
        show(&self.text, self.span, &self.problem.to_string())
    }
}

/// What is wrong at a place of an expression.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// A character that means nothing.
    #[error("`{0}` means nothing in an expression{hint}", hint = stray(*.0))]
    Character(char),
    /// A string without an end.
    #[error("this string has no end: write `\"` behind it")]
    Unfinished,
    /// A backslash before something else than a quote or a backslash.
    #[error("in a string, only `\\\"` and `\\\\` may follow a backslash")]
    Escape,
    /// A string that nothing can be equal to.
    #[error("{what} has at most {most} bytes, this string has {bytes}")]
    LongText {
        /// What it is compared with.
        what: &'static str,
        /// How many bytes that has.
        most: usize,
        /// How many the string has.
        bytes: usize,
    },
    /// A malformed number.
    #[error("this is no number: write it decimal or as 0x…, with K, M or G behind it for powers of 1024")]
    Number,
    /// More than 64 bits.
    #[error("this number does not fit 64 bits")]
    LargeNumber,
    /// Something else should stand here.
    #[error("{wanted} is missing here{}", before(.found))]
    Expected {
        /// What should.
        wanted: String,
        /// What does; nothing at the end.
        found: String,
    },
    /// An `if` as an operand.
    #[error("an `if` inside of an expression needs parentheses: `(if … then … else …)`")]
    BareIf,
    /// Too much nesting.
    #[error("this is nested more than {} deep", crate::limits::DEPTH)]
    Deep,
    /// Too many parts.
    #[error("an expression has at most {} parts; write a policy instead (`kerf policy new`)", crate::limits::PARTS)]
    Long,
    /// The program would need too much of something.
    #[error("the program for this needs more than the {most} {what} that there are: write a simpler one")]
    Large {
        /// Of what.
        what: &'static str,
        /// How much there is.
        most: usize,
    },
    /// A name that is neither built in nor an argument.
    #[error("there is no `{name}` here{}\n{}", suggest(.near), names(.arguments))]
    UnknownName {
        /// The name.
        name: String,
        /// Names that look alike.
        near: Vec<String>,
        /// The arguments that are there.
        arguments: Vec<String>,
    },
    /// An argument of some functions of the constant, not of all.
    #[error("the constant is used in several functions, and `{name}` is no argument of {function}, which has {has}")]
    NotEverywhere {
        /// The name.
        name: String,
        /// A function without it.
        function: String,
        /// What that function has.
        has: String,
    },
    /// An argument that is something else in another function.
    #[error("the constant is used in several functions, and `{name}` is not the same in them: {one}, but {other}")]
    Different {
        /// The name.
        name: String,
        /// What and where it is.
        one: String,
        /// What and where it is elsewhere.
        other: String,
    },
    /// An argument that is nowhere any more.
    #[error("the argument `{name}` is not held anywhere any more at {function}+{offset:#x}; {}", names(.there))]
    Dead {
        /// The name.
        name: String,
        /// The function.
        function: String,
        /// How far in it the constant is used.
        offset: u64,
        /// The arguments that are there.
        there: Vec<String>,
    },
    /// An argument that the caller put on the stack.
    #[error("`{0}` is passed on the stack: only the first six arguments can be read")]
    OnStack(String),
    /// No types of the kernel.
    #[error(
        "the arguments of functions can be read only with the kernel's types (/sys/kernel/btf/vmlinux), which are missing"
    )]
    NoTypes,
    /// A type that the kernel's types do not have.
    #[error("`{name}` is of type `{type_name}`, which is not among the kernel's types")]
    UnknownType {
        /// The argument.
        name: String,
        /// Its type.
        type_name: String,
    },
    /// Something whose value cannot be used.
    #[error("this is {what}, {why}")]
    NoValue {
        /// What it is.
        what: String,
        /// Why it cannot be used.
        why: &'static str,
    },
    /// No member of that name.
    #[error("`{type_name}` has no member `{member}`{}", near_members(.near))]
    UnknownMember {
        /// The structure.
        type_name: String,
        /// The name.
        member: String,
        /// Members that look alike, or some of all.
        near: Vec<String>,
    },
    /// `.` where `->` belongs, or the other way round.
    #[error("the left side is {what}: write `{write}`")]
    Arrow {
        /// What it is.
        what: String,
        /// What belongs here.
        write: &'static str,
    },
    /// An index that is not constant.
    #[error("an index must be a constant number from 0")]
    Index,
    /// An index behind the end.
    #[error("the array has {0} elements, counted from 0")]
    Outside(u32),
    /// Something where a truth value belongs.
    #[error("{wanted} must be true or false, and this is {found}{}", compare_hint(.found))]
    NotTruth {
        /// What must.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
    /// Something where a number belongs.
    #[error("{wanted} must be a number, and this is {found}")]
    NotNumber {
        /// What must.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// Sides that cannot be compared.
    #[error("{left} and {right} cannot be compared{hint}")]
    Mismatch {
        /// The left side.
        left: String,
        /// The right side.
        right: String,
        /// What can.
        hint: &'static str,
    },
    /// A signed and an unsigned side.
    #[error("one side of `{operator}` is signed and the other one unsigned: convert one with signed(…) or unsigned(…)")]
    MixedSigns {
        /// The operator.
        operator: &'static str,
    },
    /// A literal that the other side can never have.
    #[error("{value} is no {kind} number of 64 bits, as the other side is")]
    Unfit {
        /// The value.
        value: i128,
        /// `signed` or `unsigned`.
        kind: &'static str,
    },
    /// A constant part with a result of more than 64 bits.
    #[error("the result does not fit 64 bits")]
    Overflow,
    /// A constant divisor of zero.
    #[error("this divides by zero")]
    Zero,
    /// A constant shift.
    #[error("a number has 64 bits: it can be shifted by 0 to 63")]
    Shift,
    /// `keep` as an operand.
    #[error("`keep` can only be a branch of the outermost `if`s: the whole decision, not a part of it")]
    Keep,
    /// `keep` in a condition.
    #[error("a condition is true or false; `keep` belongs into a value: `if … then … else keep`")]
    KeepCondition,
    /// `under` for something else than a control group.
    #[error("`under` asks whether the thread's cgroup is a path or below: write `cgroup under \"/path\"`")]
    Under,
    /// A control group that cannot be found.
    #[error("{0}")]
    NoCgroup(String),
    /// A value that the constant cannot have.
    #[error("{value} is not certified for {constant}; certified are {domain}")]
    Uncertified {
        /// The value.
        value: i128,
        /// The constant.
        constant: String,
        /// What is certified.
        domain: String,
    },
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn suggest(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!(": did you mean {}?", quoted(near)) }
}

fn near_members(near: &[String]) -> String {
    if near.is_empty() { ": it has none with a name".into() } else { format!("; near are {}", quoted(near)) }
}

fn names(arguments: &[String]) -> String {
    match arguments {
        [] => "no argument can be read there".into(),
        [one] => format!("the argument `{one}` can be read there"),
        several => format!("the arguments {} can be read there", quoted(several)),
    }
}

fn before(found: &str) -> String {
    if found.is_empty() { ", at the end".into() } else { format!(", before `{found}`") }
}

fn stray(character: char) -> &'static str {
    match character {
        '=' => ": write `==` to compare",
        '\'' => ": strings stand in double quotes",
        _ => "",
    }
}

fn compare_hint(found: &str) -> &'static str {
    if found.contains("pointer") {
        ": compare it, for example with `!= null`"
    } else if found.contains("number") {
        ": compare it, for example with `!= 0`"
    } else {
        ""
    }
}
