//! Constants that are likely to govern performance: found in the source, with the reasons, by what the code does with them.

mod calls;
pub mod candidates;
pub mod context;
pub mod files;
pub mod history;
pub mod parse;
pub mod reasons;
mod value;
pub mod words;

pub use candidates::{Candidate, Place, Progress, Wanted, scan};

#[cfg(test)]
mod tests;
