//! Entries as a file that travels from one machine to another with the same build.

use std::collections::BTreeMap;
use std::path::Path;

use kerf_image::Image;
use serde::{Deserialize, Serialize};

use crate::apply::{self, Choice, Running, Setting};
use crate::build::text_base;
use crate::entry::{Class, Entry, from_hex};
use crate::error::ConstError;
use crate::table::digest;

/// What the file says it is.
const SCHEMA: &str = "kerf-scope";
/// The version of the file's format.
const VERSION: u32 = 1;

/// The file: entries of one build.
#[derive(Debug, Serialize, Deserialize)]
struct Export {
    schema: String,
    version: u32,
    build_id: String,
    release: String,
    entries: Vec<Row>,
}

/// An entry as text, with its checksum.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    sha256: String,
    entry: Entry,
}

fn row(entry: &Entry) -> Result<Row, ConstError> {
    Ok(Row { sha256: checksum(entry)?, entry: entry.clone() })
}

fn checksum(entry: &Entry) -> Result<String, ConstError> {
    serde_json::to_string(entry).map(|text| digest(&text)).map_err(|e| ConstError::Internal(e.to_string()))
}

/// The file's text for the entries of one build.
///
/// # Errors
/// If entries of several builds are given.
pub fn export(build_id: &str, entries: &[Entry]) -> Result<String, ConstError> {
    if let Some(other) = entries.iter().find(|e| e.image.build_id != build_id) {
        return Err(ConstError::Internal(format!("{} is of build {}", other.id, other.image.build_id)));
    }
    let release = entries.first().map(|e| e.image.release.clone()).unwrap_or_default();
    let rows = entries.iter().map(row).collect::<Result<_, _>>()?;
    let file = Export { schema: SCHEMA.into(), version: VERSION, build_id: build_id.into(), release, entries: rows };
    serde_json::to_string_pretty(&file).map_err(|e| ConstError::Internal(e.to_string()))
}

/// Reads what [`export`] wrote, and checks every entry: by itself, and against its image if `image` is the one.
///
/// # Errors
/// [`ConstError::Table`] if the file is none, [`ConstError::Damaged`] with the first entry that is not what it says.
pub fn import(path: &Path, text: &str, image: Option<&Image>) -> Result<Vec<Entry>, ConstError> {
    let refuse = |why: String| ConstError::Table { path: path.into(), why };
    let file: serde_json::Value =
        serde_json::from_str(text).map_err(|e| refuse(format!("it is no JSON ({e}): export it again")))?;
    if file.get("schema").and_then(|s| s.as_str()) != Some(SCHEMA) {
        return Err(refuse(format!("it is no export of a scope table: its schema is not `{SCHEMA}`")));
    }
    let version = file.get("version").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if version != u64::from(VERSION) {
        return Err(refuse(format!("it has format {version}, this program reads {VERSION}: export it again")));
    }
    let file: Export = serde_json::from_str(text).map_err(|e| refuse(format!("{e}: export it again")))?;
    for Row { sha256, entry } in &file.entries {
        let damaged =
            |why: &str| ConstError::Damaged { id: entry.id.clone(), why: format!("in {}: {why}", path.display()) };
        if checksum(entry)? != *sha256 {
            return Err(damaged("it does not have the checksum that was stored with it"));
        }
        if entry.image.build_id != file.build_id {
            return Err(damaged("it is of another build than the file says"));
        }
        validate(entry)?;
        let own = image.filter(|i| i.build_id().is_some_and(|b| b.to_string() == file.build_id));
        if let Some(image) = own {
            compare(entry, image)?;
        }
    }
    Ok(file.entries.into_iter().map(|row| row.entry).collect())
}

/// How many entries each build has, for what an import says.
pub fn count(entries: &[Entry]) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for entry in entries {
        *counts.entry((entry.image.build_id.clone(), entry.image.release.clone())).or_insert(0) += 1;
    }
    counts
}

/// Checks that an entry does not contradict itself: bytes, offsets, numbers, forms and domain fit together.
///
/// # Errors
/// [`ConstError::Damaged`] with the first contradiction.
pub fn validate(entry: &Entry) -> Result<(), ConstError> {
    let damaged = |why: String| ConstError::Damaged { id: entry.label().into(), why };
    if entry.image.build_id.parse::<kerf_live::BuildId>().is_err() {
        return Err(damaged(format!("`{}` is no build id", entry.image.build_id)));
    }
    if let Some(bad) = entry.domain.iter().find(|i| i.min > i.max) {
        return Err(damaged(format!("its domain has the empty interval {}..{}", bad.min, bad.max)));
    }
    if entry.class != Class::Proved {
        return Ok(());
    }
    if entry.spans.is_empty() || !entry.certifies(entry.value) {
        return Err(damaged("it is proved but has no span, or its domain lacks the deployed value".into()));
    }
    check_safe_spans(entry).map_err(damaged)?;
    if entry.image.module.is_some() {
        // The bytes that a module has in memory are known only where it is loaded.
        return Ok(());
    }
    // Setting the stock value goes through every check of a set.
    let stock = Setting::Value(entry.value);
    let live = apply::live_entry(entry, stock, Choice::Cheapest, &Running::default())?;
    if live.locations.is_empty() { Err(damaged("it has no location".into())) } else { Ok(()) }
}

/// What a switch relies on: ranges in order, an entry outside of them, and a safe span for each critical span.
fn check_safe_spans(entry: &Entry) -> Result<(), String> {
    for span in &entry.safe_spans {
        let damaged = |why: &str| Err(format!("its safe span in {} {why}", span.function));
        let in_order = span.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0);
        if !in_order || span.ranges.iter().any(|(start, end)| start >= end) {
            return damaged("has ranges that are empty, overlap or are not in order");
        }
        if span.ranges.iter().any(|(start, end)| (*start..*end).contains(&span.entry)) {
            return damaged("is entered in the middle of its ranges");
        }
        if span.critical.iter().any(|n| *n >= entry.spans.len()) {
            return damaged("belongs to a critical span that is not there");
        }
        if !span.frames.is_empty() && span.frames.len() != span.critical.len() {
            return damaged("has frames for another number of critical spans than it has");
        }
    }
    let uncovered = |n: &usize| !entry.safe_spans.iter().any(|span| span.critical.contains(n));
    match (0..entry.spans.len()).find(uncovered) {
        Some(n) => Err(format!("its critical span in {} has no safe span", entry.spans[n].function)),
        None => Ok(()),
    }
}

/// Checks that an image holds the bytes that an entry says.
///
/// # Errors
/// [`ConstError::Damaged`] with the span that differs.
pub fn compare(entry: &Entry, image: &Image) -> Result<(), ConstError> {
    if entry.image.module.is_some() {
        return Ok(());
    }
    let base = text_base(image);
    for span in &entry.spans {
        for (start, hex) in [(span.start, &span.bytes), (span.window.start, &span.window.bytes)] {
            let Some(bytes) = from_hex(hex) else { continue };
            let place = base.checked_add(span.function_offset).and_then(|a| a.checked_add(start));
            let deployed = place.and_then(|address| image.bytes(address, bytes.len()));
            if deployed.as_deref() != Some(&bytes) {
                let why = format!("{}+{start:#x}: the image has other bytes", span.function);
                return Err(ConstError::Damaged { id: entry.label().into(), why });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
