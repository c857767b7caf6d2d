//! What user space asks of the module: values only, nothing here touches a kernel.

use std::os::fd::RawFd;
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
    /// When the change comes for whom.
    pub mode: Mode,
    /// How long to wait for tasks to leave what changes; up to a minute.
    pub timeout: Duration,
    /// Check everything, write nothing.
    pub dry_run: bool,
    /// The policy that the entries belong to; empty for values set by hand. Up to 64 printable characters.
    pub owner: String,
    /// A policy that goes in the same moment, with all its constants and files.
    pub drop: Option<String>,
    /// Values that are set by hand give way to a policy.
    pub replace: bool,
    /// Open files that the module keeps open as long as the policy is loaded: links of BPF programs.
    pub hold: Vec<RawFd>,
    /// What is permitted for entries of this transaction as long as they are set, by their ids.
    pub guards: Vec<(String, Guard)>,
    /// What the policy may cost, all its constants together.
    pub limits: Limits,
    /// Why, for who reads the state: up to 200 printable ASCII characters.
    pub note: String,
}

/// What an operator permits for a constant while it is set. The way back to the stock value is always open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Guard {
    /// The stock value: from where the first step counts.
    pub stock: i64,
    /// The least value.
    pub min: i64,
    /// The greatest value.
    pub max: i64,
    /// How far one change may go; 0 for any way.
    pub step: u64,
    /// How soon the next change may come; up to a day.
    pub pause: Duration,
}

/// What a policy may cost. The module takes one out that costs more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Triggers in a second, of all CPUs; up to `i64::MAX`. 0 for any number.
    pub triggers: u64,
    /// Thousandths of one CPU's time; up to a million. 0 for any time. What has such a limit is measured, which costs more.
    pub permille: u32,
}

impl Limits {
    /// Whether there is any.
    pub fn is_given(self) -> bool {
        self != Limits::default()
    }
}

impl Transaction {
    /// An empty transaction with the default time limit of two seconds.
    pub fn new(build_id: BuildId) -> Transaction {
        Transaction {
            build_id,
            entries: Vec::new(),
            unset: Vec::new(),
            mode: Mode::Immediate,
            timeout: Duration::from_secs(2),
            dry_run: false,
            owner: String::new(),
            drop: None,
            replace: false,
            hold: Vec::new(),
            guards: Vec::new(),
            limits: Limits::default(),
            note: String::new(),
        }
    }
}

/// When a change comes for whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// For everybody in the same moment, wherever they are but inside what is written.
    #[default]
    Immediate,
    /// For each task when it is outside the safe spans.
    Task,
    /// For everybody in the same moment, when nobody is inside a safe span.
    Global,
}

/// Code of one function in which the effects of a constant's value live, with all that it calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafeSpan {
    /// Whose text.
    pub target: Target,
    /// Offset of the only instruction at which it is entered; a thread there is outside.
    pub entry: u64,
    /// Offsets `start <= p < end` at which a thread is inside; 1 to 1024.
    pub ranges: Vec<(u64, u64)>,
    /// Offsets of the instructions at which it is left; up to 64.
    pub exits: Vec<u64>,
}

/// A constant with its value: all locations change together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, printable ASCII without spaces, 1 to 160 bytes.
    pub id: String,
    /// The value; the stock one with a policy. Without a decider it is for display only.
    pub value: i64,
    /// What the numbers of gates and policies follow from.
    pub decider: Option<Decider>,
    /// Where text changes; 1 to 256. None: the stock value comes back, in a transition, for which there must be safe spans.
    pub locations: Vec<Location>,
    /// Decided locations that stand in the text while a transition runs; up to 256. A policy's own locations do without. Where one of
    /// a transaction's entries has none, the transition waits until nobody is inside, and lets everybody have the old value until then.
    pub gates: Vec<Location>,
    /// What a transition waits for threads to leave; up to 64.
    pub spans: Vec<SafeSpan>,
    /// Where no task may be when it does; up to 1024.
    pub between: Vec<Range>,
}

/// What decides on a value, and how the numbers in the code follow from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decider {
    /// A loaded BPF program of type kprobe, open in the process that submits the transaction. `None`: the entry's value.
    pub program: Option<RawFd>,
    /// The stock value.
    pub stock: i64,
    /// The values that a program may decide on, as sorted intervals with both ends included; 1 to 256. None without a program.
    pub ranges: Vec<(i64, i64)>,
    /// How the numbers in the code follow from a value; 1 to 8.
    pub forms: Vec<Number>,
}

/// A number as a function of the value V, which the module computes for each decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// `a·V + b`
    Affine {
        /// Factor.
        a: i64,
        /// Summand.
        b: i64,
    },
    /// `factor·(⌊(V + b) / a⌋ + c)`
    Quotient {
        /// Divisor, at least 2.
        a: i64,
        /// Added before the division.
        b: i64,
        /// Added after it.
        c: i64,
        /// What the quotient is multiplied by.
        factor: i64,
    },
    /// `⌊(factor·V + b) / a⌋`
    Ratio {
        /// Factor, not 0.
        factor: i64,
        /// Divisor, at least 2.
        a: i64,
        /// Added before the division.
        b: i64,
    },
    /// `⌊a / V⌋ + b`
    Reciprocal {
        /// Dividend.
        a: i64,
        /// Summand.
        b: i64,
    },
    /// `a·2^V + b`
    Power {
        /// Factor.
        a: i64,
        /// Summand.
        b: i64,
    },
    /// `⌊log2 V⌋ + b`
    Logarithm {
        /// Summand.
        b: i64,
    },
    /// `⌊log2 ⌊a / V⌋⌋ + b`
    ReciprocalLogarithm {
        /// Dividend.
        a: i64,
        /// Summand.
        b: i64,
    },
}

/// A number of a detour that is decided anew each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which instruction of the detour holds it.
    pub instruction: u8,
    /// Which of those that stand for this instruction; 0 if it is one.
    pub part: u8,
    /// Which form of the [`Decider`] gives it.
    pub form: u8,
    /// How many bits of it count.
    pub bits: u8,
}

/// Where an argument of the function is found at a window's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Nowhere any more.
    Gone,
    /// In a register, by its hardware number: rax 0, rcx 1, rdx 2, rbx 3, rsp 4, rbp 5, rsi 6, rdi 7, r8 to r15.
    Register(u8),
    /// In memory, at this offset from the stack pointer.
    Stack(i32),
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
    /// A detour whose marked numbers a policy decides. The instructions hold the stock numbers.
    Decided {
        /// As for [`Change::Detour`].
        instructions: Vec<DetourInstruction>,
        /// The numbers; up to 8.
        marks: Vec<Mark>,
        /// Where the function's first arguments are, for policies that read them; up to 6.
        arguments: Vec<Argument>,
        /// What this place is in an execution of its safe span; `None`: each pass decides for itself.
        execution: Option<Execution>,
    },
}

/// A policy decides once for an execution of a safe span. All its places use that decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution {
    /// Every execution passes this place before any other: here it is decided. Such a place may hold no number.
    pub begins: bool,
    /// How far above the stack pointer, at the window's start, the execution's frame ends (its canonical frame address), in bytes;
    /// `None`: the stack has to be followed.
    pub frame: Option<u32>,
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
