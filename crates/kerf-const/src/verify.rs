//! Checking an entry as a whole: against the image, the source and the compiler.

use std::collections::BTreeSet;

use kerf_image::Image;

use crate::build::{self, Input};
use crate::entry::{Class, Entry, Span, from_hex};
use crate::error::ConstError;
use crate::form;
use crate::recheck::certify_values;

/// Checks an entry as a whole: its numbers and bytes against the image, its forms against the compiler at the ends of
/// the domain and in its middle, and that nothing else changes there.
///
/// # Errors
/// [`ConstError::Damaged`] names what is wrong.
pub fn verify(input: &Input, entry: &Entry) -> Result<(), ConstError> {
    let damaged = |why: String| ConstError::Damaged { id: entry.id.clone(), why };
    if entry.class != Class::Proved {
        return Err(damaged(format!("it is {}, there is nothing to set", entry.class.word())));
    }
    for span in &entry.spans {
        check_span(entry, span).map_err(&damaged)?;
    }
    if entry.image.module.is_none() {
        check_bytes(input.image, entry).map_err(&damaged)?;
    }
    let Some(domain) = entry.domain.first() else { return Err(damaged("it has no domain".into())) };
    let middle = domain.min + (domain.max - domain.min) / 2;
    let mut values: Vec<i128> = vec![domain.min, middle, domain.max, entry.value + 1];
    values.retain(|v| entry.certifies(*v) && *v != entry.value);
    values.sort();
    values.dedup();
    certify_values(input, entry, &values).map_err(|e| match e {
        ConstError::OutsideDomain { value, why, .. } => {
            damaged(format!("with {value} the compiler makes other code: {why}"))
        }
        other => other,
    })
}

pub(crate) fn check_span(entry: &Entry, span: &Span) -> Result<(), String> {
    for iv in &span.iv {
        let stock = iv.form.apply(entry.value).map(|n| form::wrap(n, iv.bits));
        if stock != Some(form::wrap(iv.stock.into(), iv.bits)) {
            return Err(format!(
                "{}+{:#x}: {} is not {:#x} at the deployed value",
                span.function, iv.offset, iv.form, iv.stock
            ));
        }
        if !(span.start..span.end).contains(&iv.offset) {
            return Err(format!("{}+{:#x} lies outside its span", span.function, iv.offset));
        }
    }
    let offsets: BTreeSet<u64> = span.iv.iter().map(|iv| iv.offset).collect();
    let updates: BTreeSet<u64> = span.updates.iter().map(|u| u.offset).collect();
    if offsets != updates {
        return Err(format!("{}+{:#x}: the updates are not where the numbers are", span.function, span.start));
    }
    Ok(())
}

fn check_bytes(image: &Image, entry: &Entry) -> Result<(), String> {
    let base = build::text_base(image);
    for span in &entry.spans {
        let address = base.wrapping_add(span.function_offset);
        for (start, bytes) in [(span.start, &span.bytes), (span.window.start, &span.window.bytes)] {
            let Some(bytes) = from_hex(bytes) else {
                return Err(format!("{}: bytes that are no bytes", span.function));
            };
            let deployed = image.bytes(address.wrapping_add(start), bytes.len());
            if deployed.as_deref() != Some(&bytes[..]) {
                return Err(format!("{}+{start:#x}: the image has other bytes", span.function));
            }
        }
        if span.end.checked_sub(span.start) != Some(span.bytes.len() as u64 / 2) {
            return Err(format!("{}+{:#x}: the span is not as long as its bytes", span.function, span.start));
        }
    }
    Ok(())
}
