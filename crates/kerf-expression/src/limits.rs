//! How large an expression and its program may be. Within these limits nothing here, and nothing in the kernel, comes to its end.

/// How deeply an expression may be nested.
pub const DEPTH: usize = 64;
/// How many operators, names and numbers it may have.
pub const PARTS: usize = 400;
/// The bytes of a BPF program's stack.
pub const STACK: usize = 512;
/// The instructions of a BPF program: fewer than a jump reaches over.
pub const INSTRUCTIONS: usize = 8192;
/// The longest string that is compared.
pub const TEXT: usize = 255;
