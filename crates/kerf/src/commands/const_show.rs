//! `kerf const show`: an entry for people.

use std::fmt::Write;

use anyhow::Context;
use clap::Args;
use iced_x86::{Decoder, DecoderOptions, Instruction};
use kerf_const::Class;
use kerf_const::algebra::disassemble;
use kerf_const::apply;
use kerf_const::entry::{Entry, Iv, SafeSpan, SliceStep, Span, from_hex};

use super::const_words::{TableArgs, find_anywhere};
use crate::print::{self, Paint, paint};

pub const EXAMPLES: &str = "\
Examples:
  kerf const show BLK_MAX_REQUEST_COUNT
  kerf const show MAX_SOFTIRQ_RESTART --slice
  kerf const show block/blk.h:L335:32:0 --json

A safe span is the code in which the effects of a value live: a switch by task or globally waits for threads to leave it.
--slice prints the instructions that use the value, one by one.";

/// Which entry.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A name, an id, or FILE:Lline.
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    table: TableArgs,
    /// Print the instructions of the safe spans that use the value.
    #[arg(long)]
    slice: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl ShowArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        let found = self.table.open().and_then(|table| find_anywhere(&table, &self.id));
        let entry = found.with_context(|| format!("show {}", self.id))?;
        if self.json {
            print::json(&entry)?
        } else {
            print::text(&shown(&entry, self.slice))?
        }
        Ok(0)
    }
}

/// The whole entry as text.
fn shown(entry: &Entry, slice: bool) -> String {
    let mut out = String::new();
    let title = format!("{} = {}", entry.label(), entry.value);
    let _ = writeln!(
        out,
        "{}   {} {}:L{}   `{}`",
        paint(Paint::Title, &title),
        entry.kind.word(),
        entry.file,
        entry.line,
        entry.text.trim()
    );
    let colour = if entry.class == Class::Proved { Paint::Good } else { Paint::Bad };
    let _ = writeln!(out, "  class    {}: {}", paint(colour, entry.class.word()), entry.reason);
    let _ = writeln!(out, "  id       {}", entry.id);
    let module = entry.image.module.as_ref().map(|m| format!(", module {m}")).unwrap_or_default();
    let _ = writeln!(out, "  kernel   {}{module}, build {}", entry.image.release, entry.image.build_id);
    let _ = writeln!(out, "  domain   {}", apply::domain_text(entry));
    let forms = apply::derived(entry);
    let names: Vec<String> = forms.iter().enumerate().map(|(n, form)| format!("@{n} = {form}")).collect();
    if !names.is_empty() {
        let _ = writeln!(out, "  derived  {}", names.join(", "));
    }
    for knob in &entry.governed {
        let _ = writeln!(out, "  governed {knob}");
    }
    for (n, span) in entry.spans.iter().enumerate() {
        let _ = writeln!(out, "\n{}", shown_span(entry, n, span));
    }
    for (n, span) in entry.safe_spans.iter().enumerate() {
        let _ = writeln!(out, "\n{}", shown_safe_span(n, span));
        if slice {
            for step in &span.slice {
                let _ = writeln!(out, "{}", shown_step(step));
            }
        }
    }
    out
}

fn shown_safe_span(n: usize, span: &SafeSpan) -> String {
    let mut out = String::new();
    let at = |offset: u64| format!("+{:#x}", offset.wrapping_sub(span.function_offset));
    let title = format!("safe span {}: {}, entered at {}", n + 1, span.function, at(span.entry));
    let _ = writeln!(out, "{}", paint(Paint::Title, &title));
    let critical: Vec<String> = span.critical.iter().map(|n| (n + 1).to_string()).collect();
    let times = if span.repeated { ", perhaps several times" } else { ", once" };
    let _ = writeln!(out, "  passes     span {}{times}", critical.join(", "));
    // Functions that take over from this one lie elsewhere.
    let own = |range: &&(u64, u64)| range.0.wrapping_sub(span.function_offset) < 1 << 20;
    let ranges: Vec<String> =
        span.ranges.iter().filter(own).take(6).map(|(a, b)| format!("{}..{}", at(*a), at(*b))).collect();
    let more = span.ranges.len() - ranges.len();
    let more = if more > 0 { format!(" and {more} ranges elsewhere") } else { String::new() };
    let _ =
        writeln!(out, "  inside     {}{more}", if ranges.is_empty() { "nothing".into() } else { ranges.join(", ") });
    let _ = write!(out, "  size       {} instructions, left at {} places", span.instructions, span.exits.len());
    if let Some(why) = &span.widened {
        let _ = write!(out, "\n  widened    to the function: {why}");
    }
    for escape in span.escapes.iter().take(6) {
        let _ = write!(out, "\n  memory     {escape}");
    }
    if span.is_independent() {
        let _ = write!(out, "\n  immediate  a switch in the middle of it changes nothing: the value is used once");
    }
    out
}

/// An instruction of a slice on two lines: what it is, then where it gets the value from.
fn shown_step(step: &SliceStep) -> String {
    let line = if step.line.is_empty() { String::new() } else { format!("  {}", step.line) };
    format!("    {:<34} {}\n      {}{line}", step.place, step.text, paint(Paint::Mark, &step.flow))
}

fn shown_span(entry: &Entry, n: usize, span: &Span) -> String {
    let mut out = String::new();
    let title = format!("span {}: {}+{:#x}..{:#x}", n + 1, span.function, span.start, span.end);
    let _ = writeln!(out, "{}", paint(Paint::Title, &title));
    let _ = writeln!(out, "  {}", span.expression);
    for line in code(span) {
        let _ = writeln!(out, "{line}");
    }
    let range = apply::immediate_range(entry, span);
    let immediate = match range {
        Some((min, max)) => format!("V from {min} to {max}"),
        None => "no number has a field of its own".into(),
    };
    let _ = writeln!(out, "  immediate  {immediate}");
    let detour = if span.window.bytes.is_empty() {
        format!("not possible: {}", span.window.refused)
    } else {
        format!("{} bytes at {}+{:#x}", span.window.bytes.len() / 2, span.function, span.window.start)
    };
    let _ = writeln!(out, "  detour     {detour}");
    let kinds: Vec<String> =
        span.updates.iter().map(|u| format!("{:?} at +{:#x}", u.kind, u.offset).to_lowercase()).collect();
    let _ = writeln!(out, "  updates    {}", kinds.join(", "));
    let proof = span.proof;
    let smt = if proof.smt { "proved by the solver" } else { "not given to the solver" };
    let _ = write!(
        out,
        "  proof      {} compiled values fitted, {} held out agree; {smt}; {} random states agree natively",
        proof.variants, proof.held_out, proof.native
    );
    out
}

/// The window (else the span) in disassembly, with the instructions that hold numbers marked.
fn code(span: &Span) -> Vec<String> {
    let wide = from_hex(&span.window.bytes).filter(|b| !b.is_empty()).map(|bytes| (span.window.start, bytes));
    let (start, bytes) = wide.unwrap_or_else(|| (span.start, from_hex(&span.bytes).unwrap_or_default()));
    let decoder = Decoder::with_ip(64, &bytes, start, DecoderOptions::NONE);
    decoder.into_iter().map(|insn| line(span, &insn, &bytes, start)).collect()
}

fn line(span: &Span, insn: &Instruction, bytes: &[u8], start: u64) -> String {
    let at = (insn.ip() - start) as usize;
    let own = bytes.get(at..at + insn.len()).unwrap_or_default();
    let numbers: Vec<&Iv> = span.iv.iter().filter(|iv| iv.offset == insn.ip()).collect();
    let hex = marked_bytes(own, &numbers);
    let padding = " ".repeat(31usize.saturating_sub(own.len() * 3));
    let text = disassemble(insn, false);
    if numbers.is_empty() {
        return format!("    +{:#05x}  {hex}{padding} {text}", insn.ip());
    }
    let said: Vec<String> = numbers.iter().map(|iv| format!("{} = {}", iv.form, iv.stock)).collect();
    let said = paint(Paint::Mark, &said.join(", "));
    format!("  {} +{:#05x}  {hex}{padding} {text:<28} {said}", paint(Paint::Mark, "→"), insn.ip())
}

/// The bytes of an instruction; on a terminal those of the numbers stand out, elsewhere the arrow has to do.
fn marked_bytes(bytes: &[u8], numbers: &[&Iv]) -> String {
    let inside = |n: usize| {
        numbers
            .iter()
            .filter_map(|iv| iv.field)
            .any(|(at, size)| (usize::from(at)..usize::from(at) + usize::from(size)).contains(&n))
    };
    let shown: Vec<String> = bytes
        .iter()
        .enumerate()
        .map(|(n, byte)| if inside(n) { paint(Paint::Mark, &format!("{byte:02x}")) } else { format!("{byte:02x}") })
        .collect();
    shown.join(" ")
}
