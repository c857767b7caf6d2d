//! Where in a text something stands, and how to show it.

/// A part of an expression, in bytes: `start` up to but not including `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte behind the last.
    pub end: usize,
}

impl Span {
    /// From the beginning of one part to the end of another.
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start, end: other.end.max(self.start) }
    }
}

/// The line that holds the place, a line with carets under it, and what is to be said.
pub fn show(text: &str, span: Span, message: &str) -> String {
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(line_start..).unwrap_or_default();
    let line = line.split('\n').next().unwrap_or_default();
    let part = |from: usize, to: usize| text.get(from..to.min(line_start + line.len())).unwrap_or_default();
    let indent = part(line_start, span.start).chars().count();
    let width = part(span.start, span.end).chars().count().max(1);
    // A tab or another control character would move the carets away from the place.
    let shown: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut lines = message.lines();
    let first = lines.next().unwrap_or_default();
    let mut out = format!("    {shown}\n    {}{} {first}", " ".repeat(indent), "^".repeat(width));
    for line in lines {
        out += &format!("\n    {line}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carets_stand_under_the_place() {
        let shown = show("pid ==\n  pidd", Span { start: 9, end: 13 }, "one\ntwo");
        assert_eq!(shown, "      pidd\n      ^^^^ one\n    two");
        let umlaut = show("comm == \"ä\" x", Span { start: 13, end: 14 }, "here");
        assert_eq!(umlaut, "    comm == \"ä\" x\n                ^ here");
        assert_eq!(show("pid", Span { start: 3, end: 3 }, "the end"), "    pid\n       ^ the end");
        assert_eq!(show("", Span::default(), "nothing"), "    \n    ^ nothing");
    }
}
