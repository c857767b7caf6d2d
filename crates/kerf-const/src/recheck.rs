//! Checking an entry again: against the image, the source and the compiler, for one value or as a whole.

use std::collections::{BTreeMap, BTreeSet};

use kerf_image::Image;

use crate::analyse::{self, Analysis, Template};
use crate::build::{self, Input};
use crate::compile;
use crate::deployed::Deployed;
use crate::entry::{Class, Entry, Span, from_hex};
use crate::equivalence::{self, Signatures};
use crate::error::ConstError;
use crate::form;
use crate::grep;
use crate::site::Site;
use crate::variants::Variants;

/// Compiles exactly one value and compares it with what the entry would put into the deployed code.
///
/// # Errors
/// [`ConstError::OutsideDomain`] if the compiler makes something else, or if the comparison is not conclusive.
pub fn certify_value(input: &Input, entry: &Entry, value: i128) -> Result<(), ConstError> {
    certify_values(input, entry, &[value])
}

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

fn check_span(entry: &Entry, span: &Span) -> Result<(), String> {
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

fn certify_values(input: &Input, entry: &Entry, values: &[i128]) -> Result<(), ConstError> {
    build::check_source(input)?;
    let outside = |value: i128, why: String| ConstError::OutsideDomain { id: entry.id.clone(), value, why };
    let first = values.first().copied().unwrap_or(entry.value);
    let site = site_of(input, entry)?;
    let mut units = Vec::new();
    for name in &entry.units {
        match compile::preprocess(input.tree, name, &site)? {
            Some(unit) => units.push(unit),
            None => return Err(outside(first, format!("{name} does not use the constant"))),
        }
    }
    let mut variants = Variants::new(input.tree, &site, entry.value, units)?;
    variants.make(values)?;
    let analysis = analysis(entry, &variants).map_err(|why| outside(first, why))?;
    let module = build::module_image(input, entry.image.module.as_deref())?;
    let deployed = Deployed::new(module.as_ref().unwrap_or(input.image))?;
    if let (_, Some((_, why))) = build::locate(&analysis, &deployed) {
        return Err(outside(first, why));
    }
    let signatures = Signatures::of(input.image);
    for value in values {
        let verdict = analyse::agrees(&variants, &analysis, *value, &|template, value, variant, compiled| {
            let numbers = equivalence::numbers_of(&analysis.templates, template.unit, value);
            let base = &variants.base()[template.unit].code;
            let calls = variants.calls(template.unit);
            equivalence::prove(base, &compiled.code, &variant.name, &numbers, &calls, &signatures)
        });
        verdict.map_err(|why| outside(*value, why))?;
    }
    Ok(())
}

/// The site that an entry was built from, found again in the source.
fn site_of(input: &Input, entry: &Entry) -> Result<Site, ConstError> {
    let text = grep::read_source(input.tree.root(), &entry.file)?;
    let start = text.split('\n').take(entry.line as usize - 1).map(|l| l.len() + 1).sum::<usize>();
    let index: usize = entry.id.rsplit(':').next().and_then(|i| i.parse().ok()).unwrap_or(0);
    let damaged = || ConstError::Damaged {
        id: entry.id.clone(),
        why: format!("line {} of {} does not hold `{}`", entry.line, entry.file, entry.text),
    };
    let line = text.get(start..).ok_or_else(damaged)?;
    let word = |at: usize| {
        let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        let number = entry.text.starts_with(|c: char| c.is_ascii_alphanumeric());
        !(number
            && (part_of_word(line[..at].chars().next_back())
                || part_of_word(line[at + entry.text.len()..].chars().next())))
    };
    let end = line.find('\n').unwrap_or(line.len()).max(entry.text.len());
    let found = line.match_indices(&entry.text).map(|(at, _)| at).filter(|at| *at < end && word(*at)).nth(index);
    let at = found.ok_or_else(damaged)?;
    Ok(Site {
        file: entry.file.clone(),
        line: entry.line,
        index: index as u32,
        name: entry.name.clone(),
        kind: entry.kind,
        text: entry.text.clone(),
        range: start + at..start + at + entry.text.len(),
    })
}

/// The templates that an entry describes, over freshly compiled base functions.
fn analysis(entry: &Entry, variants: &Variants) -> Result<Analysis, String> {
    let mut templates: BTreeMap<(usize, String), Template> = BTreeMap::new();
    for span in &entry.spans {
        let unit = variants
            .units()
            .iter()
            .position(|u| u.name == span.unit)
            .ok_or_else(|| format!("no unit {}", span.unit))?;
        let function = variants.base()[unit]
            .code
            .function(&span.function)
            .ok_or_else(|| format!("no function {}", span.function))?;
        let template = templates.entry((unit, span.function.clone())).or_insert_with(|| Template {
            unit,
            function: function.clone(),
            numbers: BTreeMap::new(),
            unexplained: BTreeMap::new(),
        });
        for iv in &span.iv {
            let index = function.code.iter().position(|i| i.offset() == iv.offset);
            let index = index.ok_or_else(|| format!("{}+{:#x} is no instruction", span.function, iv.offset))?;
            template.numbers.insert((index, iv.slot.into()), iv.form);
        }
    }
    let touched = templates.keys().map(|(unit, _)| *unit).collect();
    Ok(Analysis { templates: templates.into_values().collect(), touched, structural: BTreeMap::new() })
}
