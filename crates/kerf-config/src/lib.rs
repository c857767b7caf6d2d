//! What an operator's files say should be set: drop-ins, their order, and what may be trusted.
//!
//! Files go [`Files::find`] → [`DropIn::parse`] → [`Wanted::merge`]. Nothing here knows the kernel or the scope table; whether a constant is
//! there and may have a value is for those who apply it.

mod dropin;
mod error;
mod files;
mod wanted;

pub use dropin::{Constant, DropIn, Mode, Number, Place, Policy};
pub use error::ConfigError;
pub use files::{DIRECTORIES, Files, check_permissions};
pub use wanted::{Wanted, WantedConstant, WantedPolicy};
