//! One source file as tree-sitter reads it: the constants that it defines, its numbers, and what it does with names.

use std::collections::HashSet;
use std::ops::Range;

use tree_sitter::{Node, Parser, Tree};

use super::context::{self, Context};
use super::words;
use crate::error::ConstError;
use crate::site::{SiteKind, parse_integer};

/// A name with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The name.
    pub name: String,
    /// How it is written: macro, `static const` or enum member.
    pub kind: SiteKind,
    /// The text of the value.
    pub text: String,
    /// Where the text stands.
    pub range: Range<usize>,
    /// Line of the text, from 1.
    pub line: u32,
    /// The comment beside or above it.
    pub comment: Option<String>,
}

/// A use of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The name.
    pub name: String,
    /// Line, from 1.
    pub line: u32,
    /// What it is used for, if that can be said.
    pub context: Option<Context>,
}

/// A number in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    /// As it is written.
    pub text: String,
    /// Where.
    pub range: Range<usize>,
    /// Line, from 1.
    pub line: u32,
    /// What it is used for.
    pub context: Context,
    /// The comment on its line or above it.
    pub comment: Option<String>,
}

/// A name whose value goes into another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The name that is defined.
    pub by: String,
    /// The name that its value mentions.
    pub name: String,
}

/// What one file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Constants with a name.
    pub definitions: Vec<Definition>,
    /// Numbers in functions and initialisers, of those that have a use.
    pub numbers: Vec<Number>,
    /// Uses of names that are written in capitals, or that the file defines.
    pub uses: Vec<Use>,
    /// Names within the values of others.
    pub carried: Vec<Carried>,
}

/// Reads C; one for each thread.
pub struct Reader {
    parser: Parser,
}

impl Reader {
    /// # Errors
    /// If the grammar does not fit the library.
    pub fn new() -> Result<Reader, ConstError> {
        let mut parser = Parser::new();
        let set = parser.set_language(&tree_sitter_c::LANGUAGE.into());
        set.map_err(|e| ConstError::Internal(format!("the grammar of C: {e}")))?;
        Ok(Reader { parser })
    }

    /// What a file says. Whatever the grammar cannot read is passed over.
    pub fn read(&mut self, source: &str) -> Facts {
        let Some(tree) = self.parser.parse(source, None) else { return Facts::default() };
        let mut walk = Walk { source, facts: Facts::default(), local: HashSet::new(), bodies: Vec::new(), shift: 0 };
        walk.tree(&tree);
        for (line, name, body) in std::mem::take(&mut walk.bodies) {
            self.macro_body(&mut walk, line, &name, &body);
        }
        walk.facts
    }

    /// The uses in a function-like macro's body, which the grammar takes for text: read again as a function.
    fn macro_body(&mut self, walk: &mut Walk<'_>, line: u32, name: &str, body: &str) {
        let text = format!("int {name}(void) {{ return {}; }}", body.replace('\\', " "));
        let statements =
            body.trim_start().starts_with("do") || body.trim_start().starts_with('{') || body.contains(';');
        let text = if statements { text.replacen("return", "", 1) } else { text };
        let Some(tree) = self.parser.parse(&text, None) else { return };
        let local = std::mem::take(&mut walk.local);
        let mut inner = Walk { source: &text, facts: Facts::default(), local, bodies: Vec::new(), shift: line - 1 };
        inner.tree(&tree);
        walk.local = inner.local;
        walk.facts.uses.append(&mut inner.facts.uses);
    }
}

struct Walk<'a> {
    source: &'a str,
    facts: Facts,
    /// Names of this file that are not written in capitals.
    local: HashSet<String>,
    /// Bodies of function-like macros: line, name, text.
    bodies: Vec<(u32, String, String)>,
    /// Lines before the text in its file.
    shift: u32,
}

impl<'a> Walk<'a> {
    fn text(&self, node: Node<'_>) -> &'a str {
        self.source.get(node.byte_range()).unwrap_or_default()
    }

    fn line(&self, node: Node<'_>) -> u32 {
        node.start_position().row as u32 + 1 + self.shift
    }

    /// All nodes, with those around them at hand: asking a node for its parent walks down from the root each time.
    fn tree(&mut self, tree: &Tree) {
        let mut cursor = tree.walk();
        let mut around: Vec<Node<'_>> = Vec::new();
        loop {
            let node = cursor.node();
            if self.visit(node, &around) && cursor.goto_first_child() {
                around.push(node);
                continue;
            }
            while !cursor.goto_next_sibling() {
                if !cursor.goto_parent() {
                    return;
                }
                around.pop();
            }
        }
    }

    /// Whether to go on inside.
    fn visit(&mut self, node: Node<'_>, around: &[Node<'_>]) -> bool {
        match node.kind() {
            "identifier" => self.identifier(node, around),
            "number_literal" => self.number(node, around),
            "preproc_def" => {
                self.object_macro(node);
                return false;
            }
            "preproc_function_def" => {
                self.function_macro(node);
                return false;
            }
            "enumerator" => {
                if let (Some(name), Some(value)) = (node.child_by_field_name("name"), node.child_by_field_name("value"))
                {
                    self.define(name, value, SiteKind::Enum);
                }
                return false;
            }
            "init_declarator" if around.last().is_some_and(|outer| self.is_static_const(*outer)) => {
                if let (Some(name), Some(value)) =
                    (node.child_by_field_name("declarator"), node.child_by_field_name("value"))
                    && name.kind() == "identifier"
                    && !matches!(
                        value.kind(),
                        "initializer_list" | "string_literal" | "concatenated_string" | "char_literal"
                    )
                {
                    self.local.insert(self.text(name).to_owned());
                    self.define(name, value, SiteKind::Const);
                }
                return false;
            }
            "comment" | "string_literal" | "preproc_include" => return false,
            _ => {}
        }
        true
    }

    fn is_static_const(&self, node: Node<'_>) -> bool {
        if node.kind() != "declaration" {
            return false;
        }
        let head = self.text(node).split('=').next().unwrap_or_default();
        let has = |word: &str| head.split_whitespace().any(|w| w == word);
        has("static") && has("const")
    }

    fn identifier(&mut self, node: Node<'_>, around: &[Node<'_>]) {
        let name = self.text(node);
        if !words::is_capital(name) && !self.local.contains(name) {
            return;
        }
        if around.last().is_some_and(|outer| {
            outer.kind() == "call_expression" && outer.child_by_field_name("function") == Some(node)
        }) {
            return;
        }
        let context = context::classify(around, node, self.source);
        self.facts.uses.push(Use { name: name.to_owned(), line: self.line(node), context });
    }

    fn number(&mut self, node: Node<'_>, around: &[Node<'_>]) {
        let text = self.text(node);
        // What is written in hexadecimal is a pattern of bits; 0 and 1 are everywhere.
        let plain = !text.starts_with("0x") && !text.starts_with("0X");
        if !plain || parse_integer(text).is_none_or(|value| value < 2) || self.shift != 0 {
            return;
        }
        if !around.iter().any(|n| matches!(n.kind(), "function_definition" | "initializer_list")) {
            return;
        }
        if let Some(context) = context::classify(around, node, self.source) {
            let comment = comment(self.source, &node.byte_range());
            self.facts.numbers.push(Number {
                text: text.to_owned(),
                range: node.byte_range(),
                line: self.line(node),
                context,
                comment,
            });
        }
    }

    fn object_macro(&mut self, node: Node<'_>) {
        let (Some(name), Some(value)) = (node.child_by_field_name("name"), node.child_by_field_name("value")) else {
            return;
        };
        self.define(name, value, SiteKind::Macro);
    }

    fn function_macro(&mut self, node: Node<'_>) {
        let (Some(name), Some(value)) = (node.child_by_field_name("name"), node.child_by_field_name("value")) else {
            return;
        };
        let body = self.text(value);
        if names(body).any(words::is_capital) && body.len() < 4000 {
            self.bodies.push((self.line(value), self.text(name).to_owned(), body.to_owned()));
        }
    }

    fn define(&mut self, name: Node<'_>, value: Node<'_>, kind: SiteKind) {
        let Some(range) = crate::site::body(self.source, value.byte_range()) else { return };
        let (name, text) = (self.text(name), &self.source[range.clone()]);
        // A long value is a piece of code.
        if text.len() > 120 || !text.contains(|c: char| c.is_ascii_alphanumeric()) || text.contains(['"', '{', ';']) {
            return;
        }
        for part in names(text) {
            self.facts.carried.push(Carried { by: name.to_owned(), name: part.to_owned() });
        }
        let line = value.start_position().row as u32 + 1 + count(&self.source[value.start_byte()..range.start]);
        let comment = comment(self.source, &range);
        self.facts.definitions.push(Definition {
            name: name.to_owned(),
            kind,
            text: text.to_owned(),
            range,
            line,
            comment,
        });
    }
}

fn count(text: &str) -> u32 {
    text.bytes().filter(|b| *b == b'\n').count() as u32
}

/// The names in an expression.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|w| w.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
}

/// The comment that begins on the line of a text, else the one that ends on the line before.
fn comment(source: &str, range: &Range<usize>) -> Option<String> {
    let rest = &source[range.end..];
    let line = rest.split('\n').next().unwrap_or_default();
    if let Some(at) = line.find("/*") {
        let body = rest[at + 2..].split("*/").next().unwrap_or_default();
        return clean(body);
    }
    if let Some(at) = line.find("//") {
        return clean(&line[at + 2..]);
    }
    let start = source[..range.start].rfind('\n')?;
    let above = source[..start].trim_end_matches([' ', '\t']);
    let end = above.strip_suffix("*/")?;
    let begin = end.rfind("/*")?;
    // A comment beside the line above belongs to that line.
    let own = source[..begin].rsplit('\n').next().unwrap_or_default().trim().is_empty();
    if own { clean(&end[begin + 2..]) } else { None }
}

/// Comment text without the stars and white space between its lines.
fn clean(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().filter(|w| w.chars().any(|c| c != '*')).collect();
    (!words.is_empty()).then(|| words.join(" "))
}
