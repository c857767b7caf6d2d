//! The running kernel: the Kerf module, what is changed now and how.
//!
//! A [`Transaction`] says which bytes of which locations change together. [`Live`] hands it to kerf.ko in one write and reads
//! back what happened; the module checks everything again (docs/text-safety.md). Encoding and parsing are pure functions in [`record`] and
//! [`status`]; [`module`] carries the module's sources and loads it.

mod build_id;
mod error;
mod live;
mod loaded;
pub mod module;
pub mod policy;
pub mod record;
pub mod status;
mod transaction;

pub use build_id::{BuildId, BuildIdError};
pub use error::LiveError;
pub use live::Live;
pub use loaded::LoadedModule;
pub use status::{
    ActiveEntry, ActiveGuard, ActiveLimits, ActiveLocation, ActivePolicy, Last, Magnitude, Origin, Outcome, Placement,
    Removed, State, Status,
};
pub use transaction::{
    Argument, Change, Decider, DetourInstruction, Entry, Execution, Guard, Limits, Location, Mark, Mode, Number, Range,
    SafeSpan, Target, Transaction,
};

/// The version of the module's interface that this crate speaks.
pub const PROTOCOL: u32 = 7;
