//! Policies: BPF programs that decide on the values of constants, and ordinary ones beside them.
//!
//! A policy file goes `compile` → [`Object`] → [`Loaded`] → a [`crate::Transaction`] that names the loaded programs. Nothing is in force before
//! the transaction, and nothing of it is left when this process ends without one: the kernel closes what it held.

mod compile;
mod load;
mod object;
mod pins;
mod reads;

pub use compile::{Headers, compile, types_header};
pub use load::{Loaded, load, verify};
pub use object::{Attach, Beside, Object, Tune};
pub use pins::sweep_pins;
pub use reads::parameters_read;

use std::path::PathBuf;

/// The header that policies include: `kerf.bpf.h`.
pub const HEADER: &str = include_str!("../../../../policies/kerf.bpf.h");

/// What is wrong with a policy file, or with loading it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A tool is missing.
    #[error("`{tool}` is needed to compile a policy: install the Debian package {package}")]
    Tool {
        /// The program.
        tool: &'static str,
        /// What it comes in.
        package: &'static str,
    },
    /// The compiler refuses the source.
    #[error("{} does not compile:\n{output}", file.display())]
    Compile {
        /// The source.
        file: PathBuf,
        /// What clang said.
        output: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}", file.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is no policy object.
    #[error("{}: {why}", file.display())]
    Object {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The kernel's verifier refuses a program.
    #[error("the kernel's verifier refuses the program `{program}`:\n{log}")]
    Verifier {
        /// The function's name.
        program: String,
        /// The end of the verifier's log, with the policy's own lines.
        log: String,
    },
    /// A map could not be made, a program not be attached.
    #[error("{what}: {why}")]
    Load {
        /// The program or map.
        what: String,
        /// Why it failed.
        why: String,
    },
}
