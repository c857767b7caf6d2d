//! What can go wrong with the running kernel, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::record::RecordError;
use crate::status::StatusError;

/// A failed request to the running kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// The module is not there.
    #[error("/dev/kerf does not exist: the kerf module is not loaded")]
    NoModule,
    /// The caller is not root, or lacks a capability.
    #[error("no permission to change kernel text: run as root (CAP_SYS_ADMIN and CAP_SYS_MODULE are needed)")]
    NotPermitted,
    /// The kernel is locked down.
    #[error("the kernel is locked down (see /sys/kernel/security/lockdown), which forbids changing its text")]
    LockedDown,
    /// The module speaks another protocol.
    #[error(
        "the loaded kerf module is of another build (protocol {module}, this program speaks {tool}): unload it and load this program's"
    )]
    OtherBuild {
        /// What the module speaks.
        module: u32,
        /// What this crate speaks.
        tool: u32,
    },
    /// The entry is of another kernel than the running one.
    #[error("made for another kernel: {0}")]
    OtherKernel(String),
    /// Somebody else owns the code.
    #[error("the code is not free: {0}")]
    Owned(String),
    /// A task did not leave in time.
    #[error("nothing was changed within the time limit: {0}")]
    Busy(String),
    /// Memory does not hold the expected bytes.
    #[error("the running text is not what it should be: {0}")]
    Mismatch(String),
    /// An id that is not set, or a module that is not loaded.
    #[error("not found: {0}")]
    NotFound(String),
    /// What an operator has permitted for the constant forbids it.
    #[error("the guard of the constant forbids it: {0}")]
    Guarded(String),
    /// The module refuses this kind of change or this place.
    #[error("the kerf module refuses this change: {0}")]
    Refused(String),
    /// The caller was interrupted before anything was written.
    #[error("interrupted; nothing was changed")]
    Interrupted,
    /// The transaction exceeds the module's limits.
    #[error("cannot be written down for the kerf module")]
    Record(#[from] RecordError),
    /// The module's status does not parse.
    #[error("cannot read the kerf module's status")]
    Status(#[from] StatusError),
    /// The device failed.
    #[error("/dev/kerf: cannot {action}")]
    Device {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The module's sources could not be written or built.
    #[error("cannot build the kerf module in {}: {reason}", dir.display())]
    Build {
        /// Where.
        dir: PathBuf,
        /// The compiler's last lines, or what was missing.
        reason: String,
    },
    /// The module was built but the kernel did not take or release it.
    #[error("cannot {action} the kerf module: {reason}")]
    Load {
        /// `load` or `unload`.
        action: &'static str,
        /// Why, and what to do.
        reason: String,
    },
}

impl LiveError {
    /// The meaning of a failed write, with what the module said about it.
    pub(crate) fn from_write(source: io::Error, text: String) -> LiveError {
        use rustix::io::Errno;
        let Some(errno) = Errno::from_io_error(&source) else {
            return LiveError::Device { action: "write to it", source };
        };
        match errno {
            Errno::PERM if text.is_empty() => LiveError::NotPermitted,
            Errno::PERM => LiveError::LockedDown,
            Errno::STALE => LiveError::OtherKernel(text),
            Errno::ADDRINUSE => LiveError::Owned(text),
            Errno::BUSY => LiveError::Busy(text),
            Errno::ILSEQ => LiveError::Mismatch(text),
            Errno::DOM => LiveError::Guarded(text),
            Errno::NOENT => LiveError::NotFound(text),
            Errno::INTR => LiveError::Interrupted,
            _ if text.is_empty() => LiveError::Device { action: "write to it", source },
            _ => LiveError::Refused(text),
        }
    }
}
