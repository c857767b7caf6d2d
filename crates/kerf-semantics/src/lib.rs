//! What x86-64 machine code means: symbolic execution, liveness, proofs.
//!
//! Instructions are those of `iced-x86`. [`step`] gives an instruction's effect on a [`State`] of [`Term`]s,
//! [`run_region`] that of a piece of code with several exits; [`Prover`] proves claims about terms for all values, and
//! [`native`] holds the instruction semantics against the processor that this runs on. [`Cfg`] says which registers
//! and flags are live. Nothing here knows of object files or of kernels.
//!
//! ```
//! use std::collections::BTreeSet;
//! use iced_x86::{Decoder, DecoderOptions};
//! use kerf_semantics::{Arena, Overrides, State, run_region};
//!
//! // cmp $1,%cl; sbb %eax,%eax; and $-32,%eax; add $64,%eax
//! let bytes = [0x80, 0xf9, 0x01, 0x19, 0xc0, 0x83, 0xe0, 0xe0, 0x83, 0xc0, 0x40];
//! let code: Vec<_> = Decoder::with_ip(64, &bytes, 0x1000, DecoderOptions::NONE).into_iter().collect();
//! let mut arena = Arena::new();
//! let start = State::symbolic(&mut arena);
//! let outcomes = run_region(&mut arena, start, &code, 0x1000, &BTreeSet::from([0x100b]), &Overrides::new())?;
//! assert_eq!(arena.display(outcomes[0].state.gpr[0]), "(cl == 0) ? 0x20 : 0x40");
//! # Ok::<(), kerf_semantics::Unsupported>(())
//! ```

mod arith;
mod bitops;
mod bits;
mod compare;
mod display;
mod division;
mod error;
mod eval;
mod execute;
mod linear;
mod live;
mod memory;
pub mod native;
mod operand;
mod prove;
mod range;
mod region;
mod shift;
pub mod slice;
mod slices;
mod smt;
mod state;
mod term;

pub use error::Unsupported;
pub use eval::{Assignment, Evaluator};
pub use execute::{Flow, step};
pub use live::{CallEffect, Cfg, CfgOptions, LiveSet};
pub use operand::Overrides;
pub use prove::{Prover, ProverError, Verdict, equal_states};
pub use region::{Outcome, run_region};
pub use state::{Access, FLAG_NAMES, Flag, Flags, Frame, MEMORY_NAME, REGISTER_NAMES, State, Undefined};
pub use term::{Arena, Term};
