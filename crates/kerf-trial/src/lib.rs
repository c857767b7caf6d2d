//! Whether a value is better: what to measure in which order, and what the measurements say.
//!
//! A [`Plan`] says which value is in force in which run, the caller measures and fills a [`Log`], and [`analyse`] turns it into an
//! [`Answer`]: how far each value is from the baseline, how sure that is, and what could have been seen. All of it is functions
//! over values; processes and kernels are the caller's.
//!
//! "Stock" in this crate is the baseline: whatever was in force before.

mod analysis;
mod bootstrap;
mod distribution;
mod error;
mod holm;
mod log;
mod number;
mod page;
mod permutation;
mod plan;
mod plot;
mod power;
mod summary;
mod verdict;
pub mod words;

pub use analysis::{Answer, Difference, Effect, Noise, Question, analyse};
pub use bootstrap::interval;
pub use error::TrialError;
pub use holm::holm;
pub use log::{Log, Round, Run};
pub use number::Reader;
pub use page::{Page, document};
pub use permutation::p_value;
pub use plan::{Arm, Plan, fewest_rounds};
pub use plot::plot;
pub use power::{rounds_for, visible};
pub use verdict::{Direction, Verdict};

/// The generator behind plans, permutations and resamples: small, fast, and the same numbers for a seed on every machine.
pub type Generator = rand_pcg::Pcg64Mcg;
