//! What can go wrong when a kernel is read, in words that say what to do next.

use std::path::PathBuf;

use thiserror::Error;

/// A kernel that could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file could not be read from the file system.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The running kernel hides itself from this user.
    #[error("cannot read the running kernel: {reason}; {remedy}")]
    Hidden {
        /// What was denied, and where.
        reason: String,
        /// The command or setting that mends it.
        remedy: String,
    },
    /// The bytes are not a kernel, or not one that is whole.
    #[error("{name}: {problem}")]
    Bad {
        /// The file, or the name that the caller gave to the bytes.
        name: String,
        /// What is wrong with them.
        problem: Problem,
    },
}

/// What is wrong with the bytes of a kernel.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Problem {
    /// No format that is known.
    #[error(
        "not a kernel image: it begins with {magic}; expected a bzImage (vmlinuz), an ELF file (vmlinux, .ko, .o), or one of these \
         compressed with xz, zstd or gzip"
    )]
    Unrecognised {
        /// The first bytes, in hexadecimal.
        magic: String,
    },
    /// Something ends before it should.
    #[error(
        "{what} reaches to byte {end:#x}, but there are only {have:#x}; the file is truncated or damaged, fetch it again"
    )]
    Truncated {
        /// The part that does not fit.
        what: String,
        /// Where it would end, in bytes from the start of what contains it.
        end: u64,
        /// How many bytes there are.
        have: u64,
    },
    /// Something contradicts its format.
    #[error("{what}: {why}; the file is damaged or was made by tools that are not known here")]
    Malformed {
        /// The part.
        what: String,
        /// The contradiction.
        why: String,
    },
    /// Something is larger than any kernel.
    #[error("{what} is {size} bytes, and the limit is {limit}; no kernel is that large, so the file is damaged")]
    TooLarge {
        /// The part.
        what: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A known format that is not handled.
    #[error("{what} is not supported; {hint}")]
    Unsupported {
        /// The format or variant.
        what: String,
        /// What to use in its place.
        hint: String,
    },
    /// An ELF file for another machine.
    #[error("built for {machine}, and only 64-bit x86 is supported; use an amd64 kernel")]
    Foreign {
        /// The machine, or its ELF number.
        machine: String,
    },
    /// A compressed stream that does not decompress.
    #[error("cannot decompress the {format} data: {why}; the file is damaged, fetch it again")]
    Decompress {
        /// The compression.
        format: &'static str,
        /// What the decoder said.
        why: String,
    },
}

impl Problem {
    /// A contradiction in `what`.
    pub(crate) fn malformed(what: impl Into<String>, why: impl Into<String>) -> Problem {
        Problem::Malformed { what: what.into(), why: why.into() }
    }

    /// Names the file that has the problem.
    pub(crate) fn within(self, name: &str) -> ImageError {
        ImageError::Bad { name: name.to_owned(), problem: self }
    }
}
