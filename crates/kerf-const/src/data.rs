//! Constants that the compiler put into variables: which variable, and the knob that already sets it.

use std::collections::HashMap;
use std::path::Path;

use kerf_image::{Image, Symbol, SymbolKind};
use regex::Regex;

use crate::grep;

/// Variables of the base object whose bytes another value changes.
pub fn changed_variables(base: &Image, variant: &Image) -> Vec<String> {
    let other = variables(variant);
    let mut changed = Vec::new();
    for ((name, nth), symbol) in variables(base) {
        let Some(counterpart) = other.get(&(name, nth)) else { continue };
        if bytes(base, symbol) != bytes(variant, counterpart) {
            changed.push(name.to_string());
        }
    }
    if changed.is_empty() {
        changed.extend(changed_section(base, variant));
    }
    changed.sort();
    changed.dedup();
    changed
}

/// A section of constants or variables whose bytes differ although no named variable does: tables without a name.
fn changed_section(base: &Image, variant: &Image) -> Option<String> {
    let data = |name: &str| (name.starts_with(".rodata") || name.starts_with(".data")) && !name.contains(".str");
    base.sections().iter().enumerate().filter(|(_, s)| s.alloc && s.file_backed && data(&s.name)).find_map(
        |(index, section)| {
            let (other, counterpart) = variant.section_named(&section.name)?;
            let differs = counterpart.size == section.size && base.section_bytes(index) != variant.section_bytes(other);
            differs.then(|| format!("data without a name in {}", section.name))
        },
    )
}

/// The named variables of an object; those that share a name are told apart by their order.
fn variables(object: &Image) -> HashMap<(&str, usize), &Symbol> {
    let mut count: HashMap<&str, usize> = HashMap::new();
    let mut found = HashMap::new();
    for symbol in object.symbols() {
        let section = symbol.section.and_then(|s| object.sections().get(s));
        let stored = section.is_some_and(|s| s.alloc && s.file_backed && !s.exec);
        if symbol.kind == SymbolKind::Data && stored {
            let nth = count.entry(&symbol.name).or_default();
            found.insert((&*symbol.name, *nth), symbol);
            *nth += 1;
        }
    }
    found
}

fn bytes(object: &Image, symbol: &Symbol) -> Option<Vec<u8>> {
    object.bytes(symbol.address, symbol.size? as usize).map(|b| b.into_owned())
}

/// The knob that sets a variable, read from one of the units or from any other file that names the variable.
pub fn knob_in(tree: &Path, units: &[&str], variable: &str, module: &str) -> Option<String> {
    let read = |file: &str| grep::read_source(tree, file).ok();
    let own = units.iter().find_map(|unit| knob(&read(unit)?, variable, module));
    own.or_else(|| {
        let name = crate::deployed::without_number(variable);
        let files = grep::files_with_words(tree, &[name.to_string()]).ok()?;
        files.iter().filter(|file| !units.contains(&file.as_str())).find_map(|file| {
            let text = read(file).filter(|text| !has_namesake(text, name))?;
            knob(&text, name, file.rsplit('/').next()?.trim_end_matches(".c"))
        })
    })
}

/// Whether a file has a variable of its own of that name, which is another one than that of a file before.
pub fn has_namesake(source: &str, variable: &str) -> bool {
    let own = Regex::new(&format!(r"(?m)^[ \t]*static\b[^;=(\n]*\b{}\b", regex::escape(variable)));
    own.is_ok_and(|own| own.is_match(source))
}

/// The knob that sets a variable in one source file: a sysctl, a module parameter or a file in debugfs.
pub fn knob(source: &str, variable: &str, module: &str) -> Option<String> {
    find_knob(source, variable, module, "")
}

/// As [`knob`], and also where the variable is a member of something.
pub fn governing_knob(source: &str, variable: &str, module: &str) -> Option<String> {
    find_knob(source, variable, module, r"(?:\w+(?:\.|->))*")
}

/// `holder`: what may stand in front of the variable where its address is taken.
fn find_knob(source: &str, variable: &str, module: &str, holder: &str) -> Option<String> {
    let name = regex::escape(crate::deployed::without_number(variable));
    let parameter = [
        format!(r"(?s)module_param_named\s*\(\s*(\w+)\s*,\s*{name}\b"),
        format!(r"(?s)module_param(?:_call|_cb)?\s*\(\s*(\w+)\s*,[^;]*?&{name}\b"),
        format!(r"module_param(?:_unsafe|_hw)?\s*\(\s*({name})\s*,"),
        format!(r"core_param\s*\(\s*(\w+)\s*,\s*{name}\b"),
    ];
    for pattern in parameter {
        if let Some(c) = Regex::new(&pattern).ok().and_then(|r| r.captures(source)) {
            return Some(format!("/sys/module/{module}/parameters/{}", &c[1]));
        }
    }
    let table = format!(r#"(?s)\.procname\s*=\s*"([^"]+)"\s*,[^{{}}]*?\.data\s*=\s*&{holder}{name}\b"#);
    if let Some(found) = Regex::new(&table).ok()?.captures(source) {
        return Some(format!("the sysctl {}", &found[1]));
    }
    let file = format!(r#"debugfs_create_\w+\s*\(\s*"([^"]+)"[^;]*&{holder}{name}\b"#);
    let found = Regex::new(&file).ok()?.captures(source)?;
    Some(format!("the file {} in debugfs", &found[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knobs_are_read_from_the_source() {
        let source = "module_param_named(udp_slots, slots, uint, 0644);\nstatic struct ctl_table t[] = {\n{ .procname = \"max_depth\",\n .data = &depth, },\n{ .procname = \"other\", .data = &other } };\nmodule_param(plain, int, 0);";
        assert_eq!(knob(source, "slots", "m").unwrap(), "/sys/module/m/parameters/udp_slots");
        assert_eq!(knob(source, "depth.12", "m").unwrap(), "the sysctl max_depth");
        assert_eq!(knob(source, "plain", "m").unwrap(), "/sys/module/m/parameters/plain");
        assert_eq!(knob(source, "missing", "m"), None);
        let source = "debugfs_create_u32(\"slice_ns\", 0644, dir, &slice);\n";
        assert_eq!(knob(source, "slice", "m").unwrap(), "the file slice_ns in debugfs");
    }

    #[test]
    fn knobs_of_other_files_are_found_but_not_those_of_namesakes() {
        let tree = tempfile::tempdir().unwrap();
        let table = |first: &str| {
            format!("{first}\nstruct ctl_table t[] = {{ {{ .procname = \"depth\", .data = &depth }} }};\n")
        };
        std::fs::write(tree.path().join("own.c"), "int depth = 3;\n").unwrap();
        std::fs::write(tree.path().join("namesake.c"), table("static int depth = 4;")).unwrap();
        assert_eq!(knob_in(tree.path(), &["own.c"], "depth", "own"), None);
        std::fs::write(tree.path().join("sysctl.c"), table("extern int depth;")).unwrap();
        assert_eq!(knob_in(tree.path(), &["own.c"], "depth", "own").unwrap(), "the sysctl depth");
    }
}
