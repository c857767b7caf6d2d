//! What can be wrong with an operator's files.

use std::path::PathBuf;

/// Messages read well after "failed to …:".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Others than root could have written it.
    #[error("{} is not to be trusted: {why}; check what it says, then `{remedy}`", path.display())]
    Untrusted {
        /// Which file or directory.
        path: PathBuf,
        /// Who could.
        why: String,
        /// The command that mends it.
        remedy: String,
    },
    /// It is no TOML, or a key has a value of another kind.
    #[error("{}:{line}:{column}: {why}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong there.
        why: String,
    },
    /// A key of a constant or policy does not go with its others.
    #[error("{place}: {name}: {why}")]
    Inconsistent {
        /// Where it stands.
        place: crate::Place,
        /// The constant or policy.
        name: String,
        /// What is wrong.
        why: String,
    },
}
