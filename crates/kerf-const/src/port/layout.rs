//! Whether the types that a slice needs are laid out alike in both kernels, by the types that the images carry.

use std::collections::BTreeSet;

use kerf_image::Image;
use kerf_image::btf::Btf;

use super::source::Slice;

/// Compares the types of two slices of the same code.
///
/// # Errors
/// In words, with the first type that the code would see differently.
pub fn same(old: (&Image, &Slice), new: (&Image, &Slice)) -> Result<(), String> {
    let (before, after) = (types(old.0)?, types(new.0)?);
    let tags: BTreeSet<&String> = old.1.types.keys().chain(new.1.types.keys()).collect();
    for tag in tags {
        let (from, to) = (old.1.types.get(tag), new.1.types.get(tag));
        let text = from.or(to).map_or("", String::as_str);
        if text.starts_with("enum") {
            same_enum(tag, from, to, &old.1.mentioned)?;
            continue;
        }
        match (before.struct_named(tag), after.struct_named(tag)) {
            (Some(a), Some(b)) => {
                let place = |s: &kerf_image::btf::Struct, name: &str| s.member(name).map(|m| m.bit_offset);
                let names = a.members.iter().chain(&b.members).map(|m| m.name.as_str());
                let mut seen = names.filter(|name| old.1.mentioned.contains(*name));
                if let Some(name) = seen.find(|name| place(&a, name) != place(&b, name)) {
                    return Err(format!("{name} lies elsewhere in {tag}"));
                }
                // Where one is held or copied as a whole, its size counts too.
                let whole = old.1.code.iter().any(|code| by_value(code, tag));
                if a.size != b.size && whole {
                    return Err(format!("{tag} has {} bytes instead of {}", b.size, a.size));
                }
            }
            _ if from == to => {}
            _ => return Err(format!("{tag} is defined otherwise")),
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
fn same_enum(
    tag: &str,
    old: Option<&String>,
    new: Option<&String>,
    mentioned: &BTreeSet<String>,
) -> Result<(), String> {
    if old == new {
        return Ok(());
    }
    let words = |text: Option<&String>| -> Vec<String> {
        text.map_or_else(Vec::new, |t| t.split(' ').map(str::to_owned).collect())
    };
    let (old, new) = (words(old), words(new));
    let alike = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let is_member = |w: &&String| mentioned.contains(*w) && *w != tag;
    match old[alike..].iter().chain(&new[alike..]).find(is_member) {
        Some(name) => Err(format!("{name} may have another number in {tag}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mentioned = |name: &str| BTreeSet::from([name.to_owned()]);
        assert_eq!(same_enum("e", Some(&old), Some(&new), &mentioned("A")), Ok(()));
        assert!(same_enum("e", Some(&old), Some(&new), &mentioned("C")).is_err());
    }
}
