//! What a workload does, counted: instructions that a virtual machine executes, in the kernel and outside, between marks; and on
//! request block by block, with the branches that are taken and the misses of modelled caches.
//!
//! The counting is done by a plugin of QEMU's translator, so it is exact and the guest does not notice. The program that is
//! measured calls [`mark::begin`] and [`mark::end`]; [`plugin`] builds the plugin and says how QEMU takes it; in it, [`Gatherer`]
//! counts; [`Profile::read`] reads what it has counted.
//!
//! An emulated processor has no caches and no cycles: what counts here is instructions. A round of a `rep` instruction counts as
//! one, also the last that only finds the counter at zero, because that is how the translator executes them. An instruction that
//! faults counts each time it is begun.

pub mod block;
pub mod cache;
mod error;
mod gather;
pub mod mark;
mod model;
pub mod plugin;
mod profile;
pub mod summary;
mod symbols;

pub use cache::Geometry;
pub use error::ProfileError;
pub use gather::{Addition, Call, Detail, Gatherer, Plan, Wanted};
pub use model::{Misses, Model};
pub use profile::{Counts, Edge, Interval, Place, Profile, Row};
pub use symbols::{Symbol, Symbols};
