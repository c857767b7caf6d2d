//! Constants compiled into a kernel: found, proved and made settable.
//!
//! One value flows one way: a [`site`] in the source is compiled with other values ([`compile`], [`variants`]), the
//! objects are compared with the deployed image ([`deployed`]) and with each other ([`align`]), the numbers that
//! differ are fitted ([`form`], [`analyse`]), checked and stored as an [`entry`].

pub mod algebra;
pub mod align;
pub mod analyse;
pub mod apply;
pub mod build;
pub mod chain;
pub mod code;
pub mod compile;
pub mod data;
pub mod deployed;
pub mod domain;
mod dwarf;
pub mod entry;
pub mod equivalence;
pub mod error;
pub mod exact;
pub mod export;
pub mod find;
pub mod form;
pub mod governed;
pub mod grep;
pub mod layout;
pub mod liveness;
pub mod many;
pub mod movable;
pub mod nmi;
pub mod operation;
mod parameters;
pub mod placement;
pub mod port;
pub mod prove;
pub mod recheck;
pub mod safe_span;
pub mod scan;
pub mod sensitive;
pub mod site;
pub mod span;
pub mod table;
pub mod tree;
pub mod units;
pub mod update;
pub mod variants;
pub mod verify;

pub use entry::{Class, Entry};
pub use error::ConstError;
