//! What a workload does, counted: instructions that a virtual machine executes, in the kernel and outside, between marks.
//!
//! The counting is done by a plugin of QEMU's translator, so it is exact and the guest does not notice. The program that is
//! measured calls [`mark::begin`] and [`mark::end`]; [`plugin`] builds the plugin and says how QEMU takes it;
//! [`Profile::read`] reads what it has counted.
//!
//! An emulated processor has no caches and no cycles: what counts here is instructions. A round of a `rep` instruction counts as
//! one, also the last that only finds the counter at zero, because that is how the translator executes them.

mod error;
pub mod mark;
pub mod plugin;
mod profile;

pub use error::ProfileError;
pub use profile::{Counts, Profile, Tally};
