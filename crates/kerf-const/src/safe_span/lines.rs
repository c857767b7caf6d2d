//! Lines of the source for the instructions of slices, from the debug information of a compiled unit.

use crate::dwarf::{Sections, malformed};
use crate::entry::SafeSpan;
use crate::error::ConstError;

/// A row of the line table: address, file and line.
struct Row {
    address: u64,
    place: String,
    /// Behind the last instruction of a sequence.
    end: bool,
}

/// Fills in the lines of steps that lie in functions of a unit, compiled with debug information as `object`.
///
/// # Errors
/// If the debug information is malformed.
pub fn fill(spans: &mut [SafeSpan], object: &[u8]) -> Result<(), ConstError> {
    let sections = Sections::of(object)?;
    let mut rows = None;
    for step in spans.iter_mut().flat_map(|span| &mut span.slice).filter(|step| step.line.is_empty()) {
        let Some((function, offset)) = step.place.rsplit_once("+0x") else { continue };
        let (Some(start), Ok(offset)) = (sections.function(function), u64::from_str_radix(offset, 16)) else {
            continue;
        };
        if rows.is_none() {
            rows = Some(read(&sections)?);
        }
        let rows: &[Row] = rows.as_deref().unwrap_or_default();
        let last = rows.partition_point(|row| row.address <= start + offset).checked_sub(1).and_then(|n| rows.get(n));
        if let Some(row) = last.filter(|row| !row.end) {
            step.line.clone_from(&row.place);
        }
    }
    Ok(())
}

fn read(sections: &Sections) -> Result<Vec<Row>, ConstError> {
    let dwarf = sections.dwarf()?;
    let mut rows = Vec::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next().map_err(malformed)? {
        let unit = dwarf.unit(header).map_err(malformed)?;
        let Some(program) = unit.line_program.clone() else { continue };
        let mut state = program.rows();
        while let Some((header, row)) = state.next_row().map_err(malformed)? {
            let line = row.line().map_or(0, |line| line.get());
            // A statement's first instruction counts, and those that carry no line belong to the one before.
            if line == 0 && !row.end_sequence() {
                continue;
            }
            let file = row.file(header).map(|file| dwarf.attr_string(&unit, file.path_name()).map_err(malformed));
            let file = file.transpose()?.map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            rows.push(Row {
                address: row.address(),
                place: format!("{}:{line}", shortened(&file)),
                end: row.end_sequence(),
            });
        }
    }
    rows.sort_by_key(|row| (row.address, !row.end));
    Ok(rows)
}

/// A path as the kernel's own tree has it.
fn shortened(path: &str) -> &str {
    path.strip_prefix("./").unwrap_or(path)
}
