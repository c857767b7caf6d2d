//! Names for the guest's kernel addresses, from what its `/proc/kallsyms` said while it ran.

use std::collections::BTreeMap;

/// How far a function with no other one behind it may reach.
const FARTHEST: u64 = 1 << 20;

/// A function of the guest's kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// Where it begins in this run.
    pub address: u64,
    /// Its name.
    pub name: String,
    /// The module that it belongs to; `bpf` and the like for code that was made at run time.
    pub module: Option<String>,
}

/// Functions by address. Slide and modules are those of the run, since the guest itself has said where everything is.
#[derive(Debug, Clone, Default)]
pub struct Symbols {
    functions: BTreeMap<u64, (String, Option<String>)>,
}

impl Symbols {
    /// Reads lines as `/proc/kallsyms` has them. Of several names for an address the last one that is global counts, so the text
    /// may hold what was read at several times, one after the other. Lines that are no functions are passed over.
    pub fn parse(text: &str) -> Symbols {
        let mut functions = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            if address == 0 || !matches!(kind, "t" | "T" | "w" | "W") || is_padding(name) {
                continue;
            }
            let module = words.next().map(|word| word.trim_matches(['[', ']']).to_owned());
            let local = kind == "t" || kind == "w";
            if !(local && functions.contains_key(&address)) {
                functions.insert(address, (name.to_owned(), module));
            }
        }
        Symbols { functions }
    }

    /// Whether a line of `/proc/kallsyms` is of use here.
    pub fn is_wanted(line: &str) -> bool {
        let mut words = line.split_ascii_whitespace().skip(1);
        matches!(words.next(), Some("t" | "T" | "w" | "W")) && words.next().is_some_and(|name| !is_padding(name))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// The function that an address is in.
    pub fn at(&self, address: u64) -> Option<Symbol> {
        let (start, (name, module)) = self.functions.range(..=address).next_back()?;
        // Behind the kernel's last function nothing has a name until the first module.
        if address - start >= FARTHEST || name == "_etext" {
            return None;
        }
        Some(Symbol { address: *start, name: name.clone(), module: module.clone() })
    }
}

/// What lies in front of a function and is never run.
fn is_padding(name: &str) -> bool {
    name.starts_with("__pfx_") || name.starts_with("__cfi_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
        ffffffff9a000000 T _stext\n\
        ffffffff9a000000 t local_alias\n\
        ffffffff9a0000f0 t __pfx_vfs_read\n\
        ffffffff9a000100 T vfs_read\n\
        ffffffff9a000200 D some_data\n\
        ffffffff9b000000 T _etext\n\
        0000000000000000 A percpu\n\
        no line\n\
        ffffffffc0100000 t kerf_loop\t[kerf_test]\n";

    #[test]
    fn addresses_have_names() {
        let symbols = Symbols::parse(TEXT);
        let name = |address| symbols.at(address).map(|symbol| (symbol.name, symbol.module));
        assert_eq!(name(0xffff_ffff_9a00_0000), Some(("_stext".into(), None)));
        assert_eq!(name(0xffff_ffff_9a00_0250), Some(("vfs_read".into(), None)));
        assert_eq!(name(0xffff_ffff_c010_0010), Some(("kerf_loop".into(), Some("kerf_test".into()))));
        assert_eq!(name(0xffff_ffff_9b00_1000), None, "behind the kernel's text");
        assert_eq!(name(0xffff_ffff_c030_0000), None, "too far from anything");
        assert_eq!(name(0x1000), None);
        assert!(Symbols::parse("").is_empty());
    }

    #[test]
    fn what_is_said_later_counts() {
        let later = format!("{TEXT}ffffffffc0100000 T other [next]\n");
        assert_eq!(Symbols::parse(&later).at(0xffff_ffff_c010_0000).unwrap().name, "other");
    }

    #[test]
    fn only_functions_are_wanted() {
        let wanted: Vec<_> = TEXT.lines().filter(|line| Symbols::is_wanted(line)).collect();
        assert_eq!(wanted.len(), 5, "{wanted:?}");
    }
}
