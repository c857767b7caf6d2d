//! An expression as it is written, before anything is known of its names.

use crate::render::Span;

/// A part of an expression.
#[derive(Clone, Debug)]
pub struct Node {
    pub span: Span,
    pub kind: NodeKind,
}

#[derive(Clone, Debug)]
pub enum NodeKind {
    Number(i128),
    Text(String),
    Truth(bool),
    Null,
    Keep,
    Name(String),
    /// `arg.NAME`
    Argument(String),
    Member {
        base: Box<Node>,
        arrow: bool,
        name: String,
        /// Where the member's name stands.
        at: Span,
    },
    Index(Box<Node>, Box<Node>),
    Unary(Unary, Box<Node>),
    Binary(Binary, Box<Node>, Box<Node>),
    If(Box<Node>, Box<Node>, Box<Node>),
    In(Box<Node>, Vec<Node>),
    Under(Box<Node>, Box<Node>),
    /// `signed(x)`: true; `unsigned(x)`: false.
    Signed(bool, Box<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    /// `!`
    Not,
    /// `-`
    Negate,
    /// `~`
    Complement,
}

/// Operators with two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Arithmetic(Arithmetic),
    Order(Order),
    Equal,
    NotEqual,
    And,
    Or,
}

/// Operators that compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    Multiply,
    Divide,
    Remainder,
    Add,
    Subtract,
    ShiftLeft,
    ShiftRight,
    And,
    Xor,
    Or,
}

/// Operators that compare sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Arithmetic {
    /// How it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            Arithmetic::Multiply => "*",
            Arithmetic::Divide => "/",
            Arithmetic::Remainder => "%",
            Arithmetic::Add => "+",
            Arithmetic::Subtract => "-",
            Arithmetic::ShiftLeft => "<<",
            Arithmetic::ShiftRight => ">>",
            Arithmetic::And => "&",
            Arithmetic::Xor => "^",
            Arithmetic::Or => "|",
        }
    }
}

impl Order {
    /// How it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            Order::Less => "<",
            Order::LessEqual => "<=",
            Order::Greater => ">",
            Order::GreaterEqual => ">=",
        }
    }
}
