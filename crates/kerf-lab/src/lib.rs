//! Virtual machines that boot a kernel and run a command in it.
//!
//! ```no_run
//! # fn main() -> Result<(), kerf_lab::LabError> {
//! use kerf_lab::{Cache, Machine, Quiet};
//!
//! let cache = Cache::open_default()?;
//! let kernel = kerf_lab::kernel(&cache, &mut Quiet)?;
//! let mut machine = Machine::new(&cache, kernel, "target/debug/kerf");
//! machine.modules.push("null_blk".into());
//! let outcome = machine.run(&["uname".into(), "-r".into()])?;
//! # Ok(()) }
//! ```

mod accel;
mod cache;
pub mod console;
pub mod cpio;
mod error;
pub mod gdb;
pub mod guest;
pub mod host;
mod initramfs;
mod kernel;
mod machine;
pub mod module;
pub mod modules;
mod packages;
mod process;
mod progress;
mod protocol;
mod qemu;
pub mod root;
mod source;
mod supervise;

pub use accel::Accelerator;
pub use cache::{Cache, CacheLock};
pub use error::LabError;
pub use initramfs::{FileSpec, Initramfs};
pub use kernel::Kernel;
pub use machine::{Machine, Outcome, Plugin, Sink};
pub use packages::{kernel, named, update};
pub use progress::{Progress, Quiet};
pub use source::source;
