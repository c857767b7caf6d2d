//! Constants that the compiler put into variables: which variable, and the knob that already sets it.

use std::collections::HashMap;

use kerf_image::{Image, Symbol, SymbolKind};
use regex::Regex;

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

/// The knob that sets a variable, read from the source that defines it: a sysctl or a module parameter.
pub fn knob(source: &str, variable: &str, module: &str) -> Option<String> {
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
    let table = format!(r#"(?s)\.procname\s*=\s*"([^"]+)"\s*,[^{{}}]*?\.data\s*=\s*&{name}\b"#);
    let found = Regex::new(&table).ok()?.captures(source)?;
    Some(format!("the sysctl {}", &found[1]))
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
    }
}
