//! Detours: the windows that become jumps, and the instructions that run instead.

use iced_x86::{Decoder, DecoderOptions};
use kerf_live::{Change, DetourInstruction};

use super::{Decision, Number, encode};
use crate::entry::{SlotName, Span};

/// The most bytes of a window that the module takes.
const MOST_BYTES: usize = 32;
/// The most instructions of it.
const MOST_INSTRUCTIONS: usize = 12;
/// The most of them that may have another constant.
const MOST_CHANGED: usize = 8;

/// A window of a function that becomes a jump.
pub(super) struct Detour<'a> {
    /// A span that needs it.
    pub span: &'a Span,
    /// Offset of the first byte from the function's start.
    pub start: u64,
    /// The bytes in memory.
    pub bytes: Vec<u8>,
}

impl Detour<'_> {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Whether the instruction of a number lies inside.
    pub fn covers(&self, number: &Number) -> bool {
        number.span.function_offset == self.span.function_offset
            && self.start <= number.iv.offset
            && number.end() <= self.end()
    }

    /// The instructions that run instead, or why there can be none.
    pub fn change(&self, numbers: &[Number], decision: Option<&Decision>) -> Result<Change, String> {
        if self.bytes.len() > MOST_BYTES {
            return Err(format!("{} of {} bytes is too long for a detour", self.place(), self.bytes.len()));
        }
        let mut instructions = Vec::new();
        let mut changed = 0;
        let mut marks = Vec::new();
        for insn in Decoder::with_ip(64, &self.bytes, self.start, DecoderOptions::NONE) {
            let at = (insn.ip() - self.start) as usize;
            let bytes = self.bytes.get(at..at + insn.len()).filter(|_| !insn.is_invalid());
            let bytes = bytes.ok_or_else(|| format!("{} is not whole instructions", self.place()))?;
            let wanted: Vec<(SlotName, i64)> =
                numbers.iter().filter(|n| n.iv.offset == insn.ip()).map(|n| (n.iv.slot, n.want)).collect();
            let own = numbers.iter().find(|n| n.iv.offset == insn.ip());
            let update = own.and_then(|n| n.span.updates.iter().find(|u| u.offset == insn.ip()));
            let scratch = update.map(|u| u.scratch_registers());
            let new = encode::moved(&insn, bytes, &wanted, &scratch.unwrap_or_default())
                .map_err(|why| format!("{}+{:#x}: {why}", self.span.function, insn.ip()))?;
            changed += usize::from(!wanted.is_empty());
            if let Some(decision) = decision {
                let own = numbers.iter().filter(|n| n.iv.offset == insn.ip() && decision.decides(n.iv));
                let marked = own.map(|n| decision.mark(n.iv, instructions.len(), &new));
                marks.extend(marked.collect::<Result<Vec<_>, _>>()?);
            }
            instructions.push(DetourInstruction { bytes: new });
        }
        if instructions.len() > MOST_INSTRUCTIONS || changed > MOST_CHANGED {
            let count = instructions.len();
            return Err(format!("{} has {count} instructions, {changed} changed: too many for a detour", self.place()));
        }
        let Some(decision) = decision else { return Ok(Change::Detour { instructions }) };
        let arguments = decision.arguments(self.span, self.start)?;
        Ok(Change::Decided { instructions, marks, arguments, execution: None })
    }

    fn place(&self) -> String {
        format!("the window {}+{:#x}", self.span.function, self.start)
    }
}

/// Joins windows that share bytes: two jumps cannot.
pub(super) fn merged<'a>(mut windows: Vec<Detour<'a>>) -> Result<Vec<Detour<'a>>, (&'a Span, String)> {
    windows.sort_by_key(|w| (w.start, w.bytes.len()));
    let mut joined: Vec<Detour> = Vec::new();
    for next in windows {
        let Some(last) = joined.last_mut().filter(|last| next.start < last.end()) else {
            joined.push(next);
            continue;
        };
        let shared = (next.start - last.start) as usize;
        let both = (last.bytes.len() - shared).min(next.bytes.len());
        if last.bytes.get(shared..shared + both) != next.bytes.get(..both) {
            return Err((next.span, "two windows disagree about the same bytes".into()));
        }
        last.bytes.extend(next.bytes.get(both..).unwrap_or_default());
    }
    Ok(joined)
}
