//! Which translation units can see a site: found by words, through macros and inline functions, before anything is compiled.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use crate::error::ConstError;
use crate::grep;
use crate::site::Site;
use crate::tree::{Destination, Tree};

/// A unit that may use a site, and where its code goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The `.c` file relative to the tree.
    pub unit: String,
    /// The image that it is linked into.
    pub destination: Destination,
}

/// A word that more files use than this is followed no further: it names a mechanism, not the constant.
const MOST_FILES: usize = 3000;

/// How often names are followed through other names.
const MOST_ROUNDS: usize = 6;

/// The units whose code may use the site and that the configuration builds, sorted by name.
///
/// A site in a `.c` file belongs to that unit (or those that include it). For a header, the names that carry the value
/// are collected: the constant's own, then every macro and inline function of a header that mentions one of them.
pub fn candidates(tree: &Tree, site: &Site) -> Result<Vec<Candidate>, ConstError> {
    let units: BTreeSet<String> = if site.file.ends_with(".c") {
        tree.units_of_file(&site.file)?.into_iter().collect()
    } else {
        header_units(tree, site)?
    };
    let mut found: Vec<Candidate> = units
        .into_iter()
        .map(|unit| Candidate { destination: tree.destination(&unit), unit })
        .filter(|c| c.destination != Destination::Nowhere)
        .collect();
    found.sort_by(|a, b| a.unit.cmp(&b.unit));
    Ok(found)
}

fn header_units(tree: &Tree, site: &Site) -> Result<BTreeSet<String>, ConstError> {
    let text = grep::read_source(tree.root(), &site.file)?;
    let mut carriers: BTreeSet<String> = BTreeSet::new();
    match &site.name {
        Some(name) => {
            carriers.insert(name.clone());
        }
        None => carriers.extend(Definitions::new(&text).around(site.range.start)),
    }
    let mut contents: BTreeMap<String, String> = BTreeMap::new();
    let mut searched: BTreeSet<String> = BTreeSet::new();
    for _ in 0..MOST_ROUNDS {
        let new: Vec<String> = carriers.difference(&searched).cloned().collect();
        if new.is_empty() {
            break;
        }
        for file in grep::files_with_words(tree.root(), &new)? {
            if let Entry::Vacant(place) = contents.entry(file) {
                let text = grep::read_source(tree.root(), place.key())?;
                place.insert(text);
            }
        }
        searched.extend(new.iter().cloned());
        if contents.len() > MOST_FILES {
            break;
        }
        let word = words(&new)?;
        for (_, text) in contents.iter().filter(|(f, _)| f.ends_with(".h")) {
            let definitions = Definitions::new(text);
            for found in word.find_iter(text) {
                carriers.extend(definitions.around(found.start()));
            }
        }
    }
    let word = words(&searched.into_iter().collect::<Vec<_>>())?;
    let mut units = BTreeSet::new();
    for (file, text) in &contents {
        if file.ends_with(".c") && word.is_match(text) {
            units.extend(tree.units_of_file(file)?);
        }
    }
    Ok(units)
}

fn words(names: &[String]) -> Result<Regex, ConstError> {
    let any: Vec<String> = names.iter().map(|n| regex::escape(n)).collect();
    Regex::new(&format!(r"\b(?:{})\b", any.join("|"))).map_err(|e| ConstError::Internal(e.to_string()))
}

/// The macros, functions and enum members of a header, by the bytes they cover.
struct Definitions {
    spans: Vec<(std::ops::Range<usize>, String)>,
}

impl Definitions {
    fn new(text: &str) -> Definitions {
        let mut spans = Vec::new();
        if let Ok(define) = Regex::new(r"(?m)^[ \t]*#[ \t]*define[ \t]+(\w+)(?:[^\n\\]|\\\r?\n|\\.)*") {
            for c in define.captures_iter(text) {
                if let (Some(whole), Some(name)) = (c.get(0), c.get(1)) {
                    spans.push((whole.range(), name.as_str().to_string()));
                }
            }
        }
        // A function of kernel style: its name before the parameters, its body from `{` to a `}` in the first column.
        if let Ok(function) = Regex::new(r"(?m)^[A-Za-z_][^;{}#=]*?\b(\w+)\s*\([^;{}]*\)[^;{}()]*\{") {
            for c in function.captures_iter(text) {
                let (Some(head), Some(name)) = (c.get(0), c.get(1)) else { continue };
                let length = text[head.end()..].find("\n}").unwrap_or(text.len() - head.end());
                spans.push((head.start()..head.end() + length, name.as_str().to_string()));
            }
        }
        // Enum members carry the value under their own name.
        if let Ok(member) = Regex::new(r"(?m)^[ \t]+([A-Z]\w*)[ \t]*=[^=\n][^,\n]*") {
            for c in member.captures_iter(text) {
                if let (Some(whole), Some(name)) = (c.get(0), c.get(1)) {
                    spans.push((whole.range(), name.as_str().to_string()));
                }
            }
        }
        Definitions { spans }
    }

    /// Names whose definition covers a byte.
    fn around(&self, at: usize) -> impl Iterator<Item = String> {
        self.spans.iter().filter(move |(range, _)| range.contains(&at)).map(|(_, name)| name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macros_and_inline_functions_carry_a_value_on() {
        let text = "#define A 3\n#define B(x) \\\n\t((x) + A)\nstatic inline int f(struct s *p,\n\t\t    int y)\n{\n\tint z = y;\n\treturn z * A;\n}\nextern int g(void);\nenum {\n\tC = A + 1,\n};\n";
        let definitions = Definitions::new(text);
        let carried: BTreeSet<String> = Regex::new(r"\bA\b")
            .unwrap()
            .find_iter(text)
            .flat_map(|m| definitions.around(m.start()).collect::<Vec<_>>())
            .collect();
        assert_eq!(carried.into_iter().collect::<Vec<_>>(), ["A", "B", "C", "f"]);
    }
}
