//! The binary record that kerf.ko reads (docs/module-interface.md): a transaction as bytes.

use std::os::fd::RawFd;
use std::time::Duration;

use crate::{
    Argument, BuildId, Change, Decider, DetourInstruction, Entry, Execution, Guard, Location, Mark, Mode, Number,
    PROTOCOL, Range, SafeSpan, Target, Transaction,
};

const MAGIC: &[u8; 8] = b"KERFTXN1";
const FLAG_DRY_RUN: u32 = 1;
const FLAG_UNSET_ALL: u32 = 2;
const FLAG_REPLACE: u32 = 4;
const MODE_SHIFT: u32 = 8;
const OP_SET: u8 = 1;
const OP_UNSET: u8 = 2;
const OP_POLICY: u8 = 3;
const OP_DROP: u8 = 4;
const OP_HOLD: u8 = 5;
const OP_GUARD: u8 = 6;
const OP_LIMITS: u8 = 7;
const HEADER_SIZE: usize = 32;
/// The greatest share of time that a limit may give: a thousand CPUs.
const PERMILLE_MAX: u32 = 1_000_000;
/// The longest pause of a guard: a day.
const PAUSE_MAX_MS: u32 = 86_400_000;
/// The longest record that the module reads, in bytes.
pub const RECORD_MAX: usize = 1 << 20;

/// A transaction that cannot be written down: the module's limits, checked before it sees anything.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// An id that is not 1 to 160 bytes of printable ASCII without spaces.
    #[error("the id `{0}` is not 1 to 160 printable ASCII characters without spaces")]
    Id(String),
    /// A policy's name that is not up to 64 bytes of printable ASCII without spaces.
    #[error("the name `{0}` is not 1 to 64 printable ASCII characters without spaces")]
    Owner(String),
    /// A note that is not up to 200 bytes of printable ASCII.
    #[error("the note `{0}` is not up to 200 printable ASCII characters")]
    Note(String),
    /// A guard of something that the transaction does not set, or one that permits nothing.
    #[error("the guard of {0} belongs to no entry of the transaction, or permits nothing")]
    Guard(String),
    /// Limits of what is no policy, or greater ones than the module takes.
    #[error("limits of {0}: only a policy has some, of up to 2^63 - 1 triggers and a million thousandths of a CPU")]
    Limits(String),
    /// A module name that cannot be one.
    #[error("`{0}` is not the name of a module")]
    ModuleName(String),
    /// Something of which there are too many, or none.
    #[error("{id}: {count} {what}, the module takes {limit}")]
    Count {
        /// The entry, or `transaction`.
        id: String,
        /// How many there are.
        count: usize,
        /// Of what.
        what: &'static str,
        /// What is allowed.
        limit: &'static str,
    },
    /// A field that does not lie in its window.
    #[error("{id}: the field at byte {offset} of {length} bytes does not lie in its window of {window}")]
    Field {
        /// The entry.
        id: String,
        /// Where the field starts.
        offset: usize,
        /// Its length.
        length: usize,
        /// The window's length.
        window: usize,
    },
    /// A range that is empty.
    #[error("{id}: the range {start:#x}..{end:#x} is empty")]
    Range {
        /// The entry.
        id: String,
        /// Its start.
        start: u64,
        /// Its end.
        end: u64,
    },
}

struct Writer {
    bytes: Vec<u8>,
    targets: Vec<Target>,
}

impl Writer {
    fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }
    fn u16(&mut self, value: u16) {
        self.bytes.extend(value.to_le_bytes());
    }
    fn u32(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.bytes.extend(value.to_le_bytes());
    }
    /// The number of a target in the record's list.
    fn target(&mut self, target: &Target) -> u16 {
        let known = self.targets.iter().position(|known| known == target);
        known.unwrap_or_else(|| {
            self.targets.push(target.clone());
            self.targets.len() - 1
        }) as u16
    }
}

fn limited(
    id: &str,
    count: usize,
    min: usize,
    max: usize,
    what: &'static str,
    limit: &'static str,
) -> Result<usize, RecordError> {
    if (min..=max).contains(&count) {
        Ok(count)
    } else {
        Err(RecordError::Count { id: id.to_owned(), count, what, limit })
    }
}

fn checked_id(id: &str) -> Result<&[u8], RecordError> {
    let fits = (1..=160).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(id.as_bytes()) } else { Err(RecordError::Id(id.to_owned())) }
}

fn write_location(writer: &mut Writer, id: &str, location: &Location) -> Result<(), RecordError> {
    let target = writer.target(&location.target);
    let window = limited(id, location.expected.len(), 1, 32, "bytes in a window", "1 to 32")?;
    let (kind, a, b) = match &location.change {
        Change::Immediate { field_offset, bytes } => {
            let fits = field_offset.checked_add(bytes.len()).is_some_and(|end| end <= window);
            if !fits || !matches!(bytes.len(), 1 | 2 | 4 | 8) {
                let (offset, length) = (*field_offset, bytes.len());
                return Err(RecordError::Field { id: id.to_owned(), offset, length, window });
            }
            (1, *field_offset as u8, bytes.len() as u8)
        }
        Change::Detour { instructions } | Change::Decided { instructions, .. } => {
            limited(id, window, 5, 32, "bytes in a detour's window", "5 to 32")?;
            let count = limited(id, instructions.len(), 1, 12, "instructions in a detour", "1 to 12")? as u8;
            (if matches!(location.change, Change::Detour { .. }) { 2 } else { 3 }, 0, count)
        }
    };
    writer.u16(target);
    writer.bytes.extend([kind, window as u8, a, b, 0, 0]);
    writer.u64(location.image_offset);
    writer.bytes.extend(&location.expected);
    match &location.change {
        Change::Immediate { bytes, .. } => writer.bytes.extend(bytes),
        Change::Detour { instructions } => write_instructions(writer, id, instructions)?,
        Change::Decided { instructions, marks, arguments, execution } => {
            write_instructions(writer, id, instructions)?;
            write_marks(writer, id, marks, arguments, *execution)?;
        }
    }
    Ok(())
}

fn write_instructions(writer: &mut Writer, id: &str, instructions: &[DetourInstruction]) -> Result<(), RecordError> {
    let total = instructions.iter().map(|instruction| instruction.bytes.len()).sum();
    limited(id, total, 1, 123, "bytes in a detour", "1 to 123")?;
    for instruction in instructions {
        let length = instruction.bytes.len();
        writer.u8(limited(id, length, 1, 32, "bytes in the place of an instruction", "1 to 32")? as u8);
        writer.bytes.extend(&instruction.bytes);
    }
    Ok(())
}

fn write_marks(
    writer: &mut Writer,
    id: &str,
    marks: &[Mark],
    arguments: &[Argument],
    execution: Option<Execution>,
) -> Result<(), RecordError> {
    let least = usize::from(!execution.is_some_and(|execution| execution.begins));
    let role = execution.map_or(0, |execution| if execution.begins { 1 } else { 2 });
    // No kernel stack is that large.
    let frame = execution.and_then(|execution| execution.frame).and_then(|frame| i32::try_from(frame).ok());
    writer.u8(limited(id, marks.len(), least, 8, "decided numbers in a detour", "1 to 8")? as u8);
    writer.u8(limited(id, arguments.len(), 0, 6, "arguments", "up to 6")? as u8);
    writer.bytes.extend([role, 0]);
    writer.bytes.extend(frame.unwrap_or(-1).to_le_bytes());
    for mark in marks {
        writer.bytes.extend([mark.instruction, mark.part, mark.form, mark.bits]);
    }
    for argument in arguments {
        let (kind, register, offset) = match *argument {
            Argument::Gone => (0, 0, 0),
            Argument::Register(register) => (1, register, 0),
            Argument::Stack(offset) => (2, 0, offset),
        };
        writer.bytes.extend([kind, register, 0, 0]);
        writer.bytes.extend(offset.to_le_bytes());
    }
    Ok(())
}

fn write_decider(writer: &mut Writer, id: &str, decider: &Decider) -> Result<(), RecordError> {
    let least = usize::from(decider.program.is_some());
    let ranges = limited(id, decider.ranges.len(), least, 256 * least, "intervals of permitted values", "1 to 256")?;
    let forms = limited(id, decider.forms.len(), 1, 8, "forms", "1 to 8")?;
    writer.u32(decider.program.unwrap_or(-1) as u32);
    writer.u16(ranges as u16);
    writer.bytes.extend([forms as u8, 0]);
    writer.u64(decider.stock as u64);
    for (min, max) in &decider.ranges {
        writer.u64(*min as u64);
        writer.u64(*max as u64);
    }
    for form in &decider.forms {
        let (kind, parameters) = match *form {
            Number::Affine { a, b } => (1, [a, b, 0, 0]),
            Number::Quotient { a, b, c, factor } => (2, [a, b, c, factor]),
            Number::Reciprocal { a, b } => (3, [a, b, 0, 0]),
            Number::Power { a, b } => (4, [a, b, 0, 0]),
            Number::Logarithm { b } => (5, [0, b, 0, 0]),
            Number::ReciprocalLogarithm { a, b } => (6, [a, b, 0, 0]),
            Number::Ratio { factor, a, b } => (7, [a, b, 0, factor]),
        };
        writer.u64(kind);
        parameters.iter().for_each(|parameter| writer.u64(*parameter as u64));
    }
    Ok(())
}

fn write_range(writer: &mut Writer, id: &str, range: &Range) -> Result<(), RecordError> {
    if range.start >= range.end {
        return Err(RecordError::Range { id: id.to_owned(), start: range.start, end: range.end });
    }
    let target = writer.target(&range.target);
    writer.u16(target);
    writer.u16(0);
    writer.u32(0);
    writer.u64(range.start);
    writer.u64(range.end);
    Ok(())
}

fn write_span(writer: &mut Writer, id: &str, span: &SafeSpan) -> Result<(), RecordError> {
    let ranges = limited(id, span.ranges.len(), 1, 1024, "ranges of a safe span", "1 to 1024")?;
    let exits = limited(id, span.exits.len(), 0, 64, "exits of a safe span", "up to 64")?;
    let target = writer.target(&span.target);
    [target, ranges as u16, exits as u16, 0].into_iter().for_each(|n| writer.u16(n));
    writer.u64(span.entry);
    for (start, end) in &span.ranges {
        if start >= end {
            return Err(RecordError::Range { id: id.to_owned(), start: *start, end: *end });
        }
        writer.u64(*start);
        writer.u64(*end);
    }
    span.exits.iter().for_each(|exit| writer.u64(*exit));
    Ok(())
}

fn write_entry(writer: &mut Writer, entry: &Entry) -> Result<(), RecordError> {
    let id = &entry.id;
    let name = checked_id(id)?;
    let gates = limited(id, entry.gates.len(), 0, 256, "gates", "up to 256")?;
    let spans = limited(id, entry.spans.len(), 0, 64, "safe spans", "up to 64")?;
    let least = usize::from(spans == 0);
    let locations = limited(id, entry.locations.len(), least, 256, "locations", "1 to 256")?;
    let between = limited(id, entry.between.len(), 0, 1024, "ranges", "up to 1024")?;
    let policy = entry.decider.as_ref().is_some_and(|decider| decider.program.is_some());
    writer.u8(if policy { OP_POLICY } else { OP_SET });
    writer.u8(name.len() as u8);
    writer.u16(locations as u16);
    writer.u16(between as u16);
    writer.u16(gates as u16);
    writer.u16(spans as u16);
    writer.u64(entry.value as u64);
    writer.bytes.extend(name);
    let decider = entry.decider.as_ref().filter(|_| policy || gates > 0);
    decider.iter().try_for_each(|decider| write_decider(writer, id, decider))?;
    entry.locations.iter().try_for_each(|location| write_location(writer, id, location))?;
    entry.gates.iter().try_for_each(|gate| write_location(writer, id, gate))?;
    entry.between.iter().try_for_each(|range| write_range(writer, id, range))?;
    entry.spans.iter().try_for_each(|span| write_span(writer, id, span))
}

fn target_bytes(target: &Target, kernel: &BuildId) -> Result<Vec<u8>, RecordError> {
    let (name, build_id) = match target {
        Target::Kernel => ("", kernel),
        Target::Module { name, build_id } if (1..56).contains(&name.len()) => (name.as_str(), build_id),
        Target::Module { name, .. } => return Err(RecordError::ModuleName(name.clone())),
    };
    if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(RecordError::ModuleName(name.to_owned()));
    }
    let mut bytes = vec![name.len() as u8, build_id.as_bytes().len() as u8, 0, 0];
    bytes.extend(name.as_bytes());
    bytes.extend(build_id.as_bytes());
    Ok(bytes)
}

/// An operation without locations: an unset, a drop, or files to hold.
fn write_plain(writer: &mut Writer, kind: u8, id: &str, files: &[RawFd]) -> Result<(), RecordError> {
    let name = checked_id(id)?;
    let count = limited(id, files.len(), 0, 64, "files to hold", "1 to 64")?;
    writer.u8(kind);
    writer.u8(name.len() as u8);
    writer.u16(count as u16);
    [0; 3].into_iter().for_each(|n| writer.u16(n));
    writer.u64(0);
    writer.bytes.extend(name);
    files.iter().for_each(|file| writer.u32(*file as u32));
    Ok(())
}

fn write_guard(writer: &mut Writer, entries: &[Entry], id: &str, guard: &Guard) -> Result<(), RecordError> {
    let pause = u32::try_from(guard.pause.as_millis()).ok().filter(|pause| *pause <= PAUSE_MAX_MS);
    let (Some(pause), true) = (pause, guard.min <= guard.max && entries.iter().any(|entry| entry.id == id)) else {
        return Err(RecordError::Guard(id.to_owned()));
    };
    let name = checked_id(id)?;
    writer.u8(OP_GUARD);
    writer.u8(name.len() as u8);
    [0; 4].into_iter().for_each(|n| writer.u16(n));
    writer.u64(guard.stock as u64);
    writer.bytes.extend(name);
    [guard.min as u64, guard.max as u64, guard.step].into_iter().for_each(|n| writer.u64(n));
    writer.u32(pause);
    writer.u32(0);
    Ok(())
}

fn write_limits(writer: &mut Writer, transaction: &Transaction) -> Result<(), RecordError> {
    let limits = transaction.limits;
    let name = checked_owner(&transaction.owner)?;
    if name.is_empty() || limits.permille > PERMILLE_MAX || i64::try_from(limits.triggers).is_err() {
        return Err(RecordError::Limits(name.to_owned()));
    }
    writer.u8(OP_LIMITS);
    writer.u8(name.len() as u8);
    [0; 4].into_iter().for_each(|n| writer.u16(n));
    writer.u64(limits.triggers);
    writer.bytes.extend(name.as_bytes());
    writer.u32(limits.permille);
    writer.u32(0);
    Ok(())
}

fn checked_note(note: &str) -> Result<&str, RecordError> {
    let fits = note.len() <= 200 && note.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if fits { Ok(note) } else { Err(RecordError::Note(note.to_owned())) }
}

fn checked_owner(name: &str) -> Result<&str, RecordError> {
    let fits = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(name) } else { Err(RecordError::Owner(name.to_owned())) }
}

/// The policy's name and the note of a transaction.
type Words<'a> = (&'a str, &'a str);

fn header(
    length: usize,
    flags: u32,
    timeout: Duration,
    targets: usize,
    operations: usize,
    (owner, note): Words,
) -> Vec<u8> {
    let mut header = Writer { bytes: MAGIC.to_vec(), targets: Vec::new() };
    header.u32(PROTOCOL);
    header.u32((length + owner.len() + note.len()) as u32);
    header.u32(flags);
    header.u32(timeout.as_millis().min(60_000) as u32);
    header.u16(targets as u16);
    header.u16(operations as u16);
    header.u16(owner.len() as u16);
    header.u16(note.len() as u16);
    header.bytes.extend(owner.as_bytes());
    header.bytes.extend(note.as_bytes());
    header.bytes
}

/// The record of a transaction.
///
/// # Errors
/// If it exceeds a limit of the module.
pub fn encode(transaction: &Transaction) -> Result<Vec<u8>, RecordError> {
    let owner = checked_owner(&transaction.owner)?;
    let note = checked_note(&transaction.note)?;
    let files = usize::from(!transaction.hold.is_empty());
    let limited_policy = usize::from(transaction.limits.is_given());
    let others = transaction.guards.len() + usize::from(transaction.drop.is_some()) + files + limited_policy;
    let operations = transaction.entries.len() + transaction.unset.len() + others;
    limited("transaction", operations, 1, 256, "operations", "1 to 256")?;
    let locations = transaction.entries.iter().map(|entry| entry.locations.len() + entry.gates.len()).sum();
    limited("transaction", locations, 0, 4096, "locations", "up to 4096")?;
    // The kernel comes first whether a location names it or not, so that the module compares its build id.
    let mut body = Writer { bytes: Vec::new(), targets: vec![Target::Kernel] };
    for entry in &transaction.entries {
        write_entry(&mut body, entry)?;
    }
    for (id, guard) in &transaction.guards {
        write_guard(&mut body, &transaction.entries, id, guard)?;
    }
    for id in &transaction.unset {
        write_plain(&mut body, OP_UNSET, id, &[])?;
    }
    if let Some(name) = &transaction.drop {
        write_plain(&mut body, OP_DROP, checked_owner(name)?, &[])?;
    }
    if limited_policy > 0 {
        write_limits(&mut body, transaction)?;
    }
    if files > 0 {
        write_plain(&mut body, OP_HOLD, "files", &transaction.hold)?;
    }
    limited("transaction", body.targets.len(), 1, 32, "targets", "1 to 32")?;
    let mut targets = Vec::new();
    for target in &body.targets {
        targets.extend(target_bytes(target, &transaction.build_id)?);
    }
    let length = HEADER_SIZE + targets.len() + body.bytes.len();
    limited("transaction", length + owner.len() + note.len(), 1, RECORD_MAX, "bytes in the record", "up to 1048576")?;
    let flag = |wanted: bool, flag: u32| if wanted { flag } else { 0 };
    let mode = match transaction.mode {
        Mode::Immediate => 0,
        Mode::Task => 1,
        Mode::Global => 2,
    };
    let flags = flag(transaction.dry_run, FLAG_DRY_RUN) | flag(transaction.replace, FLAG_REPLACE) | mode << MODE_SHIFT;
    let mut record = header(length, flags, transaction.timeout, body.targets.len(), operations, (owner, note));
    record.extend(targets);
    record.extend(body.bytes);
    Ok(record)
}

/// The record that unsets these ids together, whatever build they belong to.
///
/// # Errors
/// If an id is malformed, or there are none or more than 256.
pub fn encode_unset(ids: &[impl AsRef<str>], timeout: Duration) -> Result<Vec<u8>, RecordError> {
    limited("transaction", ids.len(), 1, 256, "operations", "1 to 256")?;
    let mut body = Writer { bytes: Vec::new(), targets: Vec::new() };
    for id in ids {
        write_plain(&mut body, OP_UNSET, id.as_ref(), &[])?;
    }
    let mut record = header(HEADER_SIZE + body.bytes.len(), 0, timeout, 0, ids.len(), ("", ""));
    record.extend(body.bytes);
    Ok(record)
}

/// The record that unsets a policy's constants together and lets its files go.
///
/// # Errors
/// If the name is malformed.
pub fn encode_drop(name: &str, timeout: Duration) -> Result<Vec<u8>, RecordError> {
    let mut body = Writer { bytes: Vec::new(), targets: Vec::new() };
    write_plain(&mut body, OP_DROP, checked_owner(name)?, &[])?;
    let mut record = header(HEADER_SIZE + body.bytes.len(), 0, timeout, 0, 1, ("", ""));
    record.extend(body.bytes);
    Ok(record)
}

/// The record that unsets everything.
pub fn encode_unset_all(timeout: Duration) -> Vec<u8> {
    header(HEADER_SIZE, FLAG_UNSET_ALL, timeout, 0, 0, ("", ""))
}

#[cfg(test)]
mod tests;
