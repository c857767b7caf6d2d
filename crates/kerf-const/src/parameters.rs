//! Where a function's arguments are at a place in its code, as the compiler's debug information says.

use gimli::{AttributeValue, DebuggingInformationEntry, Operation, UnitOffset, UnwindSection};

use crate::dwarf::{Sections, Slice, malformed};
use crate::entry::{Parameter, Place, SafeSpan, Span};
use crate::error::ConstError;
use crate::liveness::GENERAL;

/// DWARF's numbers of the general registers differ from the hardware's in the first eight.
const REGISTERS: [&str; 16] =
    ["rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
const RSP: u16 = 7;

type Entry<'a> = DebuggingInformationEntry<Slice<'a>>;

/// Fills in the parameters of spans whose unit was compiled with debug information as `object`.
///
/// # Errors
/// If the debug information is malformed.
pub fn fill(spans: &mut [Span], unit: &str, object: &[u8]) -> Result<(), ConstError> {
    let sections = Sections::of(object)?;
    let dwarf = sections.dwarf()?;
    for span in spans.iter_mut().filter(|span| span.unit == unit) {
        let Some(start) = sections.function(&span.function) else { continue };
        let at = start + if span.window.bytes.is_empty() { span.start } else { span.window.start };
        let place = At { sections: &sections, dwarf: &dwarf, start, at };
        span.parameters = place.parameters()?;
    }
    Ok(())
}

/// Fills in the parameters where executions of safe spans begin, in functions of a unit compiled with debug information as `object`.
///
/// # Errors
/// If the debug information is malformed.
pub fn fill_begins(spans: &mut [SafeSpan], object: &[u8]) -> Result<(), ConstError> {
    let sections = Sections::of(object)?;
    let dwarf = sections.dwarf()?;
    for span in spans {
        let Some(begin) = span.begin.as_mut().filter(|begin| begin.parameters.is_empty()) else { continue };
        let Some(start) = sections.function(&span.function) else { continue };
        begin.parameters =
            At { sections: &sections, dwarf: &dwarf, start, at: start + begin.window.start }.parameters()?;
    }
    Ok(())
}

struct At<'a> {
    sections: &'a Sections,
    dwarf: &'a gimli::Dwarf<Slice<'a>>,
    /// Of the function.
    start: u64,
    /// The place in question.
    at: u64,
}

impl<'a> At<'a> {
    fn parameters(&self) -> Result<Vec<Parameter>, ConstError> {
        let mut units = self.dwarf.units();
        while let Some(header) = units.next().map_err(malformed)? {
            let unit = self.dwarf.unit(header).map_err(malformed)?;
            if let Some(function) = self.function(&unit)? {
                return self.of_function(&unit, function);
            }
        }
        Ok(Vec::new())
    }

    /// The entry of the function that begins where ours does.
    fn function(&self, unit: &gimli::Unit<Slice<'a>>) -> Result<Option<UnitOffset>, ConstError> {
        let mut entries = unit.entries();
        while let Some(entry) = entries.next_dfs().map_err(malformed)? {
            if entry.tag() != gimli::DW_TAG_subprogram {
                continue;
            }
            let mut ranges = self.dwarf.die_ranges(unit, entry).map_err(malformed)?;
            while let Some(range) = ranges.next().map_err(malformed)? {
                if range.begin == self.start && range.end > range.begin {
                    return Ok(Some(entry.offset()));
                }
            }
        }
        Ok(None)
    }

    fn of_function(&self, unit: &gimli::Unit<Slice<'a>>, function: UnitOffset) -> Result<Vec<Parameter>, ConstError> {
        let mut tree = unit.entries_tree(Some(function)).map_err(malformed)?;
        let root = tree.root().map_err(malformed)?;
        let mut children = root.children();
        let mut found = Vec::new();
        while let Some(child) = children.next().map_err(malformed)? {
            let entry = child.entry();
            if entry.tag() == gimli::DW_TAG_formal_parameter {
                found.push(self.parameter(unit, entry)?);
            }
        }
        Ok(found)
    }

    fn parameter(&self, unit: &gimli::Unit<Slice<'a>>, entry: &Entry<'a>) -> Result<Parameter, ConstError> {
        // What is not said here is said of the abstract function that this is an instance of.
        let origin = match entry.attr_value(gimli::DW_AT_abstract_origin) {
            Some(AttributeValue::UnitRef(offset)) => Some(unit.entry(offset).map_err(malformed)?),
            _ => None,
        };
        let attribute = |at| entry.attr_value(at).or_else(|| origin.as_ref()?.attr_value(at));
        let name = attribute(gimli::DW_AT_name).and_then(|v| self.dwarf.attr_string(unit, v).ok());
        let type_name = match attribute(gimli::DW_AT_type) {
            Some(AttributeValue::UnitRef(offset)) => self.type_name(unit, offset, 0),
            _ => "void".into(),
        };
        let name = name.map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        Ok(Parameter { name, type_name, place: self.place(unit, entry)? })
    }

    fn type_name(&self, unit: &gimli::Unit<Slice<'a>>, offset: UnitOffset, depth: u32) -> String {
        let Ok(entry) = unit.entry(offset) else { return "?".into() };
        let inner = || match entry.attr_value(gimli::DW_AT_type) {
            Some(AttributeValue::UnitRef(next)) if depth < 8 => self.type_name(unit, next, depth + 1),
            _ => "void".into(),
        };
        let name = entry.attr_value(gimli::DW_AT_name).and_then(|v| self.dwarf.attr_string(unit, v).ok());
        let name = name.map_or_else(|| "?".into(), |n| n.to_string_lossy().into_owned());
        match entry.tag() {
            gimli::DW_TAG_pointer_type => {
                let inner = inner();
                if inner.ends_with('*') { format!("{inner}*") } else { format!("{inner} *") }
            }
            gimli::DW_TAG_const_type => format!("const {}", inner()),
            gimli::DW_TAG_volatile_type => format!("volatile {}", inner()),
            gimli::DW_TAG_structure_type => format!("struct {name}"),
            gimli::DW_TAG_union_type => format!("union {name}"),
            gimli::DW_TAG_enumeration_type => format!("enum {name}"),
            gimli::DW_TAG_subroutine_type => "void".into(),
            _ => name,
        }
    }

    fn place(&self, unit: &gimli::Unit<Slice<'a>>, entry: &Entry<'a>) -> Result<Place, ConstError> {
        let Some(value) = entry.attr_value(gimli::DW_AT_location) else { return Ok(Place::Gone) };
        if let AttributeValue::Exprloc(expression) = value {
            return self.resolve(unit, expression);
        }
        let Some(mut list) = self.dwarf.attr_locations(unit, value).map_err(malformed)? else { return Ok(Place::Gone) };
        while let Some(entry) = list.next().map_err(malformed)? {
            if (entry.range.begin..entry.range.end).contains(&self.at) {
                return self.resolve(unit, entry.data);
            }
        }
        Ok(Place::Gone)
    }

    /// A register, or memory relative to the stack pointer; anything else counts as gone.
    fn resolve(
        &self,
        unit: &gimli::Unit<Slice<'a>>,
        expression: gimli::Expression<Slice<'a>>,
    ) -> Result<Place, ConstError> {
        let mut operations = expression.operations(unit.encoding());
        let mut parsed = Vec::new();
        while let Some(operation) = operations.next().map_err(malformed)? {
            parsed.push(operation);
        }
        Ok(match parsed.as_slice() {
            [Operation::Register { register }] => self::register(register.0),
            [Operation::RegisterOffset { register, offset: 0, .. }, Operation::StackValue] => {
                self::register(register.0)
            }
            [Operation::RegisterOffset { register, offset, .. }] if register.0 == RSP => stack(*offset),
            [Operation::FrameOffset { offset }] => match self.frame()? {
                Some(frame) => stack(frame + offset),
                None => Place::Gone,
            },
            _ => Place::Gone,
        })
    }

    /// How far the canonical frame address lies above the stack pointer there.
    fn frame(&self) -> Result<Option<i64>, ConstError> {
        let frames = gimli::DebugFrame::from(self.sections.section(gimli::SectionId::DebugFrame));
        let mut context = gimli::UnwindContext::new();
        let bases = gimli::BaseAddresses::default();
        let row = frames.unwind_info_for_address(&bases, &mut context, self.at, gimli::DebugFrame::cie_from_offset);
        Ok(match row.map(|row| row.cfa().clone()) {
            Ok(gimli::CfaRule::RegisterAndOffset { register, offset }) if register.0 == RSP => Some(offset),
            _ => None,
        })
    }
}

fn stack(offset: i64) -> Place {
    i32::try_from(offset).map_or(Place::Gone, Place::Stack)
}

fn register(number: u16) -> Place {
    let name = REGISTERS.get(usize::from(number)).filter(|_| number != RSP);
    let known = |name: &&&str| GENERAL.iter().any(|r| format!("{r:?}").eq_ignore_ascii_case(name));
    name.filter(known).map_or(Place::Gone, |name| Place::Register((*name).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Proof, Window};
    use std::process::Command;

    fn object(text: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let (c, o) = (dir.path().join("a.c"), dir.path().join("a.o"));
        std::fs::write(&c, text).unwrap();
        assert!(
            Command::new("gcc")
                .args(["-g", "-O2", "-fcf-protection=none", "-fno-asynchronous-unwind-tables", "-c", "-o"])
                .arg(&o)
                .arg(&c)
                .status()
                .unwrap()
                .success()
        );
        std::fs::read(o).unwrap()
    }

    fn places(text: &str, function: &str, at: u64) -> Vec<Parameter> {
        let mut span = Span {
            function: function.into(),
            unit: "a.c".into(),
            function_offset: 0,
            start: at,
            end: at + 1,
            bytes: String::new(),
            expression: String::new(),
            iv: Vec::new(),
            updates: Vec::new(),
            proof: Proof::default(),
            absolute: Vec::new(),
            window: Window::default(),
            parameters: Vec::new(),
        };
        fill(std::slice::from_mut(&mut span), "a.c", &object(text)).unwrap();
        span.parameters
    }

    const CALLS: &str = "
        struct item { int n; };
        void other(void);
        int ends(const struct item *item, long unused) { other(); return item->n + 7; }
        __attribute__((cold)) int rare(char **words) { other(); return **words; }
    ";

    #[test]
    fn arguments_are_in_their_registers_at_the_entry() {
        let found = places(CALLS, "ends", 0);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name.as_str(), found[0].type_name.as_str()), ("item", "const struct item *"));
        assert_eq!(found[0].place, Place::Register("rdi".into()));
        assert_eq!(found[1].place, Place::Register("rsi".into()));
    }

    #[test]
    fn behind_a_call_one_is_kept_and_one_is_gone() {
        // push %rbx; mov %rdi,%rbx; call other: nine bytes
        let found = places(CALLS, "ends", 9);
        assert_eq!(found[0].place, Place::Register("rbx".into()), "{found:?}");
        assert_eq!(found[1].place, Place::Gone, "{found:?}");
    }

    #[test]
    fn sections_of_code_are_told_apart() {
        let found = places(CALLS, "rare", 0);
        assert_eq!(found[0].type_name, "char **");
        assert_eq!(found[0].place, Place::Register("rdi".into()));
    }

    #[test]
    fn arguments_on_the_stack_are_found_from_the_stack_pointer() {
        let text = "int sum(int a, int b, int c, int d, int e, int f, int g) { return a + g; }";
        let found = places(text, "sum", 0);
        assert_eq!(found[6].place, Place::Stack(8), "{found:?}");
    }
}
