//! Expressions that decide on constants: a condition such as `comm == "nginx"`, or a value such as `if node == 0 then 64 else 16`.
//!
//! Text goes [`Expression::parse`] → [`Expression::condition`] or [`Expression::value`], which check all of it against the places of a
//! constant and the kernel's types → [`Decision`], which [`evaluate()`] evaluates over an [`Environment`] and [`Program::compile`] turns into
//! BPF instructions. [`object()`] wraps programs as the object of a policy. No compiler is needed, and nothing here touches a running
//! kernel but [`Mounted`], which looks at the file system of control groups.
//!
//! The language is described in docs/expressions.md.

mod ast;
mod cgroup;
mod check;
mod compile;
mod error;
mod evaluate;
mod limits;
mod number;
mod parse;
mod place;
mod render;
mod token;
mod tree;

pub use cgroup::{Cgroup, Cgroups, Mounted};
pub use check::{Certified, Condition, Scope};
pub use compile::{Program, object};
pub use error::{ExpressionError, Problem};
pub use evaluate::{Environment, Outcome, evaluate};
pub use parse::Expression;
pub use place::{Argument, Place};
pub use render::Span;
pub use tree::Decision;
