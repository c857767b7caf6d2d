//! What user space asks of the module: values only, nothing here touches a kernel.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::BuildId;

/// Changes that happen together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Build id of the core kernel that [`Target::Kernel`] means.
    pub build_id: BuildId,
    /// Entries to set. One whose id is set already is replaced.
    pub entries: Vec<Entry>,
    /// Ids of entries to unset in the same moment.
    pub unset: Vec<String>,
    /// How long to wait for tasks to leave what changes; up to a minute.
    pub timeout: Duration,
    /// Check everything, write nothing.
    pub dry_run: bool,
}

impl Transaction {
    /// An empty transaction with the default time limit of two seconds.
    pub fn new(build_id: BuildId) -> Transaction {
        Transaction {
            build_id,
            entries: Vec::new(),
            unset: Vec::new(),
            timeout: Duration::from_secs(2),
            dry_run: false,
        }
    }
}

/// A constant with its value: all locations change together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, printable ASCII without spaces, 1 to 160 bytes.
    pub id: String,
    /// The value, for display only.
    pub value: i64,
    /// Where text changes; 1 to 256.
    pub locations: Vec<Location>,
    /// Where no task may be when it does; up to 1024.
    pub between: Vec<Range>,
}

/// The code that an offset counts in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// The core kernel: offsets from `_text`.
    #[default]
    Kernel,
    /// A loaded module: offsets from the start of its text.
    Module {
        /// As in `/proc/modules`.
        name: String,
        /// Of the module file.
        build_id: BuildId,
    },
}

/// A window of whole instructions and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Whose text.
    pub target: Target,
    /// Offset of the window in bytes from the start of the target's text.
    pub image_offset: u64,
    /// The window's stock bytes as they are in memory, relocated: 1 to 32.
    pub expected: Vec<u8>,
    /// The new content.
    pub change: Change,
}

/// How a window changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The bytes of an instruction's own immediate.
    Immediate {
        /// Where in the window the bytes start.
        field_offset: usize,
        /// 1, 2, 4 or 8 new bytes.
        bytes: Vec<u8>,
    },
    /// A jump to these instructions, which end where the window ends. The window has 5 bytes or more.
    Detour {
        /// One for each stock instruction of the window, in order; up to 12.
        instructions: Vec<DetourInstruction>,
    },
}

/// An instruction of a detour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetourInstruction {
    /// Its encoding, 1 to 15 bytes. The distance of a branch or of a RIP-relative operand is ignored: the module
    /// writes the one that reaches the stock instruction's target. Branches are encoded with 32-bit distances.
    pub bytes: Vec<u8>,
}

/// Addresses `start <= p < end` that no saved instruction pointer or return address may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Whose text.
    pub target: Target,
    /// First offset inside.
    pub start: u64,
    /// First offset after it.
    pub end: u64,
}

impl Range {
    /// From behind the start of the first window to the end of the last one, in execution order: a task there has run part of what
    /// changes and will run the rest. At `first_start` it has run nothing yet, at `last_end` all.
    pub fn between(target: Target, first_start: u64, last_end: u64) -> Range {
        Range { target, start: first_start + 1, end: last_end }
    }
}
