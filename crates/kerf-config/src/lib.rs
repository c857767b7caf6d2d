//! What an operator's files say should be set: drop-ins, their order, and what may be trusted.
//!
//! [`Wanted::read`] finds the files, has [`DropIn::parse`] read each, and merges what they say. Nothing here knows the kernel or the scope table; whether a constant is
//! there and may have a value is for those who apply it.

mod dropin;
mod error;
mod files;
mod wanted;

pub use dropin::{Constant, Cost, DropIn, Mode, Number, Place, Policy};
pub use error::ConfigError;
pub use files::{DIRECTORIES, check_permissions};
pub use wanted::Wanted;
