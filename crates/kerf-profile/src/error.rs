//! What can go wrong in counting.

use std::io;
use std::path::PathBuf;

/// An error of profiling. Messages are fragments that read well after "failed to …:".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// A profile is not there or cannot be opened.
    #[error("cannot read the counts in {}: the machine was killed, or ran without the plugin", path.display())]
    Read {
        /// The profile.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A profile does not hold what the plugin writes.
    #[error("{} holds no counts", path.display())]
    Parse {
        /// The profile.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Marks do not come in pairs.
    #[error("{stray} marks of {} do not belong to a pair: a begin and its end must follow each other", path.display())]
    Stray {
        /// The profile.
        path: PathBuf,
        /// How many marks.
        stray: u64,
    },
    /// The plugin is nowhere.
    #[error("there is no {file} in {}, where it is installed, and no source to build it from: name it with --plugin", searched.display())]
    NoPlugin {
        /// The file's name.
        file: &'static str,
        /// Where it was looked for.
        searched: PathBuf,
    },
    /// The machine's kernel has not said what its functions are called.
    #[error("cannot read the names of the guest's functions in {}", path.display())]
    Symbols {
        /// What the guest has sent.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Cargo could not be started.
    #[error("cannot start cargo to build the plugin")]
    Cargo {
        /// Why.
        source: io::Error,
    },
    /// Cargo did not build the plugin.
    #[error("cannot build the plugin: {status}:\n{output}")]
    Build {
        /// How cargo ended.
        status: String,
        /// What it said.
        output: String,
    },
}
