//! Entries: what is known and proved of one constant in one image. The rows of the scope table.

use serde::{Deserialize, Serialize};

use crate::align::Slot;
use crate::form::Form;
use crate::site::SiteKind;

/// What can be done with a constant, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Every place in the code is known, and the code with another number there is what the compiler makes.
    Proved,
    /// The value decides the size or layout of a type.
    Layout,
    /// The compiler put the value into a variable.
    Data,
    /// No variant changes any code: the value has no effect of its own.
    Shadowed,
    /// No code of this image uses it.
    Absent,
    /// Changing it while the kernel runs is not safe: it reaches an allocation, an index, a lock, NMI or probe code.
    Sensitive,
    /// The variants' code does not align with the deployed code.
    Shape,
    /// The source is not this kernel's.
    Foreign,
}

impl Class {
    /// The word that tables and JSON use.
    pub fn word(self) -> &'static str {
        match self {
            Class::Proved => "proved",
            Class::Layout => "layout",
            Class::Data => "data",
            Class::Shadowed => "shadowed",
            Class::Absent => "absent",
            Class::Sensitive => "sensitive",
            Class::Shape => "shape",
            Class::Foreign => "foreign",
        }
    }
}

/// The image that an entry belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageName {
    /// Hexadecimal build id.
    pub build_id: String,
    /// The kernel's release, for example `6.12.117+deb12-amd64`.
    pub release: String,
    /// The address that the core image is linked for (`_text`); a running kernel lies elsewhere by its slide.
    pub text: u64,
    /// The module, if the code is not in the core image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
}

/// Values from `min` to `max`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// Smallest value.
    pub min: i128,
    /// Largest value.
    pub max: i128,
}

/// How the deployed instruction is made to hold another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpdateKind {
    /// The number is what the instruction writes to a register.
    Overwrite,
    /// The number is combined with a register in a way that can be undone.
    Reverse,
    /// The number is combined with a register in a way that loses information.
    Capture,
    /// The number only decides the condition flags.
    Flags,
    /// The number is stored to memory.
    Store,
}

/// A number in an instruction that follows from V.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Iv {
    /// How it follows.
    #[serde(flatten)]
    pub form: Form,
    /// Offset of the instruction from the function's start.
    pub offset: u64,
    /// Which number of the instruction.
    pub slot: SlotName,
    /// The bits of the operand that count.
    pub bits: u32,
    /// The number in the deployed code, sign-extended.
    pub stock: i64,
    /// Offset of the field in the instruction, in bytes; `None` if the encoding has no such field.
    pub field: Option<(u8, u8)>,
    /// Whether it is the factor of one of several instructions that multiply together ([`crate::chain`]): only all of them do what the
    /// deployed ones do, and `stock` is the factor that this one has among them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub chained: bool,
}

/// [`Slot`] as tables write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotName {
    /// The immediate operand.
    Immediate,
    /// The displacement of the memory operand.
    Displacement,
    /// What the instruction multiplies or divides by.
    Factor,
    /// The same, of the second of two registers.
    Second,
}

impl SlotName {
    /// Whether it is what an instruction multiplies or divides by.
    pub fn is_factor(self) -> bool {
        Slot::from(self).is_factor()
    }
}

impl From<SlotName> for Slot {
    fn from(slot: SlotName) -> Slot {
        match slot {
            SlotName::Immediate => Slot::Immediate,
            SlotName::Displacement => Slot::Displacement,
            SlotName::Factor => Slot::Factor,
            SlotName::Second => Slot::Second,
        }
    }
}

impl From<Slot> for SlotName {
    fn from(slot: Slot) -> SlotName {
        match slot {
            Slot::Immediate => SlotName::Immediate,
            Slot::Displacement => SlotName::Displacement,
            Slot::Factor => SlotName::Factor,
            Slot::Second => SlotName::Second,
        }
    }
}

/// A bounded operation that gives the span another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Offset of the instruction from the function's start.
    pub offset: u64,
    /// What the operation changes.
    pub kind: UpdateKind,
    /// Registers that hold nothing behind the instruction, where the operation needs some: `rax`, `rdx`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scratch: Vec<String>,
}

impl Update {
    /// The registers of [`Update::scratch`]; names that are none are left out.
    pub fn scratch_registers(&self) -> Vec<iced_x86::Register> {
        let named = |r: &iced_x86::Register| self.scratch.contains(&format!("{r:?}").to_lowercase());
        crate::liveness::GENERAL.into_iter().filter(named).collect()
    }
}

/// A parameter of a function, and where its argument is at the start of a span's window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name in the source.
    pub name: String,
    /// Its type, as C writes it.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Where it is.
    pub place: Place,
}

/// Where a value is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// In a register, by its 64-bit name.
    Register(String),
    /// In memory, at this offset from the stack pointer.
    Stack(i32),
    /// Nowhere any more.
    Gone,
}

/// What was checked of a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Compiled values that the fit used and reproduces.
    pub variants: u32,
    /// Compiled values that no fit had seen and that agree.
    pub held_out: u32,
    /// Whether the solver proved the span's claims.
    pub smt: bool,
    /// Random states on which this processor agreed.
    pub native: u32,
}

/// A place in the code that the constant reaches: single entry, single exit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The function.
    pub function: String,
    /// The unit whose object holds it.
    #[serde(default)]
    pub unit: String,
    /// Offset of the function from `_text`, or from the module's text.
    pub function_offset: u64,
    /// Offset of the first byte from the function's start.
    pub start: u64,
    /// Offset after the last byte.
    pub end: u64,
    /// The deployed bytes of the span, hexadecimal.
    pub bytes: String,
    /// What the span computes, in V and the state at its entry.
    pub expression: String,
    /// The numbers that follow from V.
    pub iv: Vec<Iv>,
    /// The operations that change them.
    pub updates: Vec<Update>,
    /// What was checked.
    pub proof: Proof,
    /// Offsets from the function's start of 4-byte fields in span and window that hold link addresses: in a running
    /// kernel they differ by its slide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absolute: Vec<u64>,
    /// The deployed bytes around the span that a detour may take, whole instructions, hexadecimal.
    pub window: Window,
    /// The function's parameters at the window's start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
}

/// Whole instructions of the deployed code that hold a span and are long enough for a jump.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Offset of the first byte from the function's start.
    pub start: u64,
    /// The deployed bytes, hexadecimal; empty if there is no window.
    pub bytes: String,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub refused: String,
}

/// Code in which the effects of the constant's value live: a part of one function, and all that it calls. A thread is inside
/// while an instruction pointer or return address of its stack lies in one of the ranges. Offsets count from `_text`, or from the
/// module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafeSpan {
    /// The function of the outermost frame.
    pub function: String,
    /// Its offset.
    pub function_offset: u64,
    /// Offset of the only instruction at which it is entered; a thread there is outside.
    pub entry: u64,
    /// Offsets `start <= p < end` at which a thread is inside, sorted and apart.
    pub ranges: Vec<(u64, u64)>,
    /// Offsets of the instructions at which it is left.
    pub exits: Vec<u64>,
    /// The critical spans that belong to it, by their position in [`Entry::spans`].
    pub critical: Vec<usize>,
    /// Whether one execution may pass critical spans more than once: several of them, or one in a loop.
    pub repeated: bool,
    /// For each of the critical spans, how far above the stack pointer at the start of its window the outermost frame ends (its
    /// canonical frame address), in bytes; `None` if that is not always the same, or in another frame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<Option<u32>>,
    /// Where an execution of it begins, if that is at none of its critical spans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<Begin>,
    /// Instructions inside, those of called functions that take part included.
    pub instructions: u32,
    /// Why it is as large as the function: an effect that cannot be followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub widened: Option<String>,
    /// What was followed into memory, and to where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub escapes: Vec<String>,
    /// The instructions that use what follows from the value, in the order of their offsets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slice: Vec<SliceStep>,
}

impl SafeSpan {
    /// Whether a change in the middle of it cannot be noticed: its value is used once and at one place.
    pub fn is_independent(&self) -> bool {
        self.critical.len() == 1 && !self.repeated
    }

    /// The instruction at which an execution of it can be noticed first: the entry, or one behind it that every execution passes.
    pub fn begins(&self) -> u64 {
        let begin = self.begin.as_ref().filter(|begin| !begin.window.bytes.is_empty());
        begin.map_or(self.entry, |begin| self.function_offset + begin.window.start)
    }
}

/// The first instructions of a safe span that a detour can take, to notice where an execution begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The instructions, or why there can be no detour. Offsets count from the function's start.
    pub window: Window,
    /// How far above the stack pointer the outermost frame ends there, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<u32>,
    /// The function's parameters there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
}

/// An instruction of a slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceStep {
    /// Its offset, from `_text` or from the module's text.
    pub offset: u64,
    /// Its function and the offset there, as the kernel prints them: `submit_bio+0x1c`.
    pub place: String,
    /// The instruction.
    pub text: String,
    /// What it takes from the value and what it hands on.
    pub flow: String,
    /// File and line of the source, where that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub line: String,
}

/// What is known of one constant in one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// `file:Lline:value:index`.
    pub id: String,
    /// The name in the source, if it has one.
    pub name: Option<String>,
    /// The file that writes the value.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The deployed value.
    pub value: i128,
    /// How the source writes it.
    pub kind: SiteKind,
    /// What can be done with it.
    pub class: Class,
    /// Why.
    pub reason: String,
    /// The image.
    pub image: ImageName,
    /// The values for which the entry stands for what the compiler makes; empty unless proved.
    pub domain: Vec<Interval>,
    /// The places in the code.
    pub spans: Vec<Span>,
    /// What a switch to another value waits for; empty in entries that were built before there were any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub safe_spans: Vec<SafeSpan>,
    /// The units whose code it reaches.
    pub units: Vec<String>,
    /// The text of the site in the source.
    pub text: String,
    /// Knobs of the kernel's own that begin with it; empty in entries that were built before they were looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub governed: Vec<String>,
}

impl Entry {
    /// What keeps a value that it was given: members and variables that code stores it in. After a switch, objects that are there keep
    /// what they have.
    pub fn stored_in(&self) -> Vec<&str> {
        let stores = self.safe_spans.iter().flat_map(|span| &span.escapes);
        let mut names: Vec<&str> = stores.filter_map(|escape| escape.strip_prefix("stored in ")).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The name that people use.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }

    /// Whether a value is certified.
    pub fn certifies(&self, value: i128) -> bool {
        self.domain.iter().any(|i| (i.min..=i.max).contains(&value))
    }
}

/// Bytes as lower-case hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads what [`to_hex`] wrote.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|n| u8::from_str_radix(&text[n..n + 2], 16).ok()).collect()
}
