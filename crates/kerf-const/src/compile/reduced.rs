//! A unit without the functions that have nothing to do with a site: most of what a compiler does for a variant is for those.
//!
//! Kept are the functions that use the site, those that lead to them, which may have them inlined, and all that these call. Tables of
//! functions and aliases lead to what they name. Of the other functions a declaration is left. What the compiler makes of such a unit is
//! compared with the deployed code like that of a whole one, so a function which it treats otherwise without the rest is noticed.
//! For a value that nobody compiled in a whole unit it could still decide otherwise on inlining; `kerf const verify` compiles whole units.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::items::{self, Item};
use super::marks::BEGIN;

/// How much of a unit is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// What the site can reach. Of other calls of those functions the compiler only learns that there are some.
    Reached,
    /// Also all functions that call those which only the unit can call: how they are called decides what becomes of them.
    Callers,
}

/// The text without the bodies of functions that have nothing to do with the marked site; none where the site may be part of a type or a
/// table.
pub(super) fn reduced(text: &str, rest: Rest) -> Option<String> {
    let tokens = items::tokens(text);
    let unit = Unit::of(items::items(&tokens));
    let kept = unit.kept(rest)?;
    let dropped: Vec<usize> = (0..unit.items.len()).filter(|n| unit.is_function(*n) && !kept.contains(n)).collect();
    let mut result = String::with_capacity(text.len());
    let mut from = 0;
    for n in &dropped {
        let body = body(text, &unit.items[*n]);
        result.push_str(&text[from..body.start]);
        // An alias needs a definition that it stands for.
        result.push_str(if unit.users[*n].iter().any(|user| unit.is_alias(*user)) { "{ }" } else { ";" });
        lines_of(&text[body.clone()], &mut result);
        from = body.end;
    }
    result.push_str(&text[from..]);
    let used = unit.used_elsewhere(&kept);
    if !used.is_empty() {
        let all: Vec<String> = used.into_iter().map(|name| format!("(void *){name}")).collect();
        result.push_str(&format!("\n__attribute__((used)) static void *kerf_used[] = {{ {} }};\n", all.join(", ")));
    }
    Some(result)
}

/// From the opening brace of a function to behind its closing one.
fn body(text: &str, function: &Item) -> Range<usize> {
    let offset = |token: &str| token.as_ptr().addr() - text.as_ptr().addr();
    let tokens = &function.tokens;
    let start = tokens.iter().find(|token| **token == "{").map_or(0, |token| offset(token));
    start..tokens.last().map_or(start, |token| offset(token) + token.len())
}

/// The ends of lines and the line marks of a text, so that what follows keeps its line numbers.
fn lines_of(text: &str, into: &mut String) {
    for line in text.split('\n').skip(1) {
        into.push('\n');
        if line.starts_with('#') {
            into.push_str(line);
        }
    }
}

/// What an item is to the functions of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Function,
    /// A variable with an initial value.
    Variable,
    /// Another name of a function.
    Alias,
    Other,
}

/// The items of a unit, and which of them lead to which.
struct Unit<'a> {
    items: Vec<Item<'a>>,
    kinds: Vec<Kind>,
    uses: Vec<BTreeSet<usize>>,
    users: Vec<BTreeSet<usize>>,
}

impl<'a> Unit<'a> {
    fn of(items: Vec<Item<'a>>) -> Unit<'a> {
        let kinds: Vec<Kind> = items.iter().map(kind).collect();
        let mut named: HashMap<&str, Vec<usize>> = HashMap::new();
        for (n, item) in items.iter().enumerate().filter(|(n, _)| kinds[*n] != Kind::Other) {
            item.declares.iter().for_each(|name| named.entry(name).or_default().push(n));
        }
        let mut uses = vec![BTreeSet::new(); items.len()];
        let mut users = uses.clone();
        for (n, item) in items.iter().enumerate().filter(|(n, _)| kinds[*n] != Kind::Other) {
            let strings = item.tokens.iter().filter(|_| kinds[n] == Kind::Alias).map(|token| token.trim_matches('"'));
            let names = item.refers.iter().copied().chain(strings);
            uses[n] = names.filter_map(|name| named.get(name)).flatten().copied().filter(|other| *other != n).collect();
            uses[n].iter().for_each(|other: &usize| _ = users[*other].insert(n));
        }
        Unit { items, kinds, uses, users }
    }

    fn is_function(&self, n: usize) -> bool {
        self.kinds[n] == Kind::Function
    }

    fn is_alias(&self, n: usize) -> bool {
        self.kinds[n] == Kind::Alias
    }

    /// Whether what becomes of a function depends on who calls it. Inline functions may compile as part of their callers only.
    fn is_local(&self, n: usize) -> bool {
        let mut head = self.items[n].tokens.iter().take_while(|token| **token != "{");
        self.is_function(n)
            && head.clone().any(|token| *token == "static")
            && !head.any(|token| token.contains("inline"))
    }

    /// The functions that the site can reach, and those without a plain name; none where the site is part of something else.
    fn kept(&self, rest: Rest) -> Option<BTreeSet<usize>> {
        let marked = |n: &usize| self.items[*n].tokens.contains(&BEGIN);
        let mut roots: BTreeSet<usize> = (0..self.items.len()).filter(marked).collect();
        if !roots.iter().all(|n| self.is_in_statements(*n) || self.is_value(*n)) {
            return None;
        }
        roots.extend((0..self.items.len()).filter(|n| self.is_function(*n) && self.items[*n].declares.is_empty()));
        let mut above = reached(roots, |n| self.users[n].iter());
        above.retain(|n| self.is_function(*n));
        let callers = |n: usize| rest == Rest::Callers && self.is_local(n);
        let code = |n: &usize| self.kinds[*n] != Kind::Variable;
        let below = |n: usize| self.uses[n].iter().chain(self.users[n].iter().filter(move |_| callers(n)));
        Some(reached(above, |n| below(n).filter(|other| code(other))))
    }

    /// Whether all marks of a function stand in its body, outside of square brackets.
    fn is_in_statements(&self, n: usize) -> bool {
        let (mut body, mut brackets) = (false, 0);
        self.is_function(n)
            && self.items[n].tokens.iter().all(|token| {
                body |= *token == "{";
                brackets += i32::from(*token == "[") - i32::from(*token == "]");
                *token != BEGIN || body && brackets == 0
            })
    }

    /// Whether the site is in the initial value of a variable that is no table.
    fn is_value(&self, n: usize) -> bool {
        let mut before = self.items[n].tokens.iter().take_while(|token| **token != BEGIN);
        self.kinds[n] == Kind::Variable && before.clone().any(|t| *t == "=") && !before.any(|t| matches!(*t, "{" | "["))
    }

    /// Local functions among the kept ones that variables or dropped functions use as well.
    fn used_elsewhere(&self, kept: &BTreeSet<usize>) -> BTreeSet<&'a str> {
        let elsewhere = |user: &usize| !kept.contains(user);
        let used = kept.iter().filter(|n| self.is_local(**n) && self.users[**n].iter().any(elsewhere));
        used.filter_map(|n| self.items[*n].declares.last().copied()).collect()
    }
}

fn kind(item: &Item) -> Kind {
    let mut depth = 0;
    let value = |token: &&str| {
        match *token {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        depth == 0 && *token == "="
    };
    match () {
        _ if item.function => Kind::Function,
        _ if item.tokens.iter().any(|token| matches!(*token, "alias" | "__alias__")) => Kind::Alias,
        _ if item.tokens.iter().any(value) => Kind::Variable,
        _ => Kind::Other,
    }
}

fn reached<'a, I: Iterator<Item = &'a usize>>(from: BTreeSet<usize>, next: impl Fn(usize) -> I) -> BTreeSet<usize> {
    let mut open: Vec<usize> = from.iter().copied().collect();
    let mut seen = from;
    while let Some(n) = open.pop() {
        open.extend(next(n).copied().filter(|other| seen.insert(*other)));
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::marks::END;

    fn of(text: &str) -> String {
        reduced(&marked(text), Rest::Reached).unwrap()
    }

    fn marked(text: &str) -> String {
        text.replace('@', &format!("{BEGIN} 3 {END}"))
    }

    #[test]
    fn only_what_the_site_can_reach_is_left() {
        let text = "static inline int below(int x) { return x + 1; }\n\
                    static int other(int x)\n{\n if (x) {\n  return 2;\n }\n# 7 \"a.h\"\n return 1;\n}\n\
                    struct s { int x; };\n\
                    static inline int uses(int x) { return below(x) > @; }\n\
                    int above(int x) { return uses(x) ? beside(x) : 0; }\n\
                    int beside(int x) { return x; }\n\
                    struct s table[] = { { 1 }, { 2 } };\n\
                    int far(void) { return other(2); }\n";
        let left = of(text);
        for kept in ["below(int x) {", "uses(int x) {", "above(int x) {", "beside(int x) {", "{ { 1 }, { 2 } }"] {
            assert!(left.contains(kept), "{kept}: {left}");
        }
        assert!(left.contains("other(int x)\n;\n\n\n\n# 7 \"a.h\"\n\n\n"), "{left}");
        assert!(left.contains("int far(void) ;\n"), "{left}");
        assert_eq!(left.matches('\n').count(), text.matches('\n').count(), "nothing else uses them");
    }

    #[test]
    fn all_callers_of_what_only_the_unit_knows_are_left() {
        let text = "static int local(int x) { return x; }\nint global(int x) { return x; }\n\
                    static int entry(int x) { return local(x) + global(x) + @; }\n\
                    int other(int x) { return local(x); }\nint another(int x) { return global(x); }\n\
                    static struct s table = { entry };\n";
        let left = reduced(&marked(text), Rest::Callers).unwrap();
        assert!(left.contains("other(int x) {") && left.contains("another(int x) ;"), "{left}");
        // Whoever knows the table is gone.
        assert!(left.ends_with("\n__attribute__((used)) static void *kerf_used[] = { (void *)entry };\n"), "{left}");
        let left = of(text);
        assert!(left.contains("other(int x) ;"), "{left}");
        assert!(left.ends_with(" = { (void *)entry, (void *)local };\n"), "{left}");
    }

    #[test]
    fn what_an_alias_stands_for_is_defined() {
        let text = "int f(void) { return @; }\nlong se_call(long x) { return g(x); }\n\
                    long x64_call(long) __attribute__((alias(\"se_call\")));\n";
        assert!(of(text).contains("long se_call(long x) { }\n"), "{}", of(text));
    }

    #[test]
    fn a_variable_with_the_site_as_its_value_stands_for_it() {
        let text = "static const int limit = 2 * @;\nint f(void) { return limit; }\nint g(void) { return 1; }\n\
                    struct s name = { \"limit\" };\n";
        assert!(of(text).contains("int f(void) { return limit; }\nint g(void) ;\n"), "{}", of(text));
        for text in ["struct s { int x : @; };\n", "int a[@];\n", "int a[] = { @ };\n", "int f(void) { int a[@]; }\n"] {
            assert_eq!(reduced(&marked(text), Rest::Callers), None, "{text}");
        }
    }

    #[test]
    fn tables_and_aliases_lead_to_what_they_name() {
        // The compiler may take what a table holds for granted, and put it into its user.
        let text = "static int get(void) { return @; }\nstatic const struct ops ops __attribute__((aligned(8))) = { .get = get };\n\
                    int by_table(void) { return ops.get(); }\nint other(void) { return 1; }\n\
                    int limit(void) __attribute__((alias(\"get\")));\nint by_alias(void) { return limit(); }\n";
        let left = of(text);
        for kept in ["by_table(void) {", "by_alias(void) {", "other(void) ;"] {
            assert!(left.contains(kept), "{kept}: {left}");
        }
        let text = "static int x = @;\nstatic int *all[] = { &x };\nint f(void) { return *all[0]; }\nint g(void) { return 1; }\n";
        assert!(of(text).contains("return *all[0];") && of(text).contains("g(void) ;"), "{}", of(text));
    }

    #[test]
    fn declarators_of_other_forms_become_declarations() {
        for head in ["int (*choose(int x))(int)", "int f(void) __attribute__((cold))", "struct s *get(struct s *x)"] {
            assert_eq!(reduced(&format!("{head} {{ return 0; }}\n"), Rest::Reached), Some(format!("{head} ;\n")));
        }
    }
}
