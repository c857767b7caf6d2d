//! Sites: where a constant stands in the kernel's source, by macro name, by `file:Lline:value:index`, or by `file:Lline:NAME:index`.

use std::ops::Range;
use std::path::Path;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::error::ConstError;
use crate::grep;

/// The form in which the source writes a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SiteKind {
    /// The body of an object-like `#define`.
    Macro,
    /// A number in an expression.
    Literal,
    /// The initialiser of a `static const` variable.
    Const,
    /// The value of a member of an `enum`.
    Enum,
    /// The first content of a variable that is not `const`.
    Variable,
    /// One use of a name, on a line: the other uses keep their value.
    Use,
}

impl SiteKind {
    /// The word that tables and JSON use.
    pub fn word(self) -> &'static str {
        match self {
            SiteKind::Macro => "macro",
            SiteKind::Literal => "literal",
            SiteKind::Const => "const",
            SiteKind::Enum => "enum",
            SiteKind::Variable => "variable",
            SiteKind::Use => "use",
        }
    }
}

/// One token or expression of the source whose value is the constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Path relative to the top of the source tree.
    pub file: String,
    /// Line of the text, from 1.
    pub line: u32,
    /// Which token of that value in the line, from 0.
    pub index: u32,
    /// The name that the source gives the constant, if it has one.
    pub name: Option<String>,
    /// The form in which it is written.
    pub kind: SiteKind,
    /// The text that stands for the value.
    pub text: String,
    /// Bytes of the file that hold the text.
    pub range: Range<usize>,
}

impl Site {
    /// The identifier that names the site with a value: `file:Lline:value:index`; a use of a name is named by that.
    pub fn id(&self, value: &str) -> String {
        let value = if self.kind == SiteKind::Use { &self.text } else { value };
        format!("{}:L{}:{}:{}", self.file, self.line, value, self.index)
    }

    /// The name that people use, or the identifier where the source gives none.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id(self.text.trim()))
    }
}

/// What a user typed to name a constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// A macro, `static const`, enum member or variable.
    Name(String),
    /// The same, of one file only.
    NameIn {
        /// Path relative to the top of the tree.
        file: String,
        /// Its name.
        name: String,
    },
    /// A token on a line.
    Line {
        /// Path relative to the top of the tree.
        file: String,
        /// Line from 1.
        line: u32,
        /// Value the token must have.
        value: i128,
        /// Which of the tokens with that value.
        index: u32,
    },
    /// One use of a name on a line.
    Use {
        /// Path relative to the top of the tree.
        file: String,
        /// Line from 1.
        line: u32,
        /// The name that stands there.
        name: String,
        /// Which of its uses in the line.
        index: u32,
    },
}

impl Query {
    /// Reads a name, `file:name`, `file:Lline:value[:index]`, or `file:Lline:NAME[:index]`.
    pub fn parse(text: &str) -> Result<Query, ConstError> {
        let bad = |why: &str| ConstError::BadQuery { query: text.into(), why: why.into() };
        let parts: Vec<&str> = text.split(':').collect();
        if let [name] = parts[..] {
            let name = name.trim();
            return if is_name(name) {
                Ok(Query::Name(name.into()))
            } else {
                Err(bad("a name is letters, digits and underscores"))
            };
        }
        if let [file, name] = parts[..]
            && file.contains('.')
            && is_name(name)
        {
            return Ok(Query::NameIn { file: inside_tree(file).map_err(bad)?, name: name.into() });
        }
        if !(3..=4).contains(&parts.len()) {
            return Err(bad("a place is written FILE:Lline:value:index, for example block/blk.h:L335:32:0"));
        }
        let line = parts[1].strip_prefix('L').and_then(|l| l.parse().ok()).filter(|l| *l > 0);
        let line = line.ok_or_else(|| bad("the second part is the line, written L335"))?;
        let index = match parts.get(3) {
            None => 0,
            Some(i) => {
                i.parse().map_err(|_| bad("the last part counts the tokens of that value in the line, from 0"))?
            }
        };
        let file = inside_tree(parts[0]).map_err(bad)?;
        if is_name(parts[2]) {
            return Ok(Query::Use { file, line, name: parts[2].into(), index });
        }
        let value = parse_integer(parts[2]);
        let value =
            value.ok_or_else(|| bad("the third part is the value, an integer, or a name that is used there"))?;
        Ok(Query::Line { file, line, value, index })
    }
}

fn is_name(text: &str) -> bool {
    let fits = |(i, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit());
    !text.is_empty() && text.chars().enumerate().all(fits)
}

/// A path that leads out of the tree is refused.
fn inside_tree(file: &str) -> Result<String, &'static str> {
    let file = file.trim_start_matches("./");
    if file.is_empty() || file.starts_with('/') || file.split('/').any(|part| part == "..") {
        return Err("the file is a path relative to the top of the kernel source");
    }
    Ok(file.to_owned())
}

/// Reads a C integer literal with its suffix, or a decimal with a sign.
pub fn parse_integer(text: &str) -> Option<i128> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let digits = digits.trim_end_matches(['u', 'U', 'l', 'L']);
    let magnitude = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        i128::from_str_radix(hex, 16).ok()?
    } else if digits.len() > 1 && digits.starts_with('0') {
        i128::from_str_radix(&digits[1..], 8).ok()?
    } else {
        digits.parse().ok()?
    };
    Some(if negative { -magnitude } else { magnitude })
}

/// One integer literal found in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Literal {
    /// Its bytes in the text.
    pub range: Range<usize>,
    /// Its value.
    pub value: i128,
}

/// All integer literals of a text outside comments, strings and identifiers.
pub fn literals(text: &str) -> Vec<Literal> {
    let literal = |range: Range<usize>| Some(Literal { value: parse_integer(&text[range.clone()])?, range });
    words(text).into_iter().filter(|word| !is_name(&text[word.clone()])).filter_map(literal).collect()
}

/// All identifiers of a text outside comments and strings.
fn names(text: &str) -> Vec<Range<usize>> {
    words(text).into_iter().filter(|word| is_name(&text[word.clone()])).collect()
}

/// The identifiers and numbers of a text outside comments and strings.
fn words(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => break,
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                at = text[at + 2..].find("*/").map_or(bytes.len(), |end| at + end + 4);
            }
            quote @ (b'"' | b'\'') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            c if c.is_ascii_alphanumeric() || c == b'_' => {
                let start = at;
                let dots = c.is_ascii_digit();
                while at < bytes.len()
                    && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_' || dots && bytes[at] == b'.')
                {
                    at += 1;
                }
                found.push(start..at);
            }
            _ => at += 1,
        }
    }
    found
}

/// Finds the sites that a query names.
///
/// # Errors
/// An unknown name comes with suggestions; a wrong line or value says what stands there.
pub fn find(tree: &Path, query: &Query) -> Result<Vec<Site>, ConstError> {
    match query {
        Query::Name(name) => find_name(tree, name),
        Query::NameIn { file, name } => {
            let sites = definitions(file, &grep::read_source(tree, file)?, name);
            if sites.is_empty() {
                let name = format!("{file}:{name}");
                return Err(ConstError::UnknownName { name, suggestions: Vec::new() });
            }
            Ok(sites)
        }
        Query::Line { file, line, value, index } => find_line(tree, file, *line, *value, *index).map(|s| vec![s]),
        Query::Use { file, line, name, index } => find_use(tree, file, *line, name, *index).map(|s| vec![s]),
    }
}

fn find_name(tree: &Path, name: &str) -> Result<Vec<Site>, ConstError> {
    let files = grep::files_with_words(tree, &[name.to_string()])?;
    let mut sites = Vec::new();
    for file in &files {
        let text = grep::read_source(tree, file)?;
        sites.extend(definitions(file, &text, name));
    }
    if sites.is_empty() {
        return Err(ConstError::UnknownName { name: name.into(), suggestions: grep::similar_macros(tree, name)? });
    }
    // The common headers first, then the architecture's own: the order in which a reader would look.
    sites.sort_by_key(|s| (s.file.starts_with("arch/") as u8, s.file.clone(), s.line));
    Ok(sites)
}

/// All definitions of `name` in one file.
pub fn definitions(file: &str, text: &str, name: &str) -> Vec<Site> {
    let quoted = regex::escape(name);
    let forms = [
        (SiteKind::Macro, format!(r"(?m)^[ \t]*#[ \t]*define[ \t]+{quoted}(?P<v>[ \t](?:\\\n|\\.|[^\n\\])+)")),
        (
            SiteKind::Const,
            format!(
                r"(?m)^[ \t]*static\s+(?:__maybe_unused\s+)?(?:const\s+\w[\w \t]*|\w[\w \t]*\bconst)\s+{quoted}(?:\s+__\w+)*\s*=\s*(?P<v>[^;]+?)\s*;"
            ),
        ),
        (SiteKind::Enum, format!(r"(?m)^[ \t]*(?:enum\s+\w*\s*\{{\s*)?{quoted}\s*=\s*(?P<v>[^,\n}}]+)")),
        (
            SiteKind::Variable,
            format!(r#"(?m)^(?:[A-Za-z_]\w*[ \t]+)+{quoted}(?:\s+__\w+)*\s*=\s*(?P<v>[^;{{"]+?)\s*;"#),
        ),
    ];
    for (kind, pattern) in forms {
        let Ok(regex) = Regex::new(&pattern) else { continue };
        let sites: Vec<Site> = regex
            .captures_iter(text)
            .filter_map(|c| c.name("v"))
            .filter_map(|m| body(text, m.range()))
            .filter(|range| kind != SiteKind::Enum || inside_enum(text, range.start))
            .map(|range| Site {
                file: file.into(),
                line: line_of(text, range.start),
                index: 0,
                name: Some(name.into()),
                kind,
                text: text[range.clone()].to_string(),
                range,
            })
            .collect();
        if !sites.is_empty() {
            return sites;
        }
    }
    Vec::new()
}

/// The part of a definition that is its value: without comments and white space at the end.
pub(crate) fn body(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let mut part = &text[range.clone()];
    for mark in ["/*", "//"] {
        if let Some(at) = part.find(mark) {
            part = &part[..at];
        }
    }
    let blank = |c: char| c.is_whitespace() || c == '\\';
    let start = part.len() - part.trim_start_matches(blank).len();
    let part = part.trim_matches(blank);
    (!part.is_empty()).then(|| range.start + start..range.start + start + part.len())
}

/// Whether the innermost open brace before `at` belongs to an `enum`.
fn inside_enum(text: &str, at: usize) -> bool {
    let before = &text[..at];
    let mut depth = 0;
    for (i, c) in before.char_indices().rev() {
        match c {
            '}' => depth += 1,
            '{' if depth > 0 => depth -= 1,
            '{' => {
                let head = before[..i].trim_end();
                let start = head.rfind([';', '}', '{']).map_or(0, |p| p + 1);
                return head[start..].split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "enum");
            }
            _ => {}
        }
    }
    false
}

fn line_of(text: &str, at: usize) -> u32 {
    1 + text[..at].bytes().filter(|b| *b == b'\n').count() as u32
}

/// The first byte of a line, and what it reads.
fn line_in<'a>(text: &'a str, file: &str, line: u32) -> Result<(usize, &'a str), ConstError> {
    let mut start = 0;
    for (n, content) in text.split('\n').enumerate() {
        if n + 1 == line as usize {
            return Ok((start, content));
        }
        start += content.len() + 1;
    }
    Err(ConstError::NoSuchLine { file: file.into(), line, lines: text.split('\n').count() as u32 })
}

fn find_use(tree: &Path, file: &str, line: u32, name: &str, index: u32) -> Result<Site, ConstError> {
    let text = grep::read_source(tree, file)?;
    let (start, content) = line_in(&text, file, line)?;
    let used = names(content).into_iter().filter(|range| content[range.clone()] == *name).nth(index as usize);
    let Some(used) = used else {
        let (file, name, content) = (file.into(), name.into(), content.trim().into());
        return Err(ConstError::NoSuchUse { file, line, name, index, content });
    };
    let range = start + used.start..start + used.end;
    let (file, text) = (file.into(), name.into());
    Ok(Site { file, line, index, name: None, kind: SiteKind::Use, text, range })
}

fn find_line(tree: &Path, file: &str, line: u32, value: i128, index: u32) -> Result<Site, ConstError> {
    let text = grep::read_source(tree, file)?;
    let (start, content) = line_in(&text, file, line)?;
    let matching: Vec<Literal> = literals(content).into_iter().filter(|l| l.value == value).collect();
    if let Some(literal) = matching.get(index as usize) {
        let range = start + literal.range.start..start + literal.range.end;
        let (kind, name) = definition_around(content, &literal.range);
        return Ok(Site { file: file.into(), line, index, name, kind, text: text[range.clone()].to_string(), range });
    }
    // A definition whose body is an expression is named by the value of the whole.
    if index == 0
        && matching.is_empty()
        && !is_plain_number(content)
        && let Some(name) = defined_name(content)
        && let Some(site) = definitions(file, &text, &name).into_iter().find(|s| s.line == line)
    {
        return Ok(site);
    }
    let shown = literals(content).iter().map(|l| content[l.range.clone()].to_string()).collect();
    Err(ConstError::NoSuchValue {
        file: file.into(),
        line,
        value,
        index,
        content: content.trim().into(),
        literals: shown,
    })
}

/// Whether a line defines a name as one number: then that number is the value, and no other is.
fn is_plain_number(line: &str) -> bool {
    let Ok(define) = Regex::new(r"^\s*#\s*define\s+\w+\s+\(?\s*\w+\s*\)?\s*(/\*.*|//.*)?$") else { return false };
    define.is_match(line) && literals(line).len() == 1
}

/// The name that a line defines, if it is a `#define`, an initialised variable or an enum member.
fn defined_name(line: &str) -> Option<String> {
    let patterns = [
        r"^\s*#\s*define\s+(\w+)\s",
        r"\bconst\s+(?:\w+\s+)*?(\w+)(?:\s+__\w+)*\s*=",
        r"^\s*(\w+)\s*=\s*[^;]+,?\s*(/\*.*)?$",
    ];
    patterns.iter().find_map(|p| Regex::new(p).ok()?.captures(line)?.get(1).map(|m| m.as_str().to_string()))
}

/// A literal that is the whole value of a definition carries the definition's name.
fn definition_around(line: &str, literal: &Range<usize>) -> (SiteKind, Option<String>) {
    let alone = |text: &str| text.trim_matches(|c: char| c.is_whitespace() || "();,".contains(c)).is_empty();
    let Some(macro_form) = Regex::new(r"^\s*#\s*define\s+(\w+)\s+").ok().and_then(|r| r.captures(line)) else {
        return (SiteKind::Literal, None);
    };
    let (Some(whole), Some(name)) = (macro_form.get(0), macro_form.get(1)) else { return (SiteKind::Literal, None) };
    let after = line[literal.end..].split("/*").next().unwrap_or("");
    if whole.end() <= literal.start && alone(&line[whole.end()..literal.start]) && alone(after) {
        return (SiteKind::Macro, Some(name.as_str().to_string()));
    }
    (SiteKind::Literal, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_skip_comments_strings_and_names() {
        let found = literals("x32 = 0x20 + 32UL /* 7 */ + f(\"9\", '1') + 010; // 5");
        assert_eq!(found.iter().map(|l| l.value).collect::<Vec<_>>(), [32, 32, 8]);
    }

    #[test]
    fn a_use_of_a_name_is_a_site() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.c"), "int a;\n\tx = SIZE_MAX - SIZE /* SIZE */ + SIZE;\n").unwrap();
        let found = |index| find(dir.path(), &Query::parse(&format!("a.c:L2:SIZE:{index}")).unwrap());
        let site = &found(1).unwrap()[0];
        assert_eq!((site.range.clone(), site.id("7"), site.kind), (41..45, "a.c:L2:SIZE:1".into(), SiteKind::Use));
        assert_eq!(found(0).unwrap()[0].range, 23..27);
        let error = found(2).unwrap_err().to_string();
        assert!(error.contains("line 2 of a.c") && error.contains("SIZE"), "{error}");
    }

    #[test]
    fn macros_keep_their_body_and_lose_their_comment() {
        let text = "#define A 1\n#define LIMIT\t(128 * 1024) /* bytes */\n#define LIMIT2 3\n";
        let sites = definitions("f.h", text, "LIMIT");
        assert_eq!(sites.len(), 1);
        assert_eq!((sites[0].line, sites[0].text.as_str(), sites[0].kind), (2, "(128 * 1024)", SiteKind::Macro));
    }

    #[test]
    fn bodies_can_run_over_several_lines() {
        let text = "#define LONG \\\n\t(1 + \\\n\t 2)\nint x;\n";
        let sites = definitions("f.h", text, "LONG");
        assert!(sites[0].text.contains("(1 +") && sites[0].text.ends_with("2)"), "{:?}", sites[0].text);
    }

    #[test]
    fn variables_are_found_where_they_are_defined() {
        let text = "extern int slots;\nunsigned int slots\t\t= 7;\nstatic unsigned long ceiling __read_mostly = 33;\nvoid f(void)\n{\n\tint local = 5;\n\tslots = 9;\n}\n";
        let found = |name: &str| {
            definitions("a.c", text, name).into_iter().map(|s| (s.line, s.text, s.kind)).collect::<Vec<_>>()
        };
        assert_eq!(found("slots"), [(2, "7".to_string(), SiteKind::Variable)]);
        assert_eq!(found("ceiling"), [(3, "33".to_string(), SiteKind::Variable)]);
        assert_eq!(found("local"), []);
    }

    #[test]
    fn enum_members_and_static_consts_are_found() {
        let text = "enum {\n\tFIRST = 16,\n\tSECOND\t= 2 * HZ,\n};\nstatic const int depth = 5 * HZ;\nvoid f(void) { SECOND = 4; }\n";
        let second = definitions("f.c", text, "SECOND");
        assert_eq!((second.len(), second[0].kind, second[0].text.as_str()), (1, SiteKind::Enum, "2 * HZ"));
        let depth = definitions("f.c", text, "depth");
        assert_eq!((depth[0].kind, depth[0].text.as_str()), (SiteKind::Const, "5 * HZ"));
    }

    #[test]
    fn queries_are_read_and_refused() {
        assert_eq!(Query::parse("A_B").unwrap(), Query::Name("A_B".into()));
        let place = Query::parse("block/blk.h:L335:0x20:1").unwrap();
        assert_eq!(place, Query::Line { file: "block/blk.h".into(), line: 335, value: 32, index: 1 });
        let used = Query::parse("mm/page_alloc.c:L5639:SZ_1M").unwrap();
        assert_eq!(used, Query::Use { file: "mm/page_alloc.c".into(), line: 5639, name: "SZ_1M".into(), index: 0 });
        for bad in
            ["", "3x", "a:b", "a.c:335:3:0", "a.c:L0:3:0", "../a.c:L3:3:0", "a.c:L3:x+1:0", "a.c:L3:3:y", "a.c:L3:x:y"]
        {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_literal_that_is_a_whole_macro_carries_its_name() {
        let line = "#define BLK_MAX_REQUEST_COUNT\t32";
        let literal = &literals(line)[0];
        assert_eq!(definition_around(line, &literal.range), (SiteKind::Macro, Some("BLK_MAX_REQUEST_COUNT".into())));
        let line = "#define SIZE (8 * 4)";
        assert_eq!(definition_around(line, &literals(line)[0].range).0, SiteKind::Literal);
    }
}
