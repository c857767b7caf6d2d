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

/// How much of a long line is shown, in characters.
const SHOWN: usize = 110;

/// The line that holds the place, a line with carets under it, and what is to be said.
pub fn show(text: &str, span: Span, message: &str) -> String {
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(line_start..).and_then(|rest| rest.split('\n').next()).unwrap_or_default();
    let part = |from: usize, to: usize| text.get(from..to.min(line_start + line.len())).unwrap_or_default();
    let indent = part(line_start, span.start).chars().count();
    let width = part(span.start, span.end).chars().count().max(1);
    // A tab or another control character would move the carets away from the place.
    let characters: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let from = if characters.len() <= SHOWN { 0 } else { indent.saturating_sub(SHOWN / 2) };
    let to = characters.len().min(from + SHOWN);
    let (left, right) = (if from > 0 { "… " } else { "" }, if to < characters.len() { " …" } else { "" });
    let shown: String = characters.iter().skip(from).take(to - from).collect();
    let indent = indent - from + left.chars().count();
    let width = width.min((to - from).saturating_sub(indent).max(1));
    let mut lines = message.lines();
    let first = lines.next().unwrap_or_default();
    let mut out = format!("    {left}{shown}{right}\n    {}{} {first}", " ".repeat(indent), "^".repeat(width));
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
        let long = format!("{}pidd{}", "1 + ".repeat(100), " + 2".repeat(100));
        let shown = show(&long, Span { start: 400, end: 404 }, "here");
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() < 130), "{shown}");
        assert_eq!(lines[0].chars().position(|c| c == 'p'), lines[1].chars().position(|c| c == '^'));
        assert_eq!(show("", Span::default(), "nothing"), "    \n    ^ nothing");
    }
}
