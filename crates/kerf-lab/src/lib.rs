//! Virtual machines that boot a kernel and run a command in it.
