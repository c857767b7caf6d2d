//! Constants that decide the size or layout of a type: seen by comparing the debug information of two variants.

use gimli::{AttributeValue, Reader};

use crate::dwarf::{Sections, malformed};
use crate::error::ConstError;

/// One type or member, in the order of the debug information.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    tag: gimli::DwTag,
    name: Option<String>,
    numbers: [Option<u64>; 4],
}

/// The first type whose size, element count or member offsets differ between two objects with debug information, in
/// words; `None` if none does.
pub fn changed_type(base: &[u8], variant: &[u8]) -> Result<Option<String>, ConstError> {
    let (before, after) = (shapes(base)?, shapes(variant)?);
    let mut scope = String::from("a type");
    for (old, new) in before.iter().zip(&after) {
        if old.tag != new.tag || old.name != new.name {
            // The order of the information changed with the code: what came before was equal.
            return Ok(None);
        }
        if let Some(name) = &old.name
            && old.tag != gimli::DW_TAG_member
        {
            scope = format!("{} {name}", word(old.tag));
        }
        if old.numbers != new.numbers {
            let what = match old.tag {
                gimli::DW_TAG_subrange_type => "the element count of an array",
                gimli::DW_TAG_member => "the place of a member",
                _ => "the size",
            };
            let pair = old.numbers.iter().zip(&new.numbers).find(|(a, b)| a != b);
            let shown = pair.map_or(String::new(), |(a, b)| format!(" ({} → {})", show(*a), show(*b)));
            let member = old
                .name
                .as_deref()
                .filter(|_| old.tag == gimli::DW_TAG_member)
                .map(|n| format!(" {n}"))
                .unwrap_or_default();
            return Ok(Some(format!("{what}{member} in or near {scope}{shown}")));
        }
    }
    Ok(None)
}

fn show(number: Option<u64>) -> String {
    number.map_or("none".into(), |n| n.to_string())
}

fn word(tag: gimli::DwTag) -> &'static str {
    match tag {
        gimli::DW_TAG_structure_type => "struct",
        gimli::DW_TAG_union_type => "union",
        gimli::DW_TAG_variable => "variable",
        _ => "type",
    }
}

fn shapes(object: &[u8]) -> Result<Vec<Shape>, ConstError> {
    let sections = Sections::of(object)?;
    let dwarf = sections.dwarf()?;
    let mut found = Vec::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next().map_err(malformed)? {
        let unit = dwarf.unit(header).map_err(malformed)?;
        let mut entries = unit.entries();
        while let Some(entry) = entries.next_dfs().map_err(malformed)? {
            let kept = matches!(
                entry.tag(),
                gimli::DW_TAG_structure_type
                    | gimli::DW_TAG_union_type
                    | gimli::DW_TAG_member
                    | gimli::DW_TAG_subrange_type
                    | gimli::DW_TAG_typedef
            );
            if !kept {
                continue;
            }
            let number = |at| entry.attr_value(at).and_then(|v| number(&v));
            let name = entry
                .attr_value(gimli::DW_AT_name)
                .and_then(|v| dwarf.attr_string(&unit, v).ok())
                .map(|s| s.to_string_lossy().into_owned());
            let numbers = [
                number(gimli::DW_AT_byte_size),
                number(gimli::DW_AT_upper_bound),
                number(gimli::DW_AT_data_member_location),
                number(gimli::DW_AT_bit_size),
            ];
            found.push(Shape { tag: entry.tag(), name, numbers });
        }
    }
    Ok(found)
}

fn number<R: Reader>(value: &AttributeValue<R>) -> Option<u64> {
    value.udata_value().or_else(|| value.sdata_value().map(|v| v as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn object(text: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let (c, o) = (dir.path().join("a.c"), dir.path().join("a.o"));
        std::fs::write(&c, text).unwrap();
        assert!(Command::new("gcc").args(["-g", "-O2", "-c", "-o"]).arg(&o).arg(&c).status().unwrap().success());
        std::fs::read(o).unwrap()
    }

    #[test]
    fn array_sizes_and_padding_are_seen_and_values_are_not() {
        let unit = |n: u32, limit: u32| {
            format!("struct batch {{ int n; void *slot[{n}]; }}; int f(struct batch *b) {{ return b->n > {limit}; }}")
        };
        let base = object(&unit(15, 7));
        assert_eq!(changed_type(&base, &object(&unit(15, 9))).unwrap(), None);
        let changed = changed_type(&base, &object(&unit(31, 7))).unwrap().unwrap();
        assert!(changed.contains("struct batch"), "{changed}");
    }

    #[test]
    fn foreign_bytes_are_an_error() {
        assert!(changed_type(b"no object", b"no object").is_err());
    }
}
