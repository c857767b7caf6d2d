//! The table of all entries: a row each, and below it all that is known, shown when the row is clicked or linked to.

use kerf_const::apply::domain_text;
use kerf_const::entry::{Class, Entry, Iv, SafeSpan, Span};
use kerf_const::placement::{Kind, Placement};
use maud::{Markup, html};

use super::figures::update_word;
use super::gather::Subject;

const HEADER: [&str; 8] = ["Name", "Value", "Class", "Certified values", "Spans", "Placement", "Image", "Source"];

/// Of places in memory that a safe span writes to, so many are shown.
const ESCAPES: usize = 6;

/// The table with its search field.
pub fn table(subjects: &[Subject]) -> Markup {
    html! {
        h2 id="entries" { "All entries" }
        p.search hidden {
            input id="search" type="search" placeholder="words: names, files, functions, classes, placements" size="60" aria-label="Search";
            " " span id="count" {}
        }
        table id="table" {
            thead { tr { @for title in HEADER { th { (title) } } } }
            @for subject in subjects { (row(subject)) }
        }
    }
}

fn row(subject: &Subject) -> Markup {
    let entry = &subject.entry;
    let colour = if entry.class == Class::Proved { "good" } else { "" };
    html! {
        tbody id=(entry.id) {
            tr {
                td { a href={ "#" (entry.id) } { (entry.label()) } }
                td.number data-n=(entry.value) { (entry.value) }
                td class=(colour) { (entry.class.word()) }
                td { @if !entry.domain.is_empty() { (domain_text(entry)) } }
                td.number data-n=(entry.spans.len()) { (entry.spans.len()) }
                td { (placement(&subject.found.placements)) }
                td { (entry.image.module.as_deref().unwrap_or("vmlinux")) }
                td { (entry.file) ":" (entry.line) }
            }
            tr.more { td colspan=(HEADER.len()) { (details(subject)) } }
        }
    }
}

/// The least of the spans' placements: a value is set at all of them or at none.
fn placement(placements: &[Placement]) -> &'static str {
    placements.iter().map(|placement| placement.kind).max().map_or("", Kind::word)
}

fn details(subject: &Subject) -> Markup {
    let entry = &subject.entry;
    html! {
        p { code { (entry.id) } " " (entry.kind.word()) " " code { (entry.text.trim()) } }
        p { b { (entry.class.word()) } ": " (entry.reason) }
        @for knob in &entry.governed { p { "governed already: " (knob) } }
        @if !entry.spans.is_empty() {
            table.small {
                tr { th { "Span" } th { "What it computes" } th { "Numbers" } th { "Placement" } }
                @for (n, span) in entry.spans.iter().enumerate() { (span_row(span, subject.found.placements.get(n))) }
            }
        }
        @for span in &entry.safe_spans { (safe_span(entry, span)) }
    }
}

fn span_row(span: &Span, placement: Option<&Placement>) -> Markup {
    html! {
        tr {
            td { code { (span.function) "+" (format!("{:#x}..{:#x}", span.start, span.end)) } }
            td { code { (span.expression) } }
            td { @for iv in &span.iv { (number(span, iv)) br; } }
            td { (placement.map(sentence).unwrap_or_default()) }
        }
    }
}

/// A number, what follows from V, and what the instruction does with it.
fn number(span: &Span, iv: &Iv) -> Markup {
    let update = span.updates.iter().find(|update| update.offset == iv.offset);
    html! {
        code { (iv.form) " = " (iv.stock) } " at " code { "+" (format!("{:#x}", iv.offset)) }
        @if let Some(update) = update { ", " (update_word(update.kind)) }
    }
}

/// What a placement says in words.
pub fn sentence(placement: &Placement) -> String {
    let range = placement.immediate.filter(|_| placement.kind != Kind::Immediate);
    let range = range.map(|range| format!("; immediate for {}..{}", range.min, range.max)).unwrap_or_default();
    let words = match (&placement.reason, &placement.no_detour) {
        (Some(reason), _) => format!("other: {reason}"),
        (None, Some(why)) => format!("{} (no detour: {why})", placement.kind.word()),
        (None, None) => placement.kind.word().to_owned(),
    };
    words + &range
}

fn safe_span(entry: &Entry, span: &SafeSpan) -> Markup {
    let at = |offset: u64| format!("+{:#x}", offset.wrapping_sub(span.function_offset));
    let critical = span
        .critical
        .iter()
        .filter_map(|n| entry.spans.get(*n))
        .map(|span| format!("{}+{:#x}", span.function, span.start));
    let critical: Vec<String> = critical.collect();
    html! {
        p {
            "safe span " code { (span.function) (at(span.entry)) } ": " (span.instructions) " instructions, left at " (span.exits.len())
            " places, passes " (critical.join(", ")) @if span.repeated { ", perhaps several times" } @else { ", once" }
            @if let Some(why) = &span.widened { "; widened to the function: " (why) }
            @if !span.escapes.is_empty() { "; " (span.escapes.iter().take(ESCAPES).cloned().collect::<Vec<_>>().join(", ")) }
        }
    }
}
