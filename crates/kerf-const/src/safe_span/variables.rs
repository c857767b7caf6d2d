//! Which registers hold pointers of the source's variables, and to what: from the debug information of compiled units. Of variables in
//! functions that were inlined too, which the kernel's own types do not tell.

use std::collections::BTreeMap;

use gimli::{AttributeValue, DebuggingInformationEntry, Operation, UnitOffset};

use crate::dwarf::{Sections, Slice, malformed};
use crate::error::ConstError;

/// Hardware numbers of DWARF's general registers.
const REGISTERS: [usize; 16] = [0, 2, 1, 3, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];

type Entry<'a> = DebuggingInformationEntry<Slice<'a>>;

/// A register that holds a pointer to a structure, for a range of offsets in a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// First offset, and the one behind the last.
    pub range: (u64, u64),
    /// The register's number in encodings.
    pub register: usize,
    /// The structure's name.
    pub composite: String,
}

/// Pointers in the registers of functions. Functions are told by name and size in bytes, since local names are often shared.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    functions: BTreeMap<String, Vec<(u64, Vec<Located>)>>,
}

/// An image without sizes counts what is between two functions to the first: padding, and room in front of the second.
const MOST_PADDING: u64 = 64;

impl Variables {
    /// Of one function, whose size in the image this is.
    pub fn of(&self, function: &str, size: u64) -> &[Located] {
        let fits = |own: u64| (own..own + MOST_PADDING).contains(&size);
        let known = self.functions.get(function).into_iter().flatten().find(|(own, _)| fits(*own));
        known.map_or(&[], |(_, places)| places.as_slice())
    }

    /// Takes in what the debug information of a compiled unit says.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn read(&mut self, object: &[u8]) -> Result<(), ConstError> {
        let sections = Sections::of(object)?;
        let dwarf = sections.dwarf()?;
        let mut units = dwarf.units();
        while let Some(header) = units.next().map_err(malformed)? {
            let unit = dwarf.unit(header).map_err(malformed)?;
            let reader = Reader { dwarf: &dwarf, unit: &unit };
            let mut entries = unit.entries();
            let mut functions = Vec::new();
            while let Some(entry) = entries.next_dfs().map_err(malformed)? {
                if entry.tag() == gimli::DW_TAG_subprogram {
                    functions.push(entry.offset());
                }
            }
            for function in functions {
                if let Some((name, size, places)) = reader.function(&sections, function)? {
                    self.functions.entry(name).or_default().push((size, places));
                }
            }
        }
        Ok(())
    }
}

struct Reader<'a, 'b> {
    dwarf: &'b gimli::Dwarf<Slice<'a>>,
    unit: &'b gimli::Unit<Slice<'a>>,
}

impl<'a> Reader<'a, '_> {
    /// The pointers of a function that has code.
    fn function(
        &self,
        sections: &Sections,
        offset: UnitOffset,
    ) -> Result<Option<(String, u64, Vec<Located>)>, ConstError> {
        let entry = self.unit.entry(offset).map_err(malformed)?;
        let mut ranges = self.dwarf.die_ranges(self.unit, &entry).map_err(malformed)?;
        let mut main = None;
        while let Some(range) = ranges.next().map_err(malformed)? {
            let named = sections.function_at(range.begin).filter(|name| !name.ends_with(".cold"));
            main = main.or(named.map(|name| (name.to_owned(), range.begin, range.end)));
        }
        let Some((name, start, end)) = main.filter(|(_, start, end)| end > start) else { return Ok(None) };
        let mut found = Vec::new();
        let mut tree = self.unit.entries_tree(Some(offset)).map_err(malformed)?;
        self.descend(tree.root().map_err(malformed)?, (start, end), &mut found)?;
        Ok(Some((name, end - start, found)))
    }

    fn descend(
        &self,
        node: gimli::EntriesTreeNode<Slice<'a>>,
        function: (u64, u64),
        found: &mut Vec<Located>,
    ) -> Result<(), ConstError> {
        let mut children = node.children();
        while let Some(child) = children.next().map_err(malformed)? {
            if matches!(child.entry().tag(), gimli::DW_TAG_variable | gimli::DW_TAG_formal_parameter)
                && let Some(composite) = self.pointee(child.entry())
            {
                self.places(child.entry(), function, &composite, found)?;
            }
            self.descend(child, function, found)?;
        }
        Ok(())
    }

    /// The name of the structure that a variable points to.
    fn pointee(&self, entry: &Entry<'a>) -> Option<String> {
        let origin = match entry.attr_value(gimli::DW_AT_abstract_origin) {
            Some(AttributeValue::UnitRef(offset)) => self.unit.entry(offset).ok(),
            _ => None,
        };
        let attribute = entry.attr_value(gimli::DW_AT_type);
        let pointer = self.plain(attribute.or_else(|| origin?.attr_value(gimli::DW_AT_type))?)?;
        if pointer.tag() != gimli::DW_TAG_pointer_type {
            return None;
        }
        let target = self.plain(pointer.attr_value(gimli::DW_AT_type)?)?;
        if !matches!(target.tag(), gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type) {
            return None;
        }
        let name = self.dwarf.attr_string(self.unit, target.attr_value(gimli::DW_AT_name)?).ok()?;
        Some(name.to_string_lossy().into_owned())
    }

    /// A type without the names and qualifiers in front of it.
    fn plain(&self, value: AttributeValue<Slice<'a>>) -> Option<Entry<'a>> {
        let mut value = value;
        for _ in 0..8 {
            let AttributeValue::UnitRef(offset) = value else { return None };
            let entry = self.unit.entry(offset).ok()?;
            match entry.tag() {
                gimli::DW_TAG_typedef | gimli::DW_TAG_const_type | gimli::DW_TAG_volatile_type => {
                    value = entry.attr_value(gimli::DW_AT_type)?;
                }
                _ => return Some(entry),
            }
        }
        None
    }

    fn places(
        &self,
        entry: &Entry<'a>,
        function: (u64, u64),
        composite: &str,
        found: &mut Vec<Located>,
    ) -> Result<(), ConstError> {
        let Some(value) = entry.attr_value(gimli::DW_AT_location) else { return Ok(()) };
        let Some(mut list) = self.dwarf.attr_locations(self.unit, value).map_err(malformed)? else { return Ok(()) };
        while let Some(place) = list.next().map_err(malformed)? {
            let (begin, end) = (place.range.begin.max(function.0), place.range.end.min(function.1));
            if begin < end
                && let Some(register) = self.register(place.data)?
            {
                let range = (begin - function.0, end - function.0);
                found.push(Located { range, register, composite: composite.to_owned() });
            }
        }
        Ok(())
    }

    fn register(&self, expression: gimli::Expression<Slice<'a>>) -> Result<Option<usize>, ConstError> {
        let mut operations = expression.operations(self.unit.encoding());
        let mut parsed = Vec::new();
        while let Some(operation) = operations.next().map_err(malformed)? {
            parsed.push(operation);
        }
        let register = match parsed.as_slice() {
            [Operation::Register { register }] => register.0,
            [Operation::RegisterOffset { register, offset: 0, .. }, Operation::StackValue] => register.0,
            _ => return Ok(None),
        };
        Ok(REGISTERS.get(usize::from(register)).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn compiled(text: &str) -> Variables {
        let dir = tempfile::tempdir().unwrap();
        let (c, o) = (dir.path().join("a.c"), dir.path().join("a.o"));
        std::fs::write(&c, text).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.args(["-g", "-O2", "-fcf-protection=none", "-c", "-o"]).arg(&o).arg(&c);
        assert!(gcc.status().unwrap().success());
        let mut variables = Variables::default();
        variables.read(&std::fs::read(o).unwrap()).unwrap();
        variables
    }

    #[test]
    fn pointers_of_inlined_functions_are_found_in_registers() {
        let variables = compiled(
            "struct item { int n, m; }; typedef struct item item_t; struct item *get(void); void put(int);
             static inline void set(const item_t *into, int n) { put(into->n + n); }
             int whole(int n) { item_t *own = get(); put(1); set(own, n); put(2); return own->m; }",
        );
        let size = variables.functions["whole"][0].0;
        let places = variables.of("whole", size + 15);
        assert!(variables.of("whole", size - 1).is_empty() && variables.of("hole", size).is_empty());
        assert!(places.iter().all(|place| place.composite == "item"), "{places:?}");
        // Kept over the calls in a register that they keep.
        let kept = places.iter().find(|place| [3, 5, 12, 13, 14, 15].contains(&place.register)).unwrap();
        assert!(kept.range.1 - kept.range.0 > 10, "{places:?}");
    }
}
