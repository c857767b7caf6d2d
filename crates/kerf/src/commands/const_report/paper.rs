//! What the Xkernel paper gives for its 140 constants, for comparison: the only figures of a report that are not counted.

/// Constants.
pub const CONSTANTS: usize = 140;
/// Critical spans.
pub const SPANS: usize = 367;
/// Critical spans whose number in the code is not the value itself.
pub const OTHER_NUMBERS: usize = 82;
/// Critical spans that need an update at two places.
pub const TWO_PLACES: usize = 3;
/// Safe spans.
pub const SAFE_SPANS: usize = 300;
/// The instructions of a safe span in the middle.
pub const SAFE_SPAN_MEDIAN: u64 = 10;
/// Constants with fewer safe spans than critical ones.
pub const JOINED: usize = 26;
/// Critical spans with an optimised probe, a jump.
pub const JUMPS: usize = 309;
/// Critical spans with a probe that is a breakpoint.
pub const BREAKPOINTS: usize = 58;
/// What its appendix B says of jumps among the probes, in its words: before its optimisation of conditional branches, and after it.
pub const OPTIMISED: &str = "66.6 % to 88.3 %";
/// Constants with one critical span, and with fewer than five, and more than ten.
pub const LOCALITY: [&str; 3] = ["48 %", "86 %", "4 %"];
/// Critical spans of more than one instruction: twelve of two, one each of 3, 4, 5 and 7.
pub const LONGER: usize = 16;
