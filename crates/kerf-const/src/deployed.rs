//! Whether an object compiled here is the code that was deployed: function by function, relocation by relocation.

use std::collections::HashMap;

use kerf_image::{Image, ImageKind, PatchSites, Symbol};

use crate::code::{Code, Function, Place, Reference, field_size, is_relative};
use crate::error::ConstError;

/// Where a function of the object lies in the image, or why it is not the same there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The same code at this address.
    Same(u64),
    /// No function of that name.
    Absent,
    /// Other code under that name.
    Different {
        /// First offset that differs.
        offset: u64,
        /// Why.
        why: String,
    },
}

/// A deployed image, ready for many comparisons.
pub struct Deployed<'a> {
    image: &'a Image,
    sites: PatchSites,
    /// The functions of a module, whose references are names like the object's.
    module: Option<Code>,
    /// Every symbol's addresses.
    addresses: HashMap<&'a str, Vec<u64>>,
}

/// What one comparison learnt about where the unit's unnamed data lies.
type Bases = HashMap<String, u64>;

impl<'a> Deployed<'a> {
    /// Prepares an image.
    pub fn new(image: &'a Image) -> Result<Deployed<'a>, ConstError> {
        let relocatable = matches!(image.kind(), ImageKind::Module | ImageKind::Object);
        let module = if relocatable { Some(crate::code::read(image)?) } else { None };
        let mut addresses: HashMap<&str, Vec<u64>> = HashMap::new();
        for symbol in image.symbols() {
            addresses.entry(without_number(&symbol.name)).or_default().push(symbol.address);
        }
        Ok(Deployed { image, sites: image.patch_sites()?, module, addresses })
    }

    /// The image.
    pub fn image(&self) -> &Image {
        self.image
    }

    /// Finds a function of an object in the image.
    pub fn find(&self, function: &Function) -> Match {
        if let Some(code) = &self.module {
            return find_in_module(code, function);
        }
        let named: Vec<&Symbol> = self.image.symbols_named(&function.name).filter(|s| s.is_function()).collect();
        let mut verdict = Match::Absent;
        for symbol in named {
            match self.compare_at(function, symbol.address) {
                Ok(()) => return Match::Same(symbol.address),
                Err((offset, why)) => verdict = Match::Different { offset, why },
            }
        }
        verdict
    }

    fn compare_at(&self, function: &Function, address: u64) -> Result<(), (u64, String)> {
        let Some(bytes) = self.image.bytes(address, function.size as usize) else {
            return Err((0, "the image ends inside the function".into()));
        };
        let mut bases = Bases::new();
        for insn in &function.code {
            let start = insn.offset() as usize;
            let deployed = &bytes[start..start + insn.bytes.len()];
            if insn.patched {
                continue;
            }
            let live = self.image.kind() == ImageKind::Running;
            let span = address + start as u64..address + (start + deployed.len()) as u64;
            if live && !self.sites.overlapping(span).is_empty() {
                continue;
            }
            let mut masked = vec![false; deployed.len()];
            for reference in &insn.references {
                let size = field_size(reference.r_type);
                let Some(field) = deployed.get(reference.offset..reference.offset + size) else {
                    return Err((start as u64, "a relocation lies outside its instruction".into()));
                };
                masked[reference.offset..reference.offset + size].fill(true);
                let end = address + (start + deployed.len()) as u64;
                self.check(reference, field, end, &mut bases).map_err(|why| (start as u64, why))?;
            }
            let differs = (0..deployed.len()).find(|n| !masked[*n] && deployed[*n] != insn.bytes[*n]);
            if let Some(n) = differs {
                let why = format!("the image has {:02x?}, this compiler makes {:02x?}", deployed, insn.bytes);
                return Err(((start + n) as u64, why));
            }
        }
        Ok(())
    }

    /// Whether a relocated field of the image points where the object's relocation says.
    fn check(&self, reference: &Reference, field: &[u8], end: u64, bases: &mut Bases) -> Result<(), String> {
        let signed = match field {
            [a, b, c, d] => i64::from(i32::from_le_bytes([*a, *b, *c, *d])),
            [b] => i64::from(*b as i8),
            _ => field.try_into().map(i64::from_le_bytes).unwrap_or(0),
        };
        let target = if is_relative(reference.r_type) { end.wrapping_add_signed(signed) } else { signed as u64 };
        match &reference.place {
            Place::Symbol(name, offset) => {
                let wanted = target.wrapping_sub(*offset as u64);
                match self.addresses.get(without_number(name)) {
                    Some(at) if at.contains(&wanted) => Ok(()),
                    // A 32-bit field of a per-CPU or absolute symbol is cut.
                    Some(at) if field.len() == 4 && at.iter().any(|a| *a as u32 == wanted as u32) => Ok(()),
                    Some(_) => Err(format!("a reference to {name}+{offset:#x} points to {target:#x} in the image")),
                    None => consistent(bases, &format!("symbol {name}"), wanted),
                }
            }
            Place::Text(text) => {
                let deployed = self.image.bytes(target, text.len() + 1);
                let same = deployed.is_some_and(|d| d[..text.len()] == text[..] && d[text.len()] == 0);
                same.then_some(())
                    .ok_or_else(|| format!("the image has another text than {:?}", String::from_utf8_lossy(text)))
            }
            Place::Unnamed(section, offset) => consistent(bases, section, target.wrapping_sub(*offset)),
        }
    }
}

fn consistent(bases: &mut Bases, what: &str, base: u64) -> Result<(), String> {
    let known = *bases.entry(what.to_string()).or_insert(base);
    (known == base).then_some(()).ok_or_else(|| format!("references to {what} disagree: {known:#x} and {base:#x}"))
}

/// The compiler numbers static variables of functions (`__key.5`); the numbers say nothing.
pub fn without_number(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, number)) if !stem.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => stem,
        _ => name,
    }
}

fn find_in_module(code: &Code, function: &Function) -> Match {
    let mut verdict = Match::Absent;
    for deployed in code.functions.iter().filter(|f| f.name == function.name) {
        match compare_named(function, deployed) {
            None => return Match::Same(deployed.address),
            Some((offset, why)) => verdict = Match::Different { offset, why },
        }
    }
    verdict
}

/// Compares two functions whose references are names.
fn compare_named(function: &Function, deployed: &Function) -> Option<(u64, String)> {
    if function.size != deployed.size {
        return Some((
            0,
            format!("the module's function has {} bytes, this compiler makes {}", deployed.size, function.size),
        ));
    }
    for (ours, theirs) in function.code.iter().zip(&deployed.code) {
        if ours.patched || theirs.patched {
            continue;
        }
        let mut masked = vec![false; ours.bytes.len()];
        for reference in ours.references.iter().chain(&theirs.references) {
            let end = (reference.offset + field_size(reference.r_type)).min(masked.len());
            masked[reference.offset.min(end)..end].fill(true);
        }
        let same_bytes = ours.bytes.len() == theirs.bytes.len()
            && (0..masked.len()).all(|n| masked[n] || ours.bytes[n] == theirs.bytes[n]);
        if !same_bytes {
            let why = format!("the module has {:02x?}, this compiler makes {:02x?}", theirs.bytes, ours.bytes);
            return Some((ours.offset(), why));
        }
        let named = |r: &[Reference]| -> Vec<Place> { r.iter().map(|r| plain(&r.place)).collect() };
        if named(&ours.references) != named(&theirs.references) {
            return Some((
                ours.offset(),
                format!("the module refers to {:?}, this compiler to {:?}", theirs.references, ours.references),
            ));
        }
    }
    None
}

/// A module's sections are joined from several units: offsets into unnamed data cannot be compared.
fn plain(place: &Place) -> Place {
    match place {
        Place::Symbol(name, offset) => Place::Symbol(without_number(name).to_string(), *offset),
        Place::Unnamed(..) => Place::Unnamed(String::new(), 0),
        text => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_static_variables_are_ignored() {
        assert_eq!(without_number("__key.17"), "__key");
        assert_eq!(without_number("foo.part.0"), "foo.part");
        assert_eq!(without_number("tcp_v4_rcv"), "tcp_v4_rcv");
        assert_eq!(without_number(".5"), ".5");
    }
}
