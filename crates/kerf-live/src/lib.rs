//! The running kernel: the Kerf module, what is changed now and how.
