//! The places of an entry in another image, where every function that they lie in is the same code.

use std::collections::BTreeMap;

use kerf_image::Image;

use super::same::Pair;
use crate::build::text_base;
use crate::entry::{Entry, ImageName, SafeSpan, Window, from_hex, to_hex};
use crate::error::ConstError;
use crate::safe_span::{Analysis as _, ThinSlices};

/// The entry with the new image's name, addresses and bytes, or why it has none.
///
/// # Errors
/// If an image cannot be read as the program that the entry speaks of.
pub fn carry(pair: &Pair, entry: &Entry) -> Result<Result<Entry, String>, ConstError> {
    let carried = match places(pair, entry) {
        Ok(carried) => carried,
        Err(why) => return Ok(Err(why)),
    };
    // Safe spans follow from more than their own functions: both images must give the same ones.
    let slices = ThinSlices::default();
    let (old, new) = (slices.safe_spans(pair.old(), entry)?, slices.safe_spans(pair.new_image(), &carried)?);
    let moved: Result<Vec<SafeSpan>, String> = old.iter().map(|span| safe_span(pair, span)).collect();
    Ok(moved.and_then(|moved| agree(carried, moved, new)))
}

/// The entry with the texts of the new image's instructions, if both images give the same safe spans.
fn agree(mut carried: Entry, mut moved: Vec<SafeSpan>, mut new: Vec<SafeSpan>) -> Result<Entry, String> {
    let texts: BTreeMap<u64, String> =
        new.iter().flat_map(|span| &span.slice).map(|step| (step.offset, step.text.clone())).collect();
    // Their texts hold addresses.
    for step in moved.iter_mut().chain(&mut new).flat_map(|span| &mut span.slice) {
        step.text.clear();
        step.flow.clear();
    }
    moved.sort_by_key(|span| span.function_offset);
    new.sort_by_key(|span| span.function_offset);
    if let Some((a, b)) = moved.iter().zip(&new).find(|(a, b)| a != b) {
        return Err(format!("its effects in {} are followed to other places: {}", a.function, difference(a, b)));
    }
    if moved.len() != new.len() {
        return Err("its effects live in other functions".into());
    }
    for step in carried.safe_spans.iter_mut().flat_map(|span| &mut span.slice) {
        if let Some(text) = texts.get(&step.offset) {
            step.text.clone_from(text);
        }
    }
    Ok(carried)
}

/// What two safe spans do not share.
fn difference(a: &SafeSpan, b: &SafeSpan) -> String {
    let word = |w: &Option<String>| w.clone().unwrap_or_else(|| "nothing".into());
    match () {
        _ if a.widened != b.widened => format!("widened for {} instead of {}", word(&b.widened), word(&a.widened)),
        _ if a.escapes != b.escapes => format!("{} instead of {}", b.escapes.join(", "), a.escapes.join(", ")),
        _ if a.ranges != b.ranges => "other ranges".into(),
        _ if a.instructions != b.instructions => {
            format!("{} instructions instead of {}", b.instructions, a.instructions)
        }
        _ if a.slice != b.slice => "other instructions use the value".into(),
        _ => "it is entered or left elsewhere".into(),
    }
}

fn places(pair: &Pair, entry: &Entry) -> Result<Entry, String> {
    let image = pair.new_image();
    let (old_base, new_base) = (text_base(pair.old()), text_base(image));
    let mut carried = entry.clone();
    carried.image = ImageName {
        build_id: image.build_id().map(|id| id.to_string()).unwrap_or_default(),
        release: image.release().unwrap_or_default().to_owned(),
        text: new_base,
        module: None,
    };
    for span in &mut carried.spans {
        let start = pair.counterpart(old_base.wrapping_add(span.function_offset))?;
        span.function_offset = start.wrapping_sub(new_base);
        span.bytes = reread(image, start.wrapping_add(span.start), &span.bytes)?;
        move_window(image, start, &mut span.window)?;
    }
    carried.safe_spans = entry.safe_spans.iter().map(|span| safe_span(pair, span)).collect::<Result<_, _>>()?;
    Ok(carried)
}

/// The new image's bytes in the place of the old one's.
fn reread(image: &Image, address: u64, hex: &str) -> Result<String, String> {
    let length = from_hex(hex).ok_or("bytes that are no bytes")?.len();
    let bytes = image.bytes(address, length).ok_or_else(|| format!("the new image ends at {address:#x}"))?;
    Ok(to_hex(&bytes))
}

fn move_window(image: &Image, start: u64, window: &mut Window) -> Result<(), String> {
    if !window.bytes.is_empty() {
        window.bytes = reread(image, start.wrapping_add(window.start), &window.bytes)?;
    }
    Ok(())
}

/// A safe span in the new image. All functions in which it lies must be the same.
fn safe_span(pair: &Pair, span: &SafeSpan) -> Result<SafeSpan, String> {
    let mut moved = span.clone();
    moved.function_offset = offset(pair, span.function_offset)?;
    moved.entry = offset(pair, span.entry)?;
    moved.exits = span.exits.iter().map(|at| offset(pair, *at)).collect::<Result<_, _>>()?;
    moved.exits.sort_unstable();
    moved.ranges = ranges(pair, &span.ranges)?;
    for step in &mut moved.slice {
        step.offset = offset(pair, step.offset)?;
    }
    moved.slice.sort_by_key(|step| step.offset);
    if let Some(begin) = &mut moved.begin {
        let start = text_base(pair.new_image()).wrapping_add(moved.function_offset);
        move_window(pair.new_image(), start, &mut begin.window)?;
    }
    Ok(moved)
}

/// An offset from the old image's text as one from the new image's.
fn offset(pair: &Pair, old: u64) -> Result<u64, String> {
    let address = text_base(pair.old()).wrapping_add(old);
    let function = pair.old().function_at(address).ok_or_else(|| format!("no function at {address:#x}"))?;
    let start = pair.counterpart(function.address)?;
    Ok(start.wrapping_add(address - function.address).wrapping_sub(text_base(pair.new_image())))
}

/// Ranges, cut at the borders of functions: what lay side by side need not do so any more.
fn ranges(pair: &Pair, old: &[(u64, u64)]) -> Result<Vec<(u64, u64)>, String> {
    let base = text_base(pair.old());
    let mut moved: BTreeMap<u64, u64> = BTreeMap::new();
    for (start, end) in old {
        let mut at = *start;
        while at < *end {
            let address = base.wrapping_add(at);
            let function = pair.old().function_at(address).ok_or_else(|| format!("no function at {address:#x}"))?;
            let stop = function.end().wrapping_sub(base).clamp(at + 1, *end);
            let first = offset(pair, at)?;
            moved.insert(first, first + (stop - at));
            at = stop;
        }
    }
    Ok(crate::safe_span::joined(moved.into_iter()))
}
