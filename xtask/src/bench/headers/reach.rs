//! Which marks of a preprocessed unit can reach its code: those that no unused inline function keeps to itself.
//!
//! A header's inline function brings its marks into every unit that includes the header, and into the code only of those
//! that call it. What is not certain here counts as reaching.

use std::collections::{BTreeSet, HashMap};

/// What a mark is called; its number and two underscores follow.
pub const BEGIN: &str = "__kerf_begin_";
/// What the end of a marked text is called.
pub const END: &str = "__kerf_end_";

/// The numbers of all marks in a text.
pub fn present(text: &str) -> BTreeSet<usize> {
    text.match_indices(BEGIN).filter_map(|(at, _)| number(&text[at..])).collect()
}

fn number(word: &str) -> Option<usize> {
    word.strip_prefix(BEGIN)?.split("__").next()?.parse().ok()
}

/// The numbers of the marks that may reach code.
pub fn reaching(text: &str) -> BTreeSet<usize> {
    let items = items(text);
    let mut functions: HashMap<&str, Vec<usize>> = HashMap::new();
    for (n, item) in items.iter().enumerate() {
        functions.entry(item.function).or_default().extend((item.kind == Kind::Kept).then_some(n));
    }
    let mut seen = vec![false; items.len()];
    let mut pending: Vec<usize> = (0..items.len()).filter(|n| items[*n].kind == Kind::Emitted).collect();
    let mut marks = BTreeSet::new();
    while let Some(n) = pending.pop() {
        if std::mem::replace(&mut seen[n], true) {
            continue;
        }
        for word in words(items[n].text) {
            marks.extend(number(word));
            if let Some(named) = functions.get(word) {
                pending.extend(named.iter().filter(|f| !seen[**f]));
            }
        }
    }
    // A mark in a declaration or a type may reach code by its name.
    let declared = items.iter().filter(|item| item.kind == Kind::Declared);
    marks.extend(declared.flat_map(|item| present(item.text)));
    marks
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// The compiler emits it, whatever the others do: data, and functions that are not static.
    Emitted,
    /// A static function: emitted if something names it.
    Kept,
    /// A declaration or a type.
    Declared,
}

/// Something at the top of a unit.
struct Item<'a> {
    text: &'a str,
    function: &'a str,
    kind: Kind,
}

/// Cuts a preprocessed unit into what stands at its top.
fn items(text: &str) -> Vec<Item<'_>> {
    let (mut items, mut start) = (Vec::new(), 0);
    let (mut braces, mut parentheses, mut assigned) = (0_u32, 0_u32, false);
    let (mut last, mut body) = (b' ', None);
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let mut ends = false;
        match byte {
            b'#' if at == 0 || bytes[at - 1] == b'\n' => {
                at += bytes[at..].iter().position(|b| *b == b'\n').unwrap_or(bytes.len() - at);
                continue;
            }
            b'"' | b'\'' => at += quoted(&bytes[at..]) - 1,
            b'(' => parentheses += 1,
            b')' => parentheses = parentheses.saturating_sub(1),
            b'=' if braces == 0 && parentheses == 0 => assigned = true,
            b'{' => {
                if braces == 0 && parentheses == 0 && last == b')' && !assigned {
                    body = Some(at);
                }
                braces += 1;
            }
            b'}' => {
                braces = braces.saturating_sub(1);
                ends = braces == 0 && parentheses == 0 && body.is_some();
            }
            b';' => ends = braces == 0 && parentheses == 0,
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            last = byte;
        }
        at += 1;
        if ends {
            items.push(item(&text[start..at], body.map(|body| &text[start..body]), assigned));
            (start, body, assigned, last) = (at, None, false, b' ');
        }
    }
    items
}

/// Bytes of the literal that a text begins with.
fn quoted(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            _ if byte == bytes[0] => return at + 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

fn item<'a>(text: &'a str, head: Option<&'a str>, assigned: bool) -> Item<'a> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let first = lines.flat_map(words).find(|word| !word.starts_with("__"));
    let is_type = matches!(first, Some("struct" | "union" | "enum" | "typedef"));
    let Some(head) = head else {
        let declared = !assigned && (is_type || matches!(first, Some("extern")) || !text.contains(['{', '"']));
        return Item { text, function: "", kind: if declared { Kind::Declared } else { Kind::Emitted } };
    };
    let stays =
        words(head).any(|word| word == "static") && !words(head).any(|word| matches!(word, "used" | "__used__"));
    match function_name(head) {
        Some(function) if stays => Item { text, function, kind: Kind::Kept },
        _ => Item { text, function: "", kind: Kind::Emitted },
    }
}

/// The name before the last parentheses of a function's head that are no attribute's.
fn function_name(head: &str) -> Option<&str> {
    let (mut depth, mut found, mut from) = (0_u32, None, 0);
    for (at, byte) in head.bytes().enumerate() {
        match byte {
            b'(' => {
                if depth == 0 {
                    let name = words(&head[from..at]).last();
                    found = name.filter(|name| !name.starts_with("__attribute")).or(found);
                }
                depth += 1;
            }
            b')' => {
                depth = depth.saturating_sub(1);
                from = at;
            }
            _ => {}
        }
    }
    found
}

/// The words of a text, literals and line marks included: they only make more reach.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(text: &str) -> Vec<usize> {
        let marked = text.replace("@1", "__kerf_begin_1__ 8 __kerf_end_1__").replace("@2", "__kerf_begin_2__ 9 ");
        reaching(&marked).into_iter().collect()
    }

    #[test]
    fn only_used_inline_functions_bring_their_marks_along() {
        let header = "# 1 \"a.h\"\nstatic inline __attribute__((always_inline)) int f(struct s *p)\n{ return '{' + @1; }\n\
                      static inline __attribute__((__unused__)) int g(int x) { if (x) { return f(0); } return @2; }\nint h(int);\n";
        assert_eq!(reached(header), [0; 0]);
        assert_eq!(reached(&format!("{header}int h(int x) {{ return x; }}")), [0; 0]);
        assert_eq!(reached(&format!("{header}int h(int x) {{ return f(0); }}")), [1]);
        assert_eq!(reached(&format!("{header}int h(int x) {{ return g(0); }}")), [1, 2]);
        assert_eq!(reached(&format!("{header}struct o o = {{ .g = g }};")), [1, 2]);
        assert_eq!(reached(&format!("{header}\n# 2 \"b.h\"\nstruct t {{ int (*g)(int); }};")), [0; 0]);
        assert_eq!(reached(&format!("{header}static int k(void) {{ return g(0); }}")), [0; 0]);
    }

    #[test]
    fn what_is_emitted_or_not_understood_reaches() {
        assert_eq!(reached("int h(int x) __attribute__((cold)) { return @1; }"), [1]);
        assert_eq!(reached("static int __attribute__((__used__)) h(int x) { return @1; }"), [1]);
        assert_eq!(reached("static int limit = @1;"), [1]);
        assert_eq!(reached("struct s { char a[@1]; };"), [1]);
        assert_eq!(reached("enum { A = @1, B };"), [1]);
        assert_eq!(present("x __kerf_begin_12__ 3"), BTreeSet::from([12]));
    }

    #[test]
    fn names_stand_before_the_parameters() {
        assert_eq!(function_name("static int f(int (*g)(void), int h)"), Some("f"));
        assert_eq!(function_name("static __attribute__((cold)) int f(void) __attribute__((pure))"), Some("f"));
        assert_eq!(function_name("static struct s __attribute__((packed))"), None);
    }
}
