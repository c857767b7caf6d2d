//! What the expression around a constant does with it.

use tree_sitter::Node;

use super::calls::{self, Call};
use super::words;

/// What a value is used for, at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Compared with a quantity.
    Threshold,
    /// An argument of a minimum, maximum or clamp.
    Bound,
    /// The bound of a loop.
    Loop,
    /// A time that the kernel waits, counts or arms a timer with.
    Interval,
    /// How much is done at a time, or how often something is tried.
    Batch,
    /// Multiplied, divided or shifted by.
    Scale,
    /// A wait for hardware.
    Delay,
    /// Handed to a function, returned, or stored where nothing says what for.
    Passed,
    /// Compared for equality.
    Equal,
    /// A label of a `switch`.
    Case,
    /// An operand of `&`, `|`, `^` or `~`.
    Mask,
    /// The dimension of an array, or the width of a bit field.
    Dimension,
    /// An index or offset.
    Index,
    /// The size of an allocation, a copy or a string.
    Size,
    /// An alignment.
    Align,
    /// Written to or read from a device's register.
    Register,
    /// An element of a table.
    Table,
    /// A condition of the preprocessor.
    Preprocessor,
}

/// One use of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// What for.
    pub role: Role,
    /// The other operand, the function or what is assigned, as the source writes it.
    pub with: String,
    /// Whether it is divided, multiplied or shifted on its way there.
    pub scaled: bool,
    /// Whether that is by a shift.
    pub shifted: bool,
}

/// Whether a text speaks of time: it names the clock or one of its units.
pub fn is_time(text: &str) -> bool {
    let word =
        |w: &str| matches!(w, "HZ" | "jiffies" | "now" | "expires" | "ktime_get" | "local_clock" | "sched_clock");
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|w| {
        word(w)
            || w.ends_with("SEC_PER_SEC")
            || w.ends_with("SEC_PER_MSEC")
            || w.ends_with("NSEC_PER_USEC")
            || w.ends_with("_to_jiffies")
            || w.ends_with("jiffies")
            || w.starts_with("ktime_get")
            || w.ends_with("USEC_PER_MSEC")
    })
}

/// What the nodes around a leaf do with it; the innermost is last.
pub fn classify(around: &[Node<'_>], leaf: Node<'_>, source: &str) -> Option<Context> {
    let text = |node: Node<'_>| source.get(node.byte_range()).unwrap_or_default();
    let (mut inner, mut argument) = (leaf, leaf);
    let (mut scaled, mut timed, mut factor) = (false, false, None::<(&str, bool, &str)>);
    for (at, &outer) in around.iter().enumerate().rev() {
        let found = |role: Role, with: &str| {
            let role =
                if timed && matches!(role, Role::Passed | Role::Threshold | Role::Bound | Role::Batch | Role::Scale) {
                    Role::Interval
                } else {
                    role
                };
            Some(Context {
                role,
                with: shorten(with),
                scaled,
                shifted: factor.is_some_and(|(operator, ..)| operator.len() == 2),
            })
        };
        match outer.kind() {
            "parenthesized_expression" | "cast_expression" | "comma_expression" => {}
            "unary_expression" if text(outer).starts_with('~') || text(outer).starts_with('!') => {
                return found(Role::Mask, text(outer));
            }
            "unary_expression" => {}
            "binary_expression" => {
                let operator = outer.child_by_field_name("operator").map(text).unwrap_or_default();
                let left = outer.child_by_field_name("left").is_some_and(|l| l.id() == inner.id());
                let other =
                    outer.child_by_field_name(if left { "right" } else { "left" }).map(text).unwrap_or_default();
                match operator {
                    "<" | ">" | "<=" | ">=" if timed || is_time(other) => return found(Role::Interval, other),
                    "<" | ">" | "<=" | ">=" => {
                        return found(if in_loop(&around[..at], outer) { Role::Loop } else { Role::Threshold }, other);
                    }
                    "==" | "!=" => return found(Role::Equal, other),
                    "&" | "|" | "^" => return found(Role::Mask, other),
                    "&&" | "||" => return None,
                    "<<" | ">>" | "*" | "/" | "%" => {
                        timed |= is_time(other);
                        scaled = true;
                        if !number(other) {
                            factor.get_or_insert((operator, left, other));
                        }
                    }
                    _ => timed |= is_time(other),
                }
            }
            "conditional_expression"
                if outer.child_by_field_name("condition").is_some_and(|c| c.id() == inner.id()) =>
            {
                return None;
            }
            // One of its two values.
            "conditional_expression" => {}
            "argument_list" => argument = inner,
            "call_expression" => {
                let name = outer.child_by_field_name("function").map(text).unwrap_or_default();
                if name == "WRITE_ONCE" {
                    let target = others(inner, argument, source);
                    return stored(target.split(',').next().unwrap_or_default(), factor, scaled, timed);
                }
                match calls::call(name) {
                    Call::On(factor) => scaled |= factor,
                    Call::Ends(Role::Bound) => return found(Role::Bound, &others(inner, argument, source)),
                    Call::Ends(role) => return found(role, name),
                    Call::Unknown if words::leaning(name).strong > 0 => return found(Role::Batch, name),
                    Call::Unknown => return found(Role::Passed, name),
                }
            }
            "assignment_expression" | "init_declarator" | "initializer_pair" => {
                let field = match outer.kind() {
                    "assignment_expression" => "left",
                    "init_declarator" => "declarator",
                    _ => "designator",
                };
                let target = outer.child_by_field_name(field);
                if target.is_some_and(|t| t.id() == inner.id()) {
                    return None;
                }
                let target = target.map(text).unwrap_or_default();
                let operator = outer.child_by_field_name("operator").map(text).unwrap_or("=");
                return match operator {
                    "&=" | "|=" | "^=" => found(Role::Mask, target),
                    "*=" | "/=" | "<<=" | ">>=" | "%=" => found(Role::Scale, target),
                    _ => stored(target, factor, scaled, timed),
                };
            }
            "return_statement" => {
                let function = around
                    .iter()
                    .rev()
                    .find(|n| n.kind() == "function_definition")
                    .and_then(|f| f.child_by_field_name("declarator"))
                    .map(text)
                    .unwrap_or_default();
                let function = function.split('(').next().unwrap_or_default();
                return stored(function, factor, scaled, timed);
            }
            "case_statement" => return found(Role::Case, ""),
            "array_declarator" | "bitfield_clause" => return found(Role::Dimension, text(outer)),
            "subscript_expression" | "subscript_designator" | "subscript_range_designator" => {
                return found(Role::Index, text(outer));
            }
            "initializer_list" => return found(Role::Table, ""),
            "preproc_if" | "preproc_elif" | "preproc_ifdef" => return found(Role::Preprocessor, ""),
            "sizeof_expression" | "gnu_asm_expression" | "enumerator" | "preproc_def" | "attribute_specifier" => {
                return None;
            }
            kind if kind.ends_with("_statement")
                || kind == "declaration"
                || kind == "compound_statement"
                || kind == "field_declaration" =>
            {
                return factor.and_then(|(_, _, other)| found(Role::Scale, other));
            }
            _ => {}
        }
        inner = outer;
    }
    None
}

/// What is stored under a name: the name says what for.
fn stored(target: &str, factor: Option<(&str, bool, &str)>, scaled: bool, timed: bool) -> Option<Context> {
    let last = target.rsplit(['.', '>', '*', ' ']).next().unwrap_or(target);
    let leaning = words::leaning(last);
    let (role, with) = match factor {
        _ if timed => (Role::Interval, target),
        // What a shifted or multiplied value comes from says more than where it goes.
        Some((operator, left, other)) if !(left && matches!(operator, "<<" | ">>")) => {
            (Role::Scale, if words::leaning(other).strong == 0 && leaning.strong > 0 { target } else { other })
        }
        _ if leaning.strong > 0 || leaning.weak > 0 && leaning.foreign == 0 => (Role::Batch, target),
        _ => (Role::Passed, target),
    };
    Some(Context {
        role,
        with: shorten(with),
        scaled,
        shifted: factor.is_some_and(|(operator, ..)| operator.len() == 2),
    })
}

/// Whether a comparison is the condition of a loop.
fn in_loop(around: &[Node<'_>], comparison: Node<'_>) -> bool {
    let mut inner = comparison;
    for &outer in around.iter().rev() {
        match outer.kind() {
            "for_statement" | "while_statement" | "do_statement" => {
                return outer.child_by_field_name("condition").is_some_and(|c| c.id() == inner.id());
            }
            "binary_expression" | "parenthesized_expression" | "call_expression" | "argument_list" => inner = outer,
            _ => return false,
        }
    }
    false
}

/// The other arguments of a call.
fn others(list: Node<'_>, own: Node<'_>, source: &str) -> String {
    let mut cursor = list.walk();
    let arguments = list.named_children(&mut cursor).filter(|node| node.id() != own.id());
    arguments.filter_map(|node| source.get(node.byte_range())).collect::<Vec<_>>().join(", ")
}

fn number(text: &str) -> bool {
    crate::site::parse_integer(text.trim_matches(['(', ')', ' '])).is_some()
}

/// Enough of an expression to recognise it.
pub(super) fn shorten(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
