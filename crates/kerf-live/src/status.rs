//! What the module says: lines of a word and `key=value` pairs, the last of which may hold spaces.

use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::BuildId;
use crate::build_id::unhex;

mod decided;

pub use decided::{ActiveLimits, ActivePolicy, Last, Magnitude, Removed};

/// The module's state, and the outcome of the last transaction of this open file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Protocol that the module speaks.
    pub protocol: u32,
    /// Build id of the running kernel.
    pub build_id: BuildId,
    /// Run-time address of `_text`.
    pub text_base: u64,
    /// Bytes from `_text` to `_etext`.
    pub text_size: u64,
    /// The trampolines.
    pub pool: Pool,
    /// Of the last transaction through this file.
    pub outcome: Outcome,
    /// What is set.
    pub entries: Vec<ActiveEntry>,
    /// Policies that cost more than they were permitted.
    pub removed: Vec<Removed>,
}

/// How many trampolines there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// In all.
    pub slots: u32,
    /// In use.
    pub used: u32,
}

/// How a transaction went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// 0, or a negative errno.
    pub code: i32,
    /// How many times the CPUs were stopped.
    pub attempts: u32,
    /// How many stacks were looked at in the last stop.
    pub tasks: u32,
    /// How long the last stop took.
    pub stop: Duration,
    /// How many threads were inside a safe span when a transition began.
    pub inside: u32,
    /// How often the stacks of those left were looked at again.
    pub looks: u32,
    /// How long all of it took.
    pub total: Duration,
    /// What was wrong, or nothing.
    pub text: String,
}

/// An entry that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActiveEntry {
    /// Its name.
    pub id: String,
    /// Its value, as the sender said.
    pub value: i64,
    /// Since when, by whom and why.
    pub origin: Origin,
    /// What is permitted while it is set.
    pub guard: Option<ActiveGuard>,
    /// What decides it, if its value is not fixed; then `value` is the stock one.
    pub policy: Option<ActivePolicy>,
    /// All its locations.
    pub locations: Vec<ActiveLocation>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// Since when it is in force: nanoseconds since 1970.
    pub since_ns: u64,
    /// The process that set it.
    pub pid: i32,
    /// The user that had logged in there, if anybody had.
    pub login: Option<u32>,
    /// Why, as the sender said.
    pub note: String,
}

/// What an operator permits for a constant while it is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActiveGuard {
    /// The least value.
    pub min: i64,
    /// The greatest value.
    pub max: i64,
    /// How far one change may go; 0 for any way.
    pub step: u64,
    /// How soon the next change may come, in milliseconds.
    pub pause_ms: u32,
}

impl ActiveEntry {
    /// Does every location hold what it should, in code that runs?
    pub fn in_force(&self) -> bool {
        self.locations.iter().all(|location| location.in_force)
    }
}

/// A location of an entry that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActiveLocation {
    /// `function+offset/size`, as the kernel names it; empty when its module is gone.
    pub function: String,
    /// Name of the module, or `vmlinux`.
    pub target: String,
    /// Offset from the start of the target's text.
    pub image_offset: u64,
    /// How it is changed.
    pub placement: Placement,
    /// What the module found there.
    pub state: State,
    /// Does the value hold here now?
    pub in_force: bool,
    /// Who else has a hand in the code: a kprobe or a livepatch; empty if nobody.
    pub owner: String,
    /// The stock bytes.
    pub stock: Vec<u8>,
    /// The bytes that should be there.
    pub want: Vec<u8>,
    /// The bytes that are there.
    pub now: Vec<u8>,
}

/// How a location is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// In the instruction's own immediate.
    Immediate,
    /// By a jump to a trampoline.
    Detour,
    /// By a jump to a trampoline that asks a policy.
    Decided,
}

/// What the module found at a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// What should be there.
    Ok,
    /// A kprobe on top of it: in force, but it cannot be unset before the probe goes.
    Probed,
    /// The function is replaced by a livepatch: in memory but not executed.
    Shadowed,
    /// Something else.
    Changed,
    /// Nothing: the module that it was in is gone.
    Unloaded,
}

/// Text that the module of this protocol does not write.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {reason} (is this module of another build?)")]
pub struct StatusError {
    line: usize,
    reason: String,
}

/// One line: its word and its pairs.
struct Line<'a> {
    number: usize,
    word: &'a str,
    rest: &'a str,
}

impl<'a> Line<'a> {
    fn error(&self, reason: impl Into<String>) -> StatusError {
        StatusError { line: self.number, reason: reason.into() }
    }

    fn text(&self, key: &str) -> Result<&'a str, StatusError> {
        let found = self.rest.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        found.ok_or_else(|| self.error(format!("`{}` has no `{key}`", self.word)))
    }

    /// The last pair of a line, which may hold spaces.
    fn tail(&self, key: &str) -> Result<&'a str, StatusError> {
        let start = self.rest.find(&format!(" {key}="));
        let tail = start.and_then(|start| self.rest.get(start + key.len() + 2..));
        tail.ok_or_else(|| self.error(format!("`{}` has no `{key}`", self.word)))
    }

    fn number<T: FromStr>(&self, key: &str) -> Result<T, StatusError> {
        let text = self.text(key)?;
        text.parse().map_err(|_| self.error(format!("`{key}={text}` is not a number")))
    }

    fn address(&self, key: &str) -> Result<u64, StatusError> {
        let digits = self.text(key)?.trim_start_matches("0x");
        u64::from_str_radix(digits, 16).map_err(|_| self.error(format!("`{key}` is not an address")))
    }

    fn bytes(&self, key: &str) -> Result<Vec<u8>, StatusError> {
        unhex(self.text(key)?).ok_or_else(|| self.error(format!("`{key}` is not hexadecimal")))
    }
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().enumerate().map(|(index, line)| {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        Line { number: index + 1, word, rest }
    })
}

/// The next line, which must have this word.
fn expect<'a>(lines: &mut impl Iterator<Item = Line<'a>>, word: &str) -> Result<Line<'a>, StatusError> {
    match lines.next() {
        Some(line) if line.word == word => Ok(line),
        Some(line) => Err(line.error(format!("`{}` instead of `{word}`", line.word))),
        None => Err(StatusError { line: 0, reason: format!("`{word}` is missing") }),
    }
}

/// The protocol that a status text claims, whatever else it holds.
///
/// # Errors
/// If the first line is not the module's.
pub fn protocol(text: &str) -> Result<u32, StatusError> {
    expect(&mut lines(text), "kerf")?.number("protocol")
}

fn location(line: &Line) -> Result<ActiveLocation, StatusError> {
    let placement = match line.text("kind")? {
        "immediate" => Placement::Immediate,
        "detour" => Placement::Detour,
        "decided" => Placement::Decided,
        other => return Err(line.error(format!("`{other}` is no placement"))),
    };
    let state = match line.text("state")? {
        "ok" => State::Ok,
        "probed" => State::Probed,
        "shadowed" => State::Shadowed,
        "changed" => State::Changed,
        "unloaded" => State::Unloaded,
        other => return Err(line.error(format!("`{other}` is no state"))),
    };
    let gone = state == State::Unloaded;
    Ok(ActiveLocation {
        function: if gone { String::new() } else { line.text("at")?.to_owned() },
        target: line.text("target")?.to_owned(),
        image_offset: line.address("offset")?,
        placement,
        state,
        in_force: matches!(state, State::Ok | State::Probed),
        owner: if gone { String::new() } else { line.tail("owner")?.to_owned() },
        stock: line.bytes("stock")?,
        want: line.bytes("want")?,
        now: line.bytes("now")?,
    })
}

fn origin(line: &Line) -> Result<Origin, StatusError> {
    Ok(Origin {
        since_ns: line.number("ns")?,
        pid: line.number("pid")?,
        // Nobody has logged in where the kernel says -1.
        login: u32::try_from(line.number::<i64>("login")?).ok(),
        note: line.tail("note")?.to_owned(),
    })
}

fn active_guard(line: &Line) -> Result<ActiveGuard, StatusError> {
    Ok(ActiveGuard {
        min: line.number("min")?,
        max: line.number("max")?,
        step: line.number("step")?,
        pause_ms: line.number("pause_ms")?,
    })
}

/// Reads a status text.
///
/// # Errors
/// If it is not what a module of this protocol writes; says in which line.
pub fn parse(text: &str) -> Result<Status, StatusError> {
    let mut lines = lines(text);
    let kerf = expect(&mut lines, "kerf")?;
    let range = expect(&mut lines, "text")?;
    let pool = expect(&mut lines, "pool")?;
    let result = expect(&mut lines, "result")?;
    let mut status = Status {
        protocol: kerf.number("protocol")?,
        build_id: kerf.text("build_id")?.parse().map_err(|error| kerf.error(format!("{error}")))?,
        text_base: range.address("base")?,
        text_size: range.address("size")?,
        pool: Pool { slots: pool.number("slots")?, used: pool.number("used")? },
        outcome: Outcome {
            code: result.number("code")?,
            attempts: result.number("attempts")?,
            tasks: result.number("tasks")?,
            stop: Duration::from_nanos(result.number("stop_ns")?),
            inside: result.number("inside")?,
            looks: result.number("looks")?,
            total: Duration::from_nanos(result.number("total_ns")?),
            text: result.tail("text")?.to_owned(),
        },
        entries: Vec::new(),
        removed: Vec::new(),
    };
    let mut lines = lines.peekable();
    while let Some(line) = lines.next() {
        if line.word == "removed" {
            status.removed.push(decided::removed(&line)?);
            continue;
        }
        if line.word != "entry" {
            return Err(line.error(format!("`{}` instead of `entry`", line.word)));
        }
        let count: usize = line.number("locations")?;
        let origin = origin(&expect(&mut lines, "since")?)?;
        let guard = lines.next_if(|line| line.word == "guard");
        let policy = lines.next_if(|line| line.word == "policy");
        let limits = lines.next_if(|line| line.word == "limits");
        let mut entry = ActiveEntry {
            id: line.text("id")?.to_owned(),
            value: line.number("value")?,
            origin,
            guard: guard.map(|line| active_guard(&line)).transpose()?,
            policy: policy.map(|line| decided::policy(&line, limits.as_ref())).transpose()?,
            locations: Vec::new(),
        };
        for _ in 0..count {
            entry.locations.push(location(&expect(&mut lines, "location")?)?);
        }
        status.entries.push(entry);
    }
    Ok(status)
}

#[cfg(test)]
mod tests;
