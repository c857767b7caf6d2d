//! What the module says of policies: their decisions, their limits, and which of them it took out.

use serde::Serialize;

use super::{Line, StatusError};

/// A policy at work, and what became of its decisions since it was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActivePolicy {
    /// The name under which it was loaded.
    pub owner: String,
    /// The kernel's id of the BPF program.
    pub program: u32,
    /// How often a place of the constant was passed.
    pub hits: u64,
    /// How often a value was decided on and used.
    pub decided: u64,
    /// How often it left the stock value.
    pub kept: u64,
    /// How often it decided on a value that is not permitted: the stock value was used.
    pub refused: u64,
    /// How often it could not be asked, in an NMI or inside another BPF program: the stock value was used.
    pub missed: u64,
    /// What each CPU decided on last, those that did.
    pub last: Vec<Last>,
    /// Decisions by the size of their values, where there were any.
    pub histogram: Vec<Magnitude>,
    /// How often its time was measured, which happens only under a limit on it.
    pub timed: u64,
    /// The time that it took then, in nanoseconds.
    pub ns: u64,
    /// The longest of these times.
    pub longest_ns: u64,
    /// Whether it came over a limit and is not asked any more, and only waits for threads to leave its places.
    pub stopped: bool,
    /// What it may cost.
    pub limits: Option<ActiveLimits>,
}

/// The last decision of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Last {
    /// Which one.
    pub cpu: u32,
    /// The value.
    pub value: i64,
}

/// How often values of this size were decided on: from `min` to `max`, a power of two and the number before the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Magnitude {
    /// The least value.
    pub min: i64,
    /// The greatest.
    pub max: i64,
    /// How often.
    pub count: u64,
}

impl Magnitude {
    /// Of values whose binary numbers have so many digits; negative ones have 64.
    fn new(bits: u32, count: u64) -> Option<Magnitude> {
        let (min, max) = match bits {
            0 => (0, 0),
            1..=63 => (1 << (bits - 1), i64::MAX >> (63 - bits)),
            64 => (i64::MIN, -1),
            _ => return None,
        };
        Some(Magnitude { min, max, count })
    }
}

/// What all constants of a policy together may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ActiveLimits {
    /// Triggers in a second; 0 for any number.
    pub triggers: u64,
    /// Thousandths of one CPU's time; 0 for any time.
    pub permille: u32,
}

/// A policy that the module took out because it cost more than permitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Its name.
    pub policy: String,
    /// When: nanoseconds since 1970.
    pub since_ns: u64,
    /// Whether its places are still in the text, because threads are inside; it is not asked any more.
    pub waits: bool,
    /// What it cost, and what was permitted.
    pub reason: String,
}

/// `A:B` of a list with commas.
fn pairs<A: std::str::FromStr, B: std::str::FromStr>(line: &Line, key: &str) -> Result<Vec<(A, B)>, StatusError> {
    let text = line.text(key)?;
    let pair = |pair: &str| {
        let (a, b) = pair.split_once(':')?;
        Some((a.parse().ok()?, b.parse().ok()?))
    };
    let wrong = || line.error(format!("`{key}={text}` is no list of pairs"));
    text.split(',').filter(|text| !text.is_empty()).map(|text| pair(text).ok_or_else(wrong)).collect()
}

fn flag(line: &Line, key: &str) -> Result<bool, StatusError> {
    Ok(line.number::<u8>(key)? != 0)
}

pub fn policy(line: &Line, limits: Option<&Line>) -> Result<ActivePolicy, StatusError> {
    let magnitude = |(bits, count)| {
        Magnitude::new(bits, count).ok_or_else(|| line.error(format!("no value has {bits} binary digits")))
    };
    Ok(ActivePolicy {
        owner: line.tail("owner")?.to_owned(),
        program: line.number("program")?,
        hits: line.number("hits")?,
        decided: line.number("decided")?,
        kept: line.number("kept")?,
        refused: line.number("refused")?,
        missed: line.number("missed")?,
        last: pairs(line, "last")?.into_iter().map(|(cpu, value)| Last { cpu, value }).collect(),
        histogram: pairs(line, "decisions")?.into_iter().map(magnitude).collect::<Result<_, _>>()?,
        timed: line.number("timed")?,
        ns: line.number("ns")?,
        longest_ns: line.number("longest_ns")?,
        stopped: flag(line, "stopped")?,
        limits: limits.map(active_limits).transpose()?,
    })
}

fn active_limits(line: &Line) -> Result<ActiveLimits, StatusError> {
    Ok(ActiveLimits { triggers: line.number("triggers")?, permille: line.number("permille")? })
}

pub fn removed(line: &Line) -> Result<Removed, StatusError> {
    Ok(Removed {
        policy: line.text("policy")?.to_owned(),
        since_ns: line.number("ns")?,
        waits: flag(line, "waits")?,
        reason: line.tail("reason")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magnitudes_are_all_numbers_once() {
        let all: Vec<Magnitude> = (0..=63).filter_map(|bits| Magnitude::new(bits, 1)).collect();
        assert!(all.windows(2).all(|pair| pair[0].max + 1 == pair[1].min));
        assert_eq!((all[0].min, all[63].max), (0, i64::MAX));
        assert_eq!(Magnitude::new(64, 2), Some(Magnitude { min: i64::MIN, max: -1, count: 2 }));
        assert_eq!(Magnitude::new(65, 0), None);
        assert_eq!(Magnitude::new(6, 9), Some(Magnitude { min: 32, max: 63, count: 9 }));
    }
}
