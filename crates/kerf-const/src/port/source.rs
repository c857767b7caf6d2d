//! The part of a preprocessed unit that decides what the compiler makes of a constant, to be compared between two configurations.

use std::collections::{BTreeMap, BTreeSet};

use crate::compile::MARK;
use crate::compile::items::{self, Item};

/// What hangs together with the marked site.
#[derive(Debug, Default)]
pub struct Slice {
    /// Functions whose text holds the site, or that lead to such a function.
    pub functions: BTreeSet<String>,
    /// These and all that they lead to, types left out.
    pub code: Vec<Code>,
    /// Definitions of structures, unions and enums that these need, by their tags.
    pub types: BTreeMap<String, Type>,
}

/// A function, variable or declaration of a slice.
#[derive(Debug, Default)]
pub struct Code {
    /// Its text.
    pub text: String,
    /// The names in it, those of members included.
    pub names: BTreeSet<String>,
    /// Names that may be those of members.
    pub members: BTreeSet<String>,
}

/// A type that a slice needs.
#[derive(Debug, Default)]
pub struct Type {
    /// Its definition.
    pub text: String,
    /// Names of which code must use one to have such a value: the type's own, and of members, functions and variables that are one or
    /// point to one.
    pub sources: BTreeSet<String>,
}

/// Takes the slice out of a unit's text.
///
/// # Errors
/// In words, if the site stands outside of functions: then it is no matter of code alone.
pub fn slice(text: &str) -> Result<Slice, String> {
    let tokens = items::tokens(text);
    let items = items::items(&tokens);
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (n, item) in items.iter().enumerate() {
        item.declares.iter().for_each(|name| by_name.entry(name).or_default().push(n));
    }
    let affected = affected(&items)?;
    let mut reached = Reached { items: &items, by_name: &by_name, seen: affected.clone(), pending: Vec::new() };
    reached.close(affected.iter().copied().collect());
    let mut slice = Slice::default();
    for n in &affected {
        slice.functions.extend(items[*n].declares.iter().map(|name| (*name).to_owned()));
    }
    for n in &reached.seen {
        let item = &items[*n];
        match item.tag {
            Some(tag) => {
                let sources = sources(&items, &reached.seen, tag);
                slice.types.insert(tag.to_owned(), Type { text: item.text(), sources });
            }
            // Of what is only declared, a second declaration says nothing more.
            None if item.forward => {}
            None => {
                let owned =
                    |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
                // Members are named behind a dot or an arrow, or in `offsetof`.
                let (mut names, mut members) = (owned(&item.refers), owned(&item.members));
                names.extend(members.iter().cloned());
                if item.tokens.contains(&"__builtin_offsetof") {
                    members.clone_from(&names);
                }
                slice.code.push(Code { text: item.text(), names, members });
            }
        }
    }
    Ok(slice)
}

/// Where values of a type come from.
fn sources(items: &[Item], seen: &BTreeSet<usize>, tag: &str) -> BTreeSet<String> {
    let mut types = BTreeSet::from([tag]);
    let all = || seen.iter().map(|n| &items[*n]);
    // A name for a type stands behind the type that it names.
    for item in all().filter(|item| item.tokens.first() == Some(&"typedef")) {
        if item.tokens.iter().any(|token| types.contains(token)) {
            types.extend(&item.declares);
        }
    }
    let members = all().flat_map(|item| item.behind.iter().filter(|(_, name)| types.contains(name)).map(|two| two.0));
    let declared = all().filter(|item| item.tag.is_none()).filter_map(|item| {
        let name = item.declares.last()?;
        let head = item.tokens.iter().take_while(|token| *token != name);
        head.into_iter().any(|token| types.contains(token)).then_some(*name)
    });
    types.iter().copied().chain(members).chain(declared).map(str::to_owned).collect()
}

/// Functions with the site, and those that lead to one of them.
fn affected(items: &[Item]) -> Result<BTreeSet<usize>, String> {
    let marked = |item: &Item| item.tokens.contains(&MARK);
    let mut found: BTreeSet<usize> = (0..items.len()).filter(|n| marked(&items[*n])).collect();
    if let Some(n) = found.iter().find(|n| !items[**n].function) {
        let text: String = items[*n].text().chars().take(60).collect();
        return Err(format!("it stands outside of functions (`{text}…`)"));
    }
    loop {
        let names: BTreeSet<&str> = found.iter().flat_map(|n| items[*n].declares.iter().copied()).collect();
        let leads = |n: &usize| {
            let item = &items[*n];
            !found.contains(n) && item.function && item.refers.iter().any(|name| names.contains(name))
        };
        let more: Vec<usize> = (0..items.len()).filter(leads).collect();
        if more.is_empty() {
            return Ok(found);
        }
        found.extend(more);
    }
}

struct Reached<'a, 'b> {
    items: &'b [Item<'a>],
    by_name: &'b BTreeMap<&'a str, Vec<usize>>,
    seen: BTreeSet<usize>,
    pending: Vec<usize>,
}

impl<'a> Reached<'a, '_> {
    /// Everything that some items lead to. What a member is counts once the member is mentioned.
    fn close(&mut self, start: Vec<usize>) {
        let mut mentioned: BTreeSet<&str> = BTreeSet::new();
        let mut waiting: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        self.pending = start;
        while let Some(n) = self.pending.pop() {
            let item = &self.items[n];
            item.refers.iter().for_each(|name| self.add(name));
            for (member, name) in &item.behind {
                if mentioned.contains(member) {
                    self.add(name);
                } else {
                    waiting.entry(member).or_default().insert(name);
                }
            }
            if item.tag.is_some() {
                continue;
            }
            for name in item.refers.iter().chain(&item.members) {
                if mentioned.insert(name) {
                    waiting.remove(name).into_iter().flatten().for_each(|name| self.add(name));
                }
            }
        }
    }

    fn add(&mut self, name: &str) {
        for n in self.by_name.get(name).into_iter().flatten() {
            if self.seen.insert(*n) {
                self.pending.push(*n);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "
# 1 \"a.c\"
struct other { int x; };
struct far { int unused; };
struct near { struct far *away; struct other inner; int limit; };
enum kinds { FIRST, SECOND };
typedef unsigned int u32;
extern int elsewhere(struct far *);
static inline int helper(u32 n) { return elsewhere(0) + n; }
static int unrelated(void) { return 5; }
static int holds(struct near *n) { return helper(n->limit) > (__kerf_site_begin__ 32 __kerf_site_end__); }
int caller(struct near *n) { if (SECOND) return holds(n); return 0; }
";

    #[test]
    fn a_slice_has_what_the_site_hangs_together_with() {
        let found = slice(UNIT).unwrap();
        assert_eq!(found.functions.iter().map(String::as_str).collect::<Vec<_>>(), ["caller", "holds"]);
        assert_eq!(found.types.keys().map(String::as_str).collect::<Vec<_>>(), ["kinds", "near"]);
        assert!(found.code.iter().any(|c| c.text.contains("helper")));
        assert!(!found.code.iter().any(|c| c.text.contains("unrelated")));
    }

    #[test]
    fn what_a_mentioned_member_holds_or_points_to_counts() {
        let found = slice(&UNIT.replace("n->limit", "n->away->unused")).unwrap();
        assert!(found.types.contains_key("far"), "{:?}", found.types);
        assert_eq!(found.types["far"].sources, BTreeSet::from(["far".to_owned(), "away".to_owned()]));
        let found = slice(&UNIT.replace("n->limit", "n->inner.x")).unwrap();
        assert!(found.types.contains_key("other"), "{:?}", found.types);
    }

    #[test]
    fn a_site_outside_of_functions_has_no_slice() {
        let why = slice("int table[__kerf_site_begin__ 3 __kerf_site_end__];").unwrap_err();
        assert!(why.contains("outside of functions"), "{why}");
    }
}
