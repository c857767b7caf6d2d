//! What this crate cannot follow, said with the place and the reason.

/// Code that has no model here. It is not an error of the code, only a limit of the analysis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// An instruction, or one of its operands, has no semantics.
    #[error("no semantics for `{text}` at {ip:#x}: {reason}")]
    Instruction {
        /// Address of the instruction.
        ip: u64,
        /// The instruction, disassembled.
        text: String,
        /// What it is that is not modelled.
        reason: &'static str,
    },
    /// A region cannot be run to its exits.
    #[error("cannot follow the region past {ip:#x}: {reason}")]
    Region {
        /// Address of the instruction where the walk stopped.
        ip: u64,
        /// Why it stopped there.
        reason: String,
    },
}
