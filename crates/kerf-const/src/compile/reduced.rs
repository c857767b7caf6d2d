//! A unit without the functions that have nothing to do with a site: most of what a compiler does for a variant is for those.
//!
//! Kept are the functions that use the site, those that call them, which may have them inlined, and all that these call. Of the others a
//! declaration is left. What the compiler makes of such a unit is compared with the deployed code like that of a whole one, so that a
//! function which it treats otherwise without the rest is noticed.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::marks::{BEGIN, walk};

/// How much of a unit is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// What the site can reach. Of other calls of those functions the compiler only learns that there are some.
    Reached,
    /// Also all functions that call those which only the unit can call: how they are called decides what becomes of them.
    Callers,
}

/// A function's definition.
struct Definition<'a> {
    /// Its name; empty where it is not plain.
    name: &'a str,
    /// Whether it is to become part of its callers.
    inline: bool,
    /// Whether all that call it are in the unit.
    local: bool,
    /// From its opening brace to behind the closing one.
    body: Range<usize>,
}

/// The text without the bodies of functions that have nothing to do with the marked site; none where the site may be part of a type or a
/// table.
pub(super) fn reduced(text: &str, rest: Rest) -> Option<String> {
    let Outline { definitions, tables, variables, misplaced } = Outline::of(text);
    let in_tables: BTreeSet<&str> =
        tables.into_iter().flat_map(|table| text[table].split('"').step_by(2).flat_map(words)).collect();
    if misplaced || variables.iter().any(|name| in_tables.contains(name)) {
        return None;
    }
    let kept = kept(text, &definitions, &variables, rest);
    let mut elsewhere = in_tables;
    let needed = named_in_strings(text, &definitions);
    let mut result = String::with_capacity(text.len() / 2);
    let mut from = 0;
    for (n, definition) in definitions.iter().enumerate().filter(|(n, _)| !kept.contains(n)) {
        elsewhere.extend(words(&text[definition.body.clone()]));
        result.push_str(&text[from..definition.body.start]);
        // An alias needs a definition that it stands for.
        result.push_str(if needed.contains(&n) { "{ }" } else { ";" });
        lines_of(&text[definition.body.clone()], &mut result);
        from = definition.body.end;
    }
    result.push_str(&text[from..]);
    let used = kept.iter().map(|n| &definitions[*n]).filter(|d| d.is_local() && elsewhere.contains(d.name));
    let used: BTreeSet<&str> = used.map(|d| d.name).collect();
    if !used.is_empty() {
        let all: Vec<String> = used.into_iter().map(|name| format!("(void *){name}")).collect();
        result.push_str(&format!("\n__attribute__((used)) static void *kerf_used[] = {{ {} }};\n", all.join(", ")));
    }
    Some(result)
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

impl Definition<'_> {
    /// Whether what becomes of it depends on who calls it. Inline functions may compile as part of their callers only.
    fn is_local(&self) -> bool {
        self.local && !self.inline && !self.name.is_empty()
    }
}

/// What stands outside of functions and what their bodies are.
#[derive(Default)]
struct Outline<'a> {
    definitions: Vec<Definition<'a>>,
    /// Other braces: initial values among them.
    tables: Vec<Range<usize>>,
    /// Variables whose initial value is the site.
    variables: BTreeSet<&'a str>,
    /// Whether the site stands elsewhere outside of functions, or in brackets.
    misplaced: bool,
}

impl Outline<'_> {
    fn of(text: &str) -> Outline<'_> {
        // Where the last declaration ended, and where the last braces begin.
        let (mut found, mut end, mut start) = (Outline::default(), 0, 0);
        walk(text, |place, at, c| {
            match c {
                '{' if place.braces == 1 => start = at,
                '}' if place.braces == 0 && place.function => {
                    let before = &text[end..start];
                    let (inline, local) = (|word: &str| word.contains("inline"), |word: &str| word == "static");
                    found.definitions.push(Definition {
                        name: name_before(before),
                        inline: words(before).any(inline),
                        local: words(before).any(local),
                        body: start..at + 1,
                    });
                    end = at + 1;
                }
                '}' if place.braces == 0 => found.tables.push(start..at + 1),
                ';' if place.braces == 0 => end = at + 1,
                '_' if text[at..].starts_with(BEGIN) && !(place.braces > 0 && place.function) => {
                    let name = initialised(&text[end..at]).filter(|_| place.braces == 0);
                    found.misplaced |= name.is_none();
                    found.variables.extend(name);
                }
                '_' if text[at..].starts_with(BEGIN) => found.misplaced |= place.is_in_brackets(),
                _ => {}
            }
            false
        });
        found
    }
}

/// The variable that a text gives an initial value.
fn initialised(text: &str) -> Option<&str> {
    let (declared, _) = text.split_once('=').filter(|_| !text.contains('['))?;
    words(declared).last()
}

/// The name of the function whose parameters a text ends with; empty if it is not plain.
fn name_before(text: &str) -> &str {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate().rev() {
        match byte {
            b')' => depth += 1,
            b'(' => depth -= 1,
            _ => {}
        }
        if depth == 0 && byte == b'(' {
            let before = text[..at].trim_end();
            let start = before.rfind(|c: char| !is_word(c)).map_or(0, |at| at + 1);
            let name = &before[start..];
            return if name.starts_with("__attribute") { "" } else { name };
        }
    }
    ""
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The definitions that the site can reach, and those without a name.
fn kept(text: &str, definitions: &[Definition], variables: &BTreeSet<&str>, rest: Rest) -> BTreeSet<usize> {
    let mut named: HashMap<&str, Vec<usize>> = HashMap::new();
    definitions.iter().enumerate().for_each(|(n, d)| named.entry(d.name).or_default().push(n));
    let uses: Vec<BTreeSet<usize>> = definitions
        .iter()
        .map(|d| words(&text[d.body.clone()]).filter_map(|word| named.get(word)).flatten().copied().collect())
        .collect();
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); definitions.len()];
    for (n, used) in uses.iter().enumerate() {
        used.iter().for_each(|other| users[*other].push(n));
    }
    let marked = |body: &str| body.contains(BEGIN) || words(body).any(|word| variables.contains(word));
    let root = |d: &Definition| d.name.is_empty() || marked(&text[d.body.clone()]);
    let roots: BTreeSet<usize> = (0..definitions.len()).filter(|n| root(&definitions[*n])).collect();
    let above = reached(roots, |n| users[n].iter());
    let callers = |n: usize| rest == Rest::Callers && definitions[n].is_local();
    reached(above, |n| uses[n].iter().chain(users[n].iter().filter(move |_| callers(n))))
}

fn reached<'a, I: Iterator<Item = &'a usize>>(from: BTreeSet<usize>, next: impl Fn(usize) -> I) -> BTreeSet<usize> {
    let mut open: Vec<usize> = from.iter().copied().collect();
    let mut seen = from;
    while let Some(n) = open.pop() {
        open.extend(next(n).copied().filter(|other| seen.insert(*other)));
    }
    seen
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !is_word(c)).filter(|word| word.starts_with(|c: char| !c.is_ascii_digit()))
}

/// The definitions whose name is a string outside of functions.
fn named_in_strings(text: &str, definitions: &[Definition]) -> BTreeSet<usize> {
    let mut strings: BTreeSet<&str> = BTreeSet::new();
    let mut from = 0;
    let ends = definitions.iter().map(|d| d.body.clone()).chain(std::iter::once(text.len()..text.len()));
    for body in ends {
        strings.extend(text[from..body.start].split('"').skip(1).step_by(2));
        from = body.end;
    }
    (0..definitions.len()).filter(|n| strings.contains(definitions[*n].name)).collect()
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
        assert_eq!(reduced(&marked("static int x = @;\nint *all[] = { &x };\n"), Rest::Reached), None);
    }

    #[test]
    fn functions_without_a_plain_name_stay() {
        for text in ["int (*choose(int x))(int) { return 0; }\n", "int f(void) __attribute__((cold)) { return 1; }\n"] {
            assert_eq!(reduced(text, Rest::Reached).as_deref(), Some(text));
        }
    }
}
