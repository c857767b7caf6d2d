//! Where the numbers of each span would go, over the whole domain: what [`apply`](crate::apply) does for a value, asked for many values.
//!
//! Which place a number gets is decided anew for each value when it is set. A report wants to know it beforehand, for all values.

use std::collections::{BTreeMap, BTreeSet};

use kerf_image::Image;
use serde::Serialize;

use crate::apply::{Choice, Running, Setting, live_entry};
use crate::build::text_base;
use crate::entry::{Entry, Interval, Span, from_hex};
use crate::error::ConstError;

/// The place that does for every value that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The span's own instructions hold the numbers of every value.
    Immediate,
    /// They hold those of some values or of none; all others can have a detour.
    Detour,
    /// Some values have neither.
    Other,
}

impl Kind {
    /// The word that tables and JSON use.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Immediate => "immediate",
            Kind::Detour => "detour",
            Kind::Other => "other",
        }
    }
}

/// How a span takes the values of its entry's domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// What does for all of them.
    pub kind: Kind,
    /// The values around the deployed one whose numbers the span's own instructions hold; they cost nothing.
    pub immediate: Option<Interval>,
    /// Why there can be no detour, which a policy needs; `None` where there can be one.
    pub no_detour: Option<String>,
    /// Of kind `Other`: the value nearest to the deployed one, if possible another one, that has no place, and why.
    pub reason: Option<String>,
}

impl Placement {
    /// Without a place, for this reason.
    fn none(reason: String) -> Placement {
        Placement { kind: Kind::Other, immediate: None, no_detour: Some(reason.clone()), reason: Some(reason) }
    }
}

/// A placement for each span of a proved entry, in their order. With the image that holds the code (the core's, or the module's) its
/// bytes are compared with the entry's first.
///
/// Values are tried where fields and encodings end: at the ends of the domain, and around each power of two and each distance of a
/// power of two from the deployed value.
pub fn placements(entry: &Entry, image: Option<&Image>) -> Vec<Placement> {
    let values = values(entry);
    let mut found: Vec<Placement> = entry
        .spans
        .iter()
        .map(|span| match image.and_then(|image| difference(image, span)) {
            Some(why) => Placement::none(why),
            None => alone(&of_spans(entry, [span]), &values),
        })
        .collect();
    together(entry, &values, &mut found);
    found
}

/// The values that are tried, all certified, in order.
fn values(entry: &Entry) -> Vec<i128> {
    let steps = (0..=64).flat_map(|n| [-1, 0, 1].map(|near| (1i128 << n) + near));
    let around = steps.flat_map(|step| [step, -step, entry.value + step, entry.value - step]);
    let ends = entry.domain.iter().flat_map(|interval| [interval.min, interval.max]);
    let all: BTreeSet<i128> = around.chain(ends).filter(|value| entry.certifies(*value)).collect();
    all.into_iter().collect()
}

/// What the image has at a span, if that is not what the entry says.
fn difference(image: &Image, span: &Span) -> Option<String> {
    let address = text_base(image).wrapping_add(span.function_offset);
    let same = |start: u64, hex: &str| {
        let bytes = from_hex(hex)?;
        Some(image.bytes(address.wrapping_add(start), bytes.len()).as_deref() == Some(&bytes[..]))
    };
    let other = [(span.start, &span.bytes), (span.window.start, &span.window.bytes)]
        .into_iter()
        .find(|(start, hex)| same(*start, hex) != Some(true));
    other.map(|(start, _)| format!("the image has other bytes at {}+{start:#x}", span.function))
}

/// The entry with these spans only. Whether a number has a place does not depend on where the code is loaded.
fn of_spans<'a>(entry: &Entry, spans: impl IntoIterator<Item = &'a Span>) -> Entry {
    Entry {
        id: entry.id.clone(),
        name: entry.name.clone(),
        file: entry.file.clone(),
        line: entry.line,
        value: entry.value,
        kind: entry.kind,
        class: entry.class,
        reason: String::new(),
        image: crate::entry::ImageName { module: None, ..entry.image.clone() },
        domain: entry.domain.clone(),
        spans: spans.into_iter().cloned().collect(),
        safe_spans: Vec::new(),
        units: Vec::new(),
        text: String::new(),
        governed: Vec::new(),
    }
}

/// Why a value has no place, if it has none.
fn refusal(entry: &Entry, value: i128, choice: Choice) -> Option<String> {
    let error = live_entry(entry, Setting::Value(value), choice, &Running::default()).err()?;
    Some(match error {
        ConstError::OutsideDomain { why, .. } | ConstError::Damaged { why, .. } => why,
        other => other.to_string(),
    })
}

/// The placement of an entry's only span.
fn alone(entry: &Entry, values: &[i128]) -> Placement {
    let fits = |value: i128| refusal(entry, value, Choice::Immediate).is_none();
    let no_detour = refusal(entry, entry.value, Choice::Detour);
    let immediate = immediate(entry, values, &fits);
    let inside = |value: &i128| immediate.is_some_and(|range| (range.min..=range.max).contains(value));
    let mut others: Vec<i128> = values.iter().copied().filter(|value| !inside(value) && !fits(*value)).collect();
    if others.is_empty() {
        return Placement { kind: Kind::Immediate, immediate, no_detour, reason: None };
    }
    // The deployed value needs no place; it tells why only where nothing else does.
    others.sort_by_key(|value| (*value == entry.value, (value - entry.value).abs()));
    let refused = others.into_iter().find_map(|value| Some((value, refusal(entry, value, Choice::Cheapest)?)));
    let reason = refused.map(|(value, why)| format!("for {value}: {why}"));
    let kind = if reason.is_none() { Kind::Detour } else { Kind::Other };
    Placement { kind, immediate, no_detour, reason }
}

/// The values around the deployed one that fit, without a gap.
fn immediate(entry: &Entry, values: &[i128], fits: &dyn Fn(i128) -> bool) -> Option<Interval> {
    let domain = entry.domain.iter().find(|interval| (interval.min..=interval.max).contains(&entry.value))?;
    if !fits(entry.value) {
        return None;
    }
    let below = values.iter().rev().copied().filter(|v| (domain.min..entry.value).contains(v));
    let above = values.iter().copied().filter(|v| *v > entry.value && *v <= domain.max);
    Some(Interval { min: last(entry.value, below, fits), max: last(entry.value, above, fits) })
}

/// The last value that fits on a way that leads from one to the first that does not.
fn last(mut good: i128, way: impl Iterator<Item = i128>, fits: &dyn Fn(i128) -> bool) -> i128 {
    for next in way {
        if fits(next) {
            good = next;
            continue;
        }
        let mut bad = next;
        while (bad - good).abs() > 1 {
            let middle = good + (bad - good) / 2;
            if fits(middle) { good = middle } else { bad = middle }
        }
        break;
    }
    good
}

/// Spans of one function whose windows meet become one detour: where that cannot be, none of them has one.
fn together(entry: &Entry, values: &[i128], found: &mut [Placement]) {
    let mut functions: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (n, span) in entry.spans.iter().enumerate() {
        functions.entry(span.function_offset).or_default().push(n);
    }
    for own in functions.into_values() {
        let detours = own.iter().filter(|n| found.get(**n).is_some_and(|p| p.kind == Kind::Detour)).count();
        let other = own.iter().any(|n| found.get(*n).is_some_and(|p| p.kind == Kind::Other));
        // One detour meets no other; where a span has no place, that is the reason.
        if detours < 2 || other {
            continue;
        }
        let all = of_spans(entry, own.iter().filter_map(|n| entry.spans.get(*n)));
        let refused = values.iter().find_map(|value| Some((value, refusal(&all, *value, Choice::Cheapest)?)));
        let Some((value, why)) = refused else { continue };
        for n in own {
            if let Some(placement) = found.get_mut(n).filter(|p| p.kind == Kind::Detour) {
                placement.kind = Kind::Other;
                placement.reason = Some(format!("for {value}, with the other places of the function: {why}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::tests::{entry, iv, plug_limit, span};

    /// The kind, what is immediate, whether there can be a detour, and what the reason is.
    type Shown = (Kind, Option<(i128, i128)>, bool, String);

    fn shown(entry: &Entry) -> Vec<Shown> {
        let one = |p: Placement| {
            let range = p.immediate.map(|i| (i.min, i.max));
            (p.kind, range, p.no_detour.is_none(), p.reason.unwrap_or_default())
        };
        placements(entry, None).into_iter().map(one).collect()
    }

    #[test]
    fn small_fields_end_where_a_detour_begins() {
        // −V and 2V in eight bits each.
        assert_eq!(shown(&plug_limit()), [(Kind::Detour, Some((1, 63)), true, String::new())]);
        // mov $32, %eax; nop: a field of 32 bits.
        let mut wide = span(&[0xb8, 32, 0, 0, 0, 0x90], 5, vec![iv(0x25, 32, 32, Some((1, 4)), 1, 0)]);
        let limit = |span: &Span| entry("LIMIT", 32, (1, 1_000_003), vec![span.clone()]);
        assert_eq!(shown(&limit(&wide)), [(Kind::Immediate, Some((1, 1_000_003)), true, String::new())]);
        wide.window.bytes.clear();
        wide.window.refused = "a branch leads into it".into();
        assert_eq!(shown(&limit(&wide)), [(Kind::Immediate, Some((1, 1_000_003)), false, String::new())]);
    }

    #[test]
    fn what_has_no_place_says_why_and_from_where() {
        // add $32, %eax alone: too short for a jump.
        let short = span(&[0x83, 0xc0, 0x20], 3, vec![iv(0x25, 32, 32, Some((2, 1)), 1, 0)]);
        let found = shown(&entry("LIMIT", 32, (1, 1024), vec![short]));
        let (kind, range, detour, reason) = &found[0];
        assert_eq!((*kind, *range, *detour), (Kind::Other, Some((1, 127)), false));
        assert!(reason.starts_with("for 128: ") && reason.contains("too short for a jump"), "{reason}");
    }

    #[test]
    fn numbers_that_fit_again_at_the_other_end_do_not_hide_the_gap() {
        // In 32 bits 2^32 − 1 is −1, which fits eight bits; what lies between does not.
        let code = [0x83, 0xc0, 0x20, 0x90, 0x90, 0x90];
        let wraps = span(&code, 3, vec![iv(0x25, 32, 32, Some((2, 1)), 1, 0)]);
        let found = shown(&entry("LIMIT", 32, (1, u32::MAX.into()), vec![wraps]));
        assert_eq!(found, [(Kind::Detour, Some((1, 127)), true, String::new())]);
    }

    #[test]
    fn detours_that_meet_must_fit_together() {
        // add $32, %eax and long nops: two windows of 27 bytes that share eight, 46 together.
        let nop = [0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
        let add = [0x83, 0xc0, 0x20];
        let number = |offset| vec![iv(offset, 32, 32, Some((2, 1)), 1, 0)];
        let first = span(&[&add[..], &nop, &nop, &nop].concat(), 3, number(0x25));
        let mut second = span(&[&nop[..], &nop, &nop, &add].concat(), 27, number(0x50));
        (second.start, second.end, second.bytes, second.window.start) = (0x50, 0x53, "83c020".into(), 0x38);
        let mut both = vec![first, second];
        let found = shown(&entry("LIMIT", 32, (1, 1024), both.clone()));
        let refused =
            |why: &str| why.starts_with("for 128, with the other places") && why.contains("46 bytes is too long");
        assert!(
            found.iter().all(|(kind, _, detour, why)| *kind == Kind::Other && *detour && refused(why)),
            "{found:?}"
        );
        both.pop();
        assert_eq!(shown(&entry("LIMIT", 32, (1, 1024), both.clone()))[0].0, Kind::Detour);
        assert_eq!(shown(&entry("LIMIT", 32, (1, 100), both))[0].0, Kind::Immediate);
    }
}
