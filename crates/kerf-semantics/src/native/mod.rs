//! This processor as the judge of the instruction semantics: short straight-line code runs natively, in a page of its
//! own, and is compared with what the symbolic engine says.

mod check;
mod machine;
mod page;
mod random;

pub use check::{CheckError, Mismatch, check, check_with};
pub use machine::{Concrete, DATA_BYTES, Machine, NativeError, Program};
