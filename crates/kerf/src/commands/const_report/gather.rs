//! What a report is made of: entries, with the placement of each span, and the size of its function where the image is at hand.

use std::collections::BTreeMap;
use std::path::Path;

use iced_x86::{Decoder, DecoderOptions};
use kerf_const::ConstError;
use kerf_const::build::{open_module, text_base};
use kerf_const::entry::{Class, Entry, Span};
use kerf_const::placement::{Placement, placements};
use kerf_const::table::Table;
use kerf_const::variants::in_parallel;
use kerf_image::Image;

/// The images of one kernel.
pub struct Images<'a> {
    /// The kernel itself.
    pub core: &'a Image,
    /// The directory of its modules.
    pub modules: Option<&'a Path>,
}

/// An entry with what is not in it.
pub struct Subject {
    /// The entry.
    pub entry: Entry,
    /// What was found of its spans.
    pub found: Found,
}

/// What was found of an entry's spans.
#[derive(Clone, Default)]
pub struct Found {
    /// One for each span of a proved entry; none for others.
    pub placements: Vec<Placement>,
    /// The instructions of the function of each span; `None` without its image.
    pub functions: Vec<Option<u64>>,
    /// Whether its image was at hand to compare bytes with.
    pub compared: bool,
}

/// A table's entries of one kernel.
pub struct Gathered {
    /// The kernel's build id.
    pub build_id: String,
    /// The kernel's release.
    pub release: String,
    /// In the order of their names.
    pub subjects: Vec<Subject>,
    /// Queries of a list that gave no entry, with the reason.
    pub failures: Vec<(String, String)>,
}

/// Reads a table and looks at every span.
pub fn gather(table: &Table, build: &str, images: Option<&Images>) -> anyhow::Result<Gathered> {
    let entries = table.entries(Some(build))?;
    let attempts = table.attempts(build)?.into_iter();
    let failures = attempts.filter_map(|attempt| Some((attempt.query, attempt.failure?))).collect();
    let release = entries.first().map(|entry| entry.image.release.clone());
    let release = release.or_else(|| images?.core.release().map(str::to_owned)).unwrap_or_default();
    let subjects = subjects(entries, images)?;
    Ok(Gathered { build_id: build.into(), release, subjects, failures })
}

/// Entries with their placements; each module is opened once.
fn subjects(entries: Vec<Entry>, images: Option<&Images>) -> Result<Vec<Subject>, ConstError> {
    let mut homes: BTreeMap<Option<String>, Vec<usize>> = BTreeMap::new();
    for (n, entry) in entries.iter().enumerate() {
        homes.entry(entry.image.module.clone()).or_default().push(n);
    }
    let mut known = vec![Found::default(); entries.len()];
    for (module, own) in homes {
        let opened = match (&module, images.and_then(|images| images.modules)) {
            (Some(module), Some(directory)) => open_module(directory, module)?,
            _ => None,
        };
        let image = if module.is_some() { opened.as_ref() } else { images.map(|images| images.core) };
        let found = in_parallel(own.len(), |n| looked_at(&entries[own[n]], image));
        own.into_iter().zip(found).for_each(|(n, found)| known[n] = found);
    }
    Ok(entries.into_iter().zip(known).map(|(entry, found)| Subject { entry, found }).collect())
}

fn looked_at(entry: &Entry, image: Option<&Image>) -> Found {
    if entry.class != Class::Proved {
        return Found::default();
    }
    let size = |span: &Span| function_size(image?, span);
    let functions = entry.spans.iter().map(size).collect();
    Found { placements: placements(entry, image), functions, compared: image.is_some() }
}

/// The instructions of the function that holds a span.
fn function_size(image: &Image, span: &Span) -> Option<u64> {
    let address = text_base(image).wrapping_add(span.function_offset);
    let size = image.function_at(address)?.size?;
    Some(instructions(&image.bytes(address, usize::try_from(size).ok()?)?))
}

/// How many instructions a piece of code has.
pub fn instructions(code: &[u8]) -> u64 {
    Decoder::new(64, code, DecoderOptions::NONE).into_iter().count() as u64
}
