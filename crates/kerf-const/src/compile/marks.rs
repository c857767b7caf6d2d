//! The marks around a site in preprocessed text, and what stands around them.

/// Stands before the site's text.
pub(super) const BEGIN: &str = "__kerf_site_begin__";
/// Stands after it.
pub(super) const END: &str = "__kerf_site_end__";

pub(super) fn mark_in_string(text: &str) -> bool {
    text.lines().filter(|l| l.contains(BEGIN)).any(|line| {
        let before = line.split(BEGIN).next().unwrap_or("");
        before.bytes().filter(|b| *b == b'"').count() % 2 == 1
    })
}

/// Replaces every marked text by the value, with the type of the original, or takes the marks away.
pub(super) fn substitute(text: &str, value: Option<i128>) -> String {
    replaced(text, |body| {
        let value = value?;
        let shown = if value > i128::from(i64::MAX) { format!("{value}ULL") } else { format!("{value}LL") };
        Some(format!(" ((__typeof__({}))({shown})) ", without_line_marks(body)))
    })
}

/// The variable that [`probed`] puts in the place of the site.
pub(super) const PROBE: &str = "kerf_probe";

/// The text with a variable of another object in the place of the site: code that the compiler makes of the site refers to it.
pub(super) fn probed(text: &str) -> String {
    let variable = |body: &str| Some(format!(" ((__typeof__({}))({PROBE})) ", without_line_marks(body)));
    format!("extern const long long {PROBE};\n{}", replaced(text, variable))
}

/// The text with something else in the place of what stands between marks, or that itself.
fn replaced(text: &str, by: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (body, after) = after.split_once(END).unwrap_or((after, ""));
        result.push_str(before);
        match by(body) {
            None => result.push_str(body),
            Some(other) => {
                result.push_str(&other);
                // Line marks inside the body keep the numbers of the lines that follow.
                for line in body.lines().filter(|l| l.starts_with('#')) {
                    result.push_str(&format!("\n{line}\n"));
                }
            }
        }
        rest = after;
    }
    result.push_str(rest);
    result
}

pub(super) fn without_line_marks(text: &str) -> String {
    text.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>().join(" ")
}

/// Whether all marks of a preprocessed text stand in function bodies and outside brackets.
pub(super) fn marks_only_in_statements(text: &str) -> bool {
    let misplaced = |place: &Place| place.braces == 0 || place.brackets > 0 || !place.function;
    !walk(text, |place, at, _| text[at..].starts_with(BEGIN) && misplaced(place))
}

/// The whole declarations and functions of a preprocessed text that stand before the first mark.
pub(super) fn declarations_before(text: &str) -> &str {
    let mut end = 0;
    walk(text, |place, at, c| {
        if place.braces == 0 && (c == ';' || (c == '}' && place.function)) {
            end = at + 1;
        }
        text[at..].starts_with(BEGIN)
    });
    &text[..end]
}

/// Where a character of C stands.
#[derive(Default)]
struct Place {
    /// Braces around it; a closing one stands outside of its own.
    braces: u32,
    brackets: u32,
    /// Whether the outermost brace opened last is a function's.
    function: bool,
}

/// Shows every character outside literals and line marks with its place and offset until one is what is sought.
fn walk(text: &str, mut sought: impl FnMut(&Place, usize, char) -> bool) -> bool {
    let (mut place, mut last, mut at) = (Place::default(), ' ', 0);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let width = match c {
            '#' if at == 0 || text.as_bytes()[at - 1] == b'\n' => rest.find('\n').unwrap_or(rest.len()),
            '"' | '\'' => quoted(rest),
            _ => c.len_utf8(),
        };
        match c {
            '{' => {
                if place.braces == 0 {
                    place.function = last == ')';
                }
                place.braces += 1;
            }
            '}' => place.braces = place.braces.saturating_sub(1),
            '[' => place.brackets += 1,
            ']' => place.brackets = place.brackets.saturating_sub(1),
            _ => {}
        }
        if width == c.len_utf8() && sought(&place, at, c) {
            return true;
        }
        if !c.is_whitespace() && c != '#' {
            last = c;
        }
        at += width;
    }
    false
}

/// Bytes of the string or character literal that a text begins with.
pub(super) fn quoted(text: &str) -> usize {
    let mut bytes = text.bytes().enumerate();
    let Some((_, quote)) = bytes.next() else { return 0 };
    while let Some((at, byte)) = bytes.next() {
        if byte == b'\\' {
            bytes.next();
        } else if byte == quote {
            return at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitution_keeps_the_type_and_the_rest() {
        let text = format!("a = {BEGIN} (2U) {END} + {BEGIN} (2U) {END};");
        assert_eq!(substitute(&text, None), "a =  (2U)  +  (2U) ;");
        let new = substitute(&text, Some(7));
        assert_eq!(new.matches("(7LL)").count(), 2);
        assert!(new.contains("__typeof__( (2U) )"));
    }

    #[test]
    fn the_probe_has_the_type_of_the_site() {
        let text = format!("a = {BEGIN} (2U) {END};");
        assert_eq!(probed(&text), "extern const long long kerf_probe;\na =  ((__typeof__( (2U) ))(kerf_probe)) ;");
    }

    #[test]
    fn marks_that_may_decide_a_layout_are_seen() {
        let inside = |text: &str| marks_only_in_statements(&text.replace('@', &format!("{BEGIN} 3 {END}")));
        assert!(inside("int f(int x)\n{\n if (x > @) g(\"[{\\\"\", '\\''); return @;\n}\n"));
        assert!(!inside("struct s { void *p[@]; };"));
        assert!(!inside("struct s { int x : @; };"));
        assert!(!inside("enum { A = @ };"));
        assert!(!inside("int f(void) { int local[@]; return 0; }"));
        assert!(!inside("static int limit = @;"));
    }

    #[test]
    fn what_is_declared_before_a_mark_is_whole() {
        let before = "# 1 \"a;b\"\nstruct s { int x; };\nint g(char *p) { if (p) { return ';'; } }\n";
        let text = |rest: &str| format!("{before}{rest}{BEGIN} 3 {END}; }}\nint after;\n");
        for rest in ["int f(void) { g(\"}\"); return ", "enum e { A = 2, B = ", "static int limit[] = { 1, 2, "] {
            assert_eq!(declarations_before(&text(rest)), before.trim_end(), "{rest}");
        }
        assert_eq!(declarations_before(&format!("int x[{BEGIN} 3 {END}];")), "");
    }

    #[test]
    fn marks_in_strings_are_seen() {
        assert!(mark_in_string(&format!("x = \"{BEGIN} 3 {END}\";")));
        assert!(!mark_in_string(&format!("x = \"a\" + {BEGIN} 3 {END};")));
    }
}
