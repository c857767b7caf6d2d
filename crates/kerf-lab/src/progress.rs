//! How long-running work tells its caller what it is doing.

/// Receives the steps of long-running work. Libraries do not print; whoever calls them decides.
pub trait Progress {
    /// A step begins; `what` is a fragment such as "fetching linux-source-6.12".
    fn step(&mut self, what: &str);
}

/// Discards all progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn step(&mut self, _what: &str) {}
}

impl<F: FnMut(&str)> Progress for F {
    fn step(&mut self, what: &str) {
        self(what);
    }
}
