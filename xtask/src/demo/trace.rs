//! Reads the kernel's trace: how many requests each unplug hands over, and the marks that the guest's script writes.

use std::fmt;

/// One `block:block_unplug` event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batch {
    /// Seconds on the guest's clock.
    pub time: f64,
    /// Requests handed over together.
    pub requests: u32,
}

/// What is in force in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// What the kernel was compiled with.
    Stock,
    /// What was set.
    Set(u32),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Stock => write!(f, "stock"),
            Value::Set(number) => write!(f, "{number}"),
        }
    }
}

/// A stretch of time in which one value holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// The value.
    pub value: Value,
    /// When the command that set it had returned.
    pub start: f64,
    /// When the next command began.
    pub end: f64,
    /// The batches in between.
    pub batches: Vec<Batch>,
}

impl Phase {
    /// The largest batch.
    pub fn largest(&self) -> u32 {
        self.batches.iter().map(|batch| batch.requests).max().unwrap_or(0)
    }

    /// The batch in the middle, by size.
    pub fn median(&self) -> u32 {
        let mut sizes: Vec<u32> = self.batches.iter().map(|batch| batch.requests).collect();
        sizes.sort_unstable();
        sizes.get(sizes.len() / 2).copied().unwrap_or(0)
    }

    /// All requests.
    pub fn requests(&self) -> u64 {
        self.batches.iter().map(|batch| u64::from(batch.requests)).sum()
    }
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// The phases, in order.
    pub phases: Vec<Phase>,
    /// Every batch, also those while a command was running.
    pub batches: Vec<Batch>,
    /// Events that the kernel had no room for.
    pub lost: u64,
}

impl Trace {
    /// Reads the text of `trace_pipe`; what it does not know it passes over.
    pub fn parse(text: &str) -> Self {
        let mut trace = Trace::default();
        let mut open: Option<(Value, f64)> = None;
        for line in text.lines() {
            if let Some(lost) = lost(line) {
                trace.lost += lost;
            } else if let Some(batch) = batch(line) {
                trace.batches.push(batch);
            } else if let Some((time, mark)) = mark(line) {
                if let Some((value, start)) = open.take() {
                    trace.phases.push(Phase { value, start, end: time, batches: Vec::new() });
                }
                open = value(mark).map(|value| (value, time));
            }
        }
        for phase in &mut trace.phases {
            let within = |batch: &&Batch| (phase.start..phase.end).contains(&batch.time);
            phase.batches = trace.batches.iter().filter(within).copied().collect();
        }
        trace
    }
}

/// `dd-148 [001] ..... 5.298311: block_unplug: [dd] 16`
fn batch(line: &str) -> Option<Batch> {
    let (head, rest) = line.split_once(": block_unplug: [")?;
    let requests = rest.rsplit_once("] ")?.1.trim().parse().ok()?;
    Some(Batch { time: time(head)?, requests })
}

/// `sh-140 [001] ..... 5.694534: tracing_mark_write: kerf: in force 4`
fn mark(line: &str) -> Option<(f64, &str)> {
    let (head, mark) = line.split_once(": tracing_mark_write: kerf: ")?;
    Some((time(head)?, mark.trim()))
}

/// `CPU:0 [LOST 17 EVENTS]`
fn lost(line: &str) -> Option<u64> {
    line.split_once("[LOST ")?.1.split_once(' ')?.0.parse().ok()
}

fn time(head: &str) -> Option<f64> {
    head.rsplit(' ').next()?.parse().ok()
}

fn value(mark: &str) -> Option<Value> {
    match mark.strip_prefix("in force ")? {
        "stock" => Some(Value::Stock),
        number => number.parse().ok().map(Value::Set),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "\
              dd-148     [001] .....     5.100000: block_unplug: [dd] 16
              sh-140     [001] .....     5.200000: tracing_mark_write: kerf: in force stock
 a name] 7-9-148     [000] .....     5.300000: block_unplug: [a name] 7] 32
              dd-148     [000] .....     5.400000: block_unplug: [dd] 30
CPU:0 [LOST 17 EVENTS]
              dd-148     [000] .....     5.450000: block_unplug: [dd] 32
              sh-140     [001] .....     5.500000: tracing_mark_write: kerf: change
              dd-148     [000] .....     5.600000: block_unplug: [dd] 20
              sh-140     [001] .....     5.700000: tracing_mark_write: kerf: in force 4
              dd-148     [000] .....     5.800000: block_unplug: [dd] 4
              sh-140     [001] .....     5.900000: tracing_mark_write: kerf: end
              dd-148     [000] .....     6.000000: block_unplug: [dd] 4
";

    #[test]
    fn batches_go_to_the_phase_they_happen_in() {
        let trace = Trace::parse(TEXT);
        assert_eq!(trace.lost, 17);
        assert_eq!(trace.batches.len(), 7);
        let [stock, four] = trace.phases.as_slice() else { panic!("{:?}", trace.phases) };
        assert_eq!((stock.value, stock.largest(), stock.median(), stock.requests()), (Value::Stock, 32, 32, 94));
        assert_eq!((stock.start, stock.end), (5.2, 5.5));
        assert_eq!((four.value, four.largest(), four.batches.len()), (Value::Set(4), 4, 1));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(.{0,40}(block_unplug: \\[|\\] 4\n|kerf: in force |LOST )?){0,8}") {
            Trace::parse(&text);
        }
    }
}
