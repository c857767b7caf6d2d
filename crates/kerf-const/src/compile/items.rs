//! A preprocessed unit as its declarations and definitions: which names each declares, and which it needs.
//!
//! Where C is hard to tell apart without types, an item needs more than it has to: then two units differ that could be the same.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::LazyLock;

use super::marks::quoted;

/// Words that name nothing of the unit's own.
const KEYWORDS: &str = "struct union enum typedef static extern inline __inline __inline__ const volatile unsigned signed \
    int long short char void _Bool float double register auto if else while for do switch case default break continue return goto \
    sizeof __attribute__ __attribute __extension__ asm __asm__ __asm __volatile__ typeof __typeof__ __typeof _Static_assert \
    __signed__ __const __restrict restrict __builtin_va_list __int128 _Alignof __alignof__ _Generic __auto_type _Thread_local \
    __thread __label__";

/// How names begin that have a number of the preprocessor's in them.
const NUMBERED: [&str; 2] = ["__UNIQUE_ID_", "__compiletime_assert_"];

/// A declaration or definition outside of functions.
#[derive(Debug, Default)]
pub struct Item<'a> {
    /// Its text.
    pub tokens: Vec<&'a str>,
    /// Whether it is a function with its body.
    pub function: bool,
    /// The tag, if it defines a structure, union or enum and nothing else.
    pub tag: Option<&'a str>,
    /// Whether it only says that there is such a tag.
    pub forward: bool,
    /// Names that it declares.
    pub declares: Vec<&'a str>,
    /// Names that it needs.
    pub refers: Vec<&'a str>,
    /// Members that its code names.
    pub members: Vec<&'a str>,
    /// What it needs once the code names a member: member and name.
    pub behind: Vec<(&'a str, &'a str)>,
}

impl Item<'_> {
    /// Its text in one line. Names that the preprocessor has numbered through the unit are numbered through the item.
    pub fn text(&self) -> String {
        let mut numbered: Vec<&str> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        for token in &self.tokens {
            if !NUMBERED.iter().any(|prefix| token.starts_with(prefix)) {
                words.push((*token).to_owned());
                continue;
            }
            let known = numbered.iter().position(|name| name == token).unwrap_or_else(|| {
                numbered.push(token);
                numbered.len() - 1
            });
            words.push(format!("{}#{known}", token.trim_end_matches(|c: char| c.is_ascii_digit())));
        }
        words.join(" ")
    }
}

fn is_keyword(word: &str) -> bool {
    static WORDS: LazyLock<HashSet<&str>> = LazyLock::new(|| KEYWORDS.split(' ').collect());
    WORDS.contains(word)
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// A word that may name something.
fn is_name(token: &str) -> bool {
    is_word(token) && !is_keyword(token)
}

/// The words, numbers, texts and signs of a unit; what the preprocessor says of lines is left out.
pub fn tokens(text: &str) -> Vec<&str> {
    let own = |line: &&str| !line.starts_with('#') || line.starts_with("#pragma");
    let mut found = Vec::new();
    for line in text.lines().filter(own) {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let end = match first {
                '"' | '\'' => quoted(rest),
                c if c.is_ascii_alphanumeric() || c == '_' => {
                    rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len())
                }
                c => c.len_utf8(),
            };
            // A dot belongs to numbers only.
            let end = if is_word(rest) { rest[..end].find('.').unwrap_or(end) } else { end };
            found.push(&rest[..end]);
            rest = rest[end..].trim_start();
        }
    }
    found
}

/// Cuts a unit into items.
pub fn items<'a>(tokens: &[&'a str]) -> Vec<Item<'a>> {
    let (mut found, mut start, mut depth, mut function) = (Vec::new(), 0usize, 0usize, false);
    let mut top: Vec<&str> = Vec::new();
    for (n, token) in tokens.iter().enumerate() {
        let mut ends = false;
        match *token {
            "(" | "[" | "{" => {
                if depth == 0 {
                    if *token == "{" {
                        function = top.last() == Some(&"()") && !top.contains(&"=") && !top.contains(&"typedef");
                    }
                    open(&mut top, token);
                }
                depth += 1;
            }
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                ends = depth == 0 && *token == "}" && function;
            }
            ";" if depth == 0 => ends = true,
            other if depth == 0 => top.push(other),
            _ => {}
        }
        if ends {
            found.push(item(tokens, start..n + 1, &top, function));
            (start, function) = (n + 1, false);
            top.clear();
        }
    }
    found
}

/// Notes a group in brackets at the top of an item. Attributes are as if they were not there.
fn open(top: &mut Vec<&str>, token: &str) {
    let group = match token {
        "(" => "()",
        "[" => "[]",
        _ => "{}",
    };
    match top.last() {
        Some(&"__attribute__" | &"__attribute") => {
            top.pop();
        }
        Some(&"typeof" | &"__typeof__" | &"__typeof") if token == "(" => {}
        _ => top.push(group),
    }
}

fn item<'a>(tokens: &[&'a str], range: Range<usize>, top: &[&'a str], function: bool) -> Item<'a> {
    let own = &tokens[range];
    let first_brace = own.iter().position(|t| *t == "{").unwrap_or(own.len());
    let typed =
        !function && top.contains(&"{}") && !top.contains(&"=") && own[..first_brace].iter().any(|t| is_type(t));
    let (tags, defined) = tags(own);
    let declared = declarators(own, top, function);
    let pure = typed && declared.is_empty() && !top.contains(&"typedef");
    let mut item = Item {
        tokens: own.to_vec(),
        function,
        tag: defined.filter(|_| pure),
        forward: own.len() == 3 && is_type(own[0]),
        declares: tags.into_iter().chain(declared).collect(),
        ..Item::default()
    };
    match typed {
        true => of_type(&mut item, first_brace),
        false => of_code(&mut item, top),
    }
    item.refers.sort_unstable();
    item.refers.dedup();
    item
}

fn is_type(token: &str) -> bool {
    matches!(token, "struct" | "union" | "enum")
}

/// Behind the attributes that begin at `at`.
fn behind_attributes(own: &[&str], mut at: usize) -> usize {
    while own.get(at).is_some_and(|t| t.starts_with("__attribute")) {
        let mut depth = 0usize;
        at += 1;
        while let Some(token) = own.get(at) {
            at += 1;
            match *token {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    at
}

/// Tags and enum members that an item defines or announces, and the outermost tag with a body.
fn tags<'a>(own: &[&'a str]) -> (Vec<&'a str>, Option<&'a str>) {
    let (mut names, mut outermost) = (Vec::new(), None);
    for (n, token) in own.iter().enumerate().filter(|(_, t)| is_type(t)) {
        let at = behind_attributes(own, n + 1);
        let tag = own.get(at).copied().filter(|t| is_name(t));
        let at = at + usize::from(tag.is_some());
        let body = own.get(at) == Some(&"{");
        let announced = n == 0 && own.get(at) == Some(&";");
        if !body && !announced {
            continue;
        }
        names.extend(tag);
        if body && outermost.is_none() {
            outermost = tag;
        }
        if body && *token == "enum" {
            names.extend(members_of_enum(&own[at + 1..]));
        }
    }
    (names, outermost)
}

/// The first word of each part between commas, up to the closing brace.
fn members_of_enum<'a>(body: &[&'a str]) -> Vec<&'a str> {
    let (mut names, mut depth, mut expected) = (Vec::new(), 0usize, true);
    for token in body {
        match *token {
            "(" | "[" | "{" => depth += 1,
            "}" if depth == 0 => break,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            "," if depth == 0 => expected = true,
            name if expected && depth == 0 && is_name(name) => {
                names.push(name);
                expected = false;
            }
            _ => {}
        }
    }
    names
}

/// Variables, functions and types that an item declares.
fn declarators<'a>(own: &[&'a str], top: &[&'a str], function: bool) -> Vec<&'a str> {
    let (mut names, mut assigned) = (Vec::new(), false);
    for (n, token) in top.iter().copied().chain([";"]).enumerate() {
        if !matches!(token, "()" | "[]" | "=" | "," | ";" | "{}" | ":") {
            continue;
        }
        let before = n.checked_sub(1).map(|n| top[n]).filter(|t| is_name(t));
        let tagged = n >= 2 && is_type(top[n - 2]);
        names.extend(before.filter(|_| !assigned && !tagged));
        match token {
            "=" => assigned = true,
            "," => assigned = false,
            "()" if function && !names.is_empty() => break,
            _ => {}
        }
    }
    if names.is_empty() && top.contains(&"()") {
        // `int (*name)(void)`, or a name in brackets.
        let pointer = own.windows(2).position(|two| two[0] == "(" && matches!(two[1], "*" | "^"));
        names.extend(pointer.and_then(|at| own[at + 2..].iter().copied().find(|t| is_name(t))));
    }
    names
}

/// What the definition of a type needs: what its members are, or point to, once the code names them. How large they are shows in
/// where the others lie.
fn of_type<'a>(item: &mut Item<'a>, first_brace: usize) {
    let own = item.tokens.clone();
    if own.contains(&"enum") && item.tag.is_some() && own[0] == "enum" {
        item.refers.extend(own.iter().filter(|t| is_name(t)));
        return;
    }
    item.refers.extend(own[..first_brace].iter().filter(|t| is_name(t)));
    for statement in own[first_brace..].split(|t| matches!(*t, "{" | "}" | ";")) {
        let members = members(statement);
        let others = statement.iter().copied().filter(|t| is_name(t) && !members.contains(t));
        match members.is_empty() {
            true => item.refers.extend(others),
            false => {
                let each = others.flat_map(|name| members.iter().map(move |member| (*member, name)));
                item.behind.extend(each);
            }
        }
    }
}

/// The members that a declaration in a structure declares.
fn members<'a>(statement: &[&'a str]) -> Vec<&'a str> {
    // `int (*member)(struct a *)`: what is in the second brackets are parameters.
    let function = statement.windows(2).position(|two| two == ["(", "*"]);
    if let Some(at) = function {
        return statement[at + 2..].iter().copied().find(|t| is_name(t)).into_iter().collect();
    }
    let mut depth = 0usize;
    let mut found = Vec::new();
    for (n, token) in statement.iter().enumerate() {
        match *token {
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            name if depth == 0 && is_name(name) => {
                let next = statement.get(n + 1).copied().unwrap_or(";");
                let before = n.checked_sub(1).map_or("", |n| statement[n]);
                let ends = matches!(next, ";" | "," | "[" | ":") || next.starts_with("__attribute");
                if ends && before != ":" && !is_type(before) {
                    found.push(name);
                }
            }
            _ => {}
        }
    }
    found
}

/// What code needs: every name in it but those of members. What a declared function is given by pointers is its own matter.
fn of_code<'a>(item: &mut Item<'a>, top: &[&'a str]) {
    let own = item.tokens.clone();
    let prototype = !item.function && top.contains(&"()") && !top.contains(&"=") && !top.contains(&"typedef");
    let mut inside = false;
    for (n, token) in own.iter().enumerate() {
        inside |= *token == "(";
        if !is_name(token) {
            continue;
        }
        let before = |back: usize| n.checked_sub(back).map_or("", |n| own[n]);
        if before(1) == "." || (before(1) == ">" && before(2) == "-") {
            item.members.push(token);
            continue;
        }
        let pointed = prototype && inside && is_type(before(1)) && matches!(own.get(n + 1), Some(&"*" | &"const"));
        if !pointed {
            item.refers.push(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one<'a>(tokens: &'a [&'a str]) -> Item<'a> {
        let mut found = items(tokens);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn each_form_of_declaration_says_what_it_declares() {
        for (text, declares) in [
            ("struct a { int x; } __attribute__((packed));", vec!["a"]),
            ("typedef struct { int x; } a_t;", vec!["a_t"]),
            ("typedef int (*handler)(struct a *);", vec!["handler"]),
            ("extern int one, two[3];", vec!["one", "two"]),
            ("enum e { A = 1, B = (2 + A), C };", vec!["e", "A", "B", "C"]),
            ("static inline __attribute__((unused)) struct a *get(struct b *b) { return b->a; }", vec!["get"]),
            ("static const struct ops o = { .open = f, };", vec!["o"]),
            ("struct __attribute__((aligned(8))) s { int x; };", vec!["s"]),
            ("struct forward;", vec!["forward"]),
        ] {
            assert_eq!(one(&tokens(text)).declares, declares, "{text}");
        }
    }

    #[test]
    fn a_function_ends_with_its_body_and_a_variable_behind_its_value() {
        let tokens =
            tokens("int f(void) { if (1) { return 2; } return 3; } struct s v = { .a = (int[]){ 1 } }; int g;");
        let found = items(&tokens);
        assert_eq!(found.iter().map(|i| i.function).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(found[1].declares, ["v"]);
    }

    #[test]
    fn what_a_structure_holds_is_needed_with_its_member_only() {
        let tokens = tokens("struct a { struct b *p; struct c k, *l; u32 (*f)(struct d *); int n[SIZE]; e_t e:4; };");
        let item = one(&tokens);
        assert_eq!(item.refers, ["a"]);
        let expected = [("p", "b"), ("k", "c"), ("l", "c"), ("f", "u32"), ("f", "d"), ("n", "SIZE"), ("e", "e_t")];
        assert_eq!(item.behind, expected);
    }

    #[test]
    fn members_are_no_names_of_the_unit() {
        let tokens = tokens("int f(struct a *x) { return x->lock + x->b.free + lock(1.5, \"a ; b\"); }");
        let item = one(&tokens);
        assert_eq!(item.members, ["lock", "b", "free"]);
        assert!(item.refers.contains(&"lock") && !item.refers.contains(&"free"));
    }
}
