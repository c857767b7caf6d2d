//! Whether the types that a slice needs are laid out alike in both kernels, by the types that the images carry.

use std::collections::BTreeSet;

use kerf_image::Image;
use kerf_image::btf::{Btf, Struct};

use super::source::{Code, Slice, Type};

/// Compares the types of two slices of the same code.
///
/// # Errors
/// In words, with the first type that the code would see differently.
pub fn same(old: (&Image, &Slice), new: (&Image, &Slice)) -> Result<(), String> {
    let (before, after) = (types(old.0)?, types(new.0)?);
    let tags: BTreeSet<&String> = old.1.types.keys().chain(new.1.types.keys()).collect();
    for tag in tags {
        let (from, to) = (old.1.types.get(tag), new.1.types.get(tag));
        let text = |t: Option<&Type>| t.map(|t| t.text.clone()).unwrap_or_default();
        if text(from.or(to)).starts_with("enum") {
            same_enum(tag, &text(from), &text(to), &old.1.code)?;
            continue;
        }
        match (before.struct_named(tag), after.struct_named(tag)) {
            (Some(a), Some(b)) => same_members(tag, (&a, &b), from.or(to), &old.1.code)?,
            _ if text(from) == text(to) => {}
            _ => return Err(format!("{tag} is defined otherwise")),
        }
    }
    Ok(())
}

/// A member that lies elsewhere matters where code names it and may have a value of the type.
fn same_members(tag: &str, (a, b): (&Struct, &Struct), kind: Option<&Type>, code: &[Code]) -> Result<(), String> {
    let place = |s: &Struct, name: &str| s.member(name).map(|m| m.bit_offset);
    let names = a.members.iter().chain(&b.members).map(|m| m.name.as_str());
    let moved: BTreeSet<&str> = names.filter(|name| place(a, name) != place(b, name)).collect();
    let sees = |names: &BTreeSet<String>| kind.is_none_or(|kind| !kind.sources.is_disjoint(names));
    for own in code.iter().filter(|own| sees(&own.names)) {
        if let Some(name) = moved.iter().find(|name| own.members.contains(**name)) {
            return Err(format!("{name} lies elsewhere in {tag}"));
        }
        // Where one is held or copied as a whole, its size counts too.
        if a.size != b.size && by_value(&own.text, tag) {
            return Err(format!("{tag} has {} bytes instead of {}", b.size, a.size));
        }
    }
    Ok(())
}

fn types(image: &Image) -> Result<Btf<'_>, String> {
    let blob = image.btf().ok_or("an image carries no types")?;
    Btf::parse(blob).map_err(|error| error.to_string())
}

/// Whether code uses a structure other than through a pointer.
fn by_value(code: &str, tag: &str) -> bool {
    let word = format!(" {tag} ");
    code.match_indices(&word).any(|(at, _)| {
        let before = code[..at].rsplit(' ').next().unwrap_or_default();
        let mut next = code[at + word.len()..].split(' ').filter(|t| *t != "const");
        matches!(before, "struct" | "union") && next.next() != Some("*")
    })
}

/// The members that code names must have the same text before them: then they have the same number.
fn same_enum(tag: &str, old: &str, new: &str, code: &[Code]) -> Result<(), String> {
    if old == new {
        return Ok(());
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split(' ').collect(), new.split(' ').collect());
    let alike = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let named = |word: &&&str| **word != tag && code.iter().any(|own| own.names.contains(**word));
    match old.iter().skip(alike).chain(new.iter().skip(alike)).find(named) {
        Some(name) => Err(format!("{name} may have another number in {tag}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kerf_image::btf::Member;

    #[test]
    fn structures_are_told_from_pointers_to_them() {
        assert!(by_value("f ( sizeof ( struct a ) )", "a"));
        assert!(by_value("{ struct a x ; }", "a"));
        assert!(!by_value("int f ( struct a * x )", "a"));
        assert!(!by_value("int f ( struct a const * x )", "a"));
    }

    #[test]
    fn members_of_an_enum_behind_a_new_one_are_others() {
        let (old, new) = ("enum e { A , B , C } ;".to_owned(), "enum e { A , X , B , C } ;".to_owned());
        let code = |name: &str| [Code { names: BTreeSet::from([name.to_owned()]), ..Code::default() }];
        assert_eq!(same_enum("e", &old, &new, &code("A")), Ok(()));
        assert!(same_enum("e", &old, &new, &code("C")).is_err());
    }

    #[test]
    fn a_member_that_moved_matters_to_code_that_may_have_one() {
        let holder = |at| Struct { size: 64, members: vec![Member { name: "flags".into(), bit_offset: at }] };
        let kind = Type { text: String::new(), sources: BTreeSet::from(["device".to_owned(), "dev".to_owned()]) };
        let check = |names: &[&str]| {
            let names: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let code = Code { text: String::new(), members: names.clone(), names };
            same_members("device", (&holder(0), &holder(64)), Some(&kind), &[code])
        };
        assert_eq!(check(&["flags", "other"]), Ok(()));
        assert_eq!(check(&["dev"]), Ok(()));
        assert!(check(&["dev", "flags"]).is_err());
    }
}
