//! The tables of relocatable files: their fields are relocations, and the records' sizes follow from these.

use std::ops::Range;

use crate::error::Problem;
use crate::image::Image;
use crate::model::{Relocation, Section};
use crate::patch::{PatchKind, PatchSites};
use crate::patch_tables::{Collector, RUNTIME_CONSTS, Record, TABLES, Table};

/// Where the length of a paravirtual site has always been: behind the address and the type's byte.
const PARAVIRT_LEN: u64 = 9;

/// The first byte of `struct alt_instr` that is not one of its two distances.
const ALT_FIELDS: u64 = 8;

/// Reads all tables of a relocatable file.
pub(crate) fn collect(image: &Image) -> Result<PatchSites, Problem> {
    let mut collector = Collector::new(image);
    for (index, section) in image.sections().iter().enumerate().filter(|(_, section)| section.alloc && section.size > 0)
    {
        if let Some(table) = TABLES.iter().find(|table| table.section == section.name) {
            read(image, &mut collector, table, index, section)?;
        }
        if let Some(&(prefix, len)) = RUNTIME_CONSTS.iter().find(|(prefix, _)| section.name.starts_with(prefix)) {
            let table = Table::distances(PatchKind::RuntimeConst, prefix, ("", ""));
            collector.fixed_len = Some(len);
            read(image, &mut collector, &table, index, section)?;
            collector.fixed_len = None;
        }
    }
    collector.trampolines();
    collector.finish()
}

fn read(
    image: &Image,
    collector: &mut Collector<'_>,
    table: &Table,
    index: usize,
    section: &Section,
) -> Result<(), Problem> {
    let relocations = image.relocations(index);
    let per_record = match table.record {
        Record::Distance | Record::Address | Record::AddressStruct { .. } => 1,
        Record::Struct { relocated, .. } => relocated,
    };
    let starts = records(section, relocations, per_record)?;
    let len_at = match table.record {
        Record::AddressStruct { .. } => Some(PARAVIRT_LEN),
        Record::Struct { len: Some(_), .. } => match alternative_len(image, &starts) {
            Some(offset) => Some(offset),
            None => {
                let reason = "the place of the length in its records does not follow from the replacements' lengths";
                collector.missing(table, reason.into());
                return Ok(());
            }
        },
        _ => None,
    };
    let sites = starts.iter().filter_map(|record| {
        let len = len_at.and_then(|offset| byte(image, record.range.start + offset)).map(u32::from);
        Some((record.site.value()?, len))
    });
    collector.add(table, sites.collect())
}

/// One record: where it is, and its relocations; the first is the site.
struct RelocatedRecord<'a> {
    range: Range<u64>,
    site: &'a Relocation,
    fields: &'a [Relocation],
}

/// Cuts a table into records with `per_record` relocations each, and checks that these lie at the same places in all.
fn records<'a>(
    section: &Section,
    relocations: &'a [Relocation],
    per_record: usize,
) -> Result<Vec<RelocatedRecord<'a>>, Problem> {
    let fail = |why: String| Problem::malformed(format!("section {}", section.name), why);
    let chunks = relocations.chunks_exact(per_record);
    let count = chunks.len() as u64;
    if !chunks.remainder().is_empty() || count == 0 || !section.size.is_multiple_of(count) {
        return Err(fail(format!(
            "{} relocations, {per_record} a record, do not divide its {} bytes into records",
            relocations.len(),
            section.size
        )));
    }
    let size = section.size / count;
    let mut records = Vec::with_capacity(chunks.len());
    let mut places: Option<Vec<u64>> = None;
    for (number, fields) in (0u64..).zip(chunks) {
        let start = section.address + number * size;
        let here: Vec<u64> = fields.iter().map(|field| field.address.wrapping_sub(start)).collect();
        if here.iter().any(|&offset| offset >= size) || places.as_ref().is_some_and(|places| *places != here) {
            return Err(fail(format!("the relocations of record {number} lie elsewhere than those of the others")));
        }
        places = Some(here);
        let Some(site) = fields.first() else { continue };
        records.push(RelocatedRecord { range: start..start + size, site, fields });
    }
    Ok(records)
}

/// Where `struct alt_instr` has the length of the site.
///
/// The structure grew and moved its members over the years. The length of the replacement comes right after that of
/// the site, and it is known without the structure: replacements lie one behind the other, so each reaches to the
/// next. The offset whose bytes agree with most of these distances is the one.
fn alternative_len(image: &Image, records: &[RelocatedRecord<'_>]) -> Option<u64> {
    let replacement = |record: &RelocatedRecord<'_>| record.fields.get(1)?.value();
    let size = records.first().map(|record| record.range.end - record.range.start)?;
    let distances: Vec<(u64, u64)> = records
        .iter()
        .enumerate()
        .filter_map(|(number, record)| {
            let start = replacement(record)?;
            let section_end = image.section_at(start).map_or(start, |(_, section)| section.end());
            let next = records.get(number + 1).and_then(replacement);
            // Records of other sections, and shared replacements, say nothing.
            let end = next.filter(|next| (start..=section_end).contains(next)).unwrap_or(section_end);
            Some((record.range.start, end - start))
        })
        .collect();
    let agreement = |offset: u64| {
        distances.iter().filter(|(start, len)| byte(image, start + offset).map(u64::from) == Some(*len)).count()
    };
    let best = (ALT_FIELDS + 1..size).max_by_key(|&offset| (agreement(offset), offset))?;
    (agreement(best) * 2 > distances.len()).then_some(best - 1)
}

fn byte(image: &Image, address: u64) -> Option<u8> {
    image.bytes(address, 1)?.first().copied()
}
