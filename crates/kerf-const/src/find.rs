//! Sites by pattern and by line, for people who look around.

use std::path::Path;

use regex::Regex;

use crate::error::ConstError;
use crate::grep;
use crate::site::{self, Query, Site};
use crate::variants::in_parallel;

/// The definitions whose name matches a pattern in which `*` stands for any characters and `?` for one.
///
/// # Errors
/// [`ConstError::BadQuery`] if the pattern is none, [`ConstError::UnknownName`] if nothing matches.
pub fn matching(tree: &Path, pattern: &str) -> Result<Vec<Site>, ConstError> {
    let valid = pattern.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '*' | '?'));
    if !valid || !pattern.contains(|c: char| c.is_ascii_alphanumeric()) {
        let why = "a pattern is a name with * for any characters and ? for one".into();
        return Err(ConstError::BadQuery { query: pattern.into(), why });
    }
    let name = pattern.replace('*', r"\w*").replace('?', r"\w");
    let definition =
        format!(r"(?m)^[ \t]*(?:#[ \t]*define[ \t]+|static[^;=\n]*\bconst\b[^;=\n]*\s|)({name})\s*(?:=|[ \t])");
    let regex = Regex::new(&definition).map_err(|e| ConstError::Internal(e.to_string()))?;
    let files = grep::source_files(tree)?;
    let found = in_parallel(files.len(), |n| {
        let Ok(text) = grep::read_source(tree, &files[n]) else { return Vec::new() };
        let mut names: Vec<&str> = regex.captures_iter(&text).filter_map(|c| c.get(1)).map(|m| m.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().flat_map(|name| site::definitions(&files[n], &text, name)).collect()
    });
    let sites: Vec<Site> = found.into_iter().flatten().filter(|s| site::literals(&s.text).len() <= 64).collect();
    if sites.is_empty() {
        return Err(ConstError::UnknownName { name: pattern.into(), suggestions: Vec::new() });
    }
    Ok(sites)
}

/// For `FILE:Lline`: every integer on that line. `None` if the text is something else.
///
/// # Errors
/// If the file or the line is not there, or the line holds no integer.
pub fn on_line(tree: &Path, text: &str) -> Result<Option<Vec<Site>>, ConstError> {
    let Some((file, line)) = text.split_once(":L").filter(|(_, line)| line.bytes().all(|b| b.is_ascii_digit())) else {
        return Ok(None);
    };
    let probe = Query::parse(&format!("{text}:0"))?;
    let content = grep::read_source(tree, file)?;
    let number: u32 = line.parse().unwrap_or(0);
    let Some(content) = content.lines().nth(number.saturating_sub(1) as usize) else {
        return site::find(tree, &probe).map(Some);
    };
    let mut sites = Vec::new();
    let mut seen: Vec<i128> = Vec::new();
    for literal in site::literals(content) {
        let index = seen.iter().filter(|v| **v == literal.value).count() as u32;
        seen.push(literal.value);
        let query = Query::Line { file: file.into(), line: number, value: literal.value, index };
        sites.extend(site::find(tree, &query)?);
    }
    if sites.is_empty() { site::find(tree, &probe).map(Some) } else { Ok(Some(sites)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("kernel")).unwrap();
        let text = "#define MAX_A 10\n#define MAX_B  (2 * 10)\n#define MIN_A 1\nstatic const int max_c = 3;\nint f(int x) { return x * 8 + 8; }\nenum { MAX_E = 7 };\n";
        std::fs::write(dir.path().join("kernel/a.c"), text).unwrap();
        dir
    }

    #[test]
    fn patterns_find_definitions() {
        let dir = tree();
        let names = |pattern: &str| -> Vec<String> {
            matching(dir.path(), pattern).unwrap().into_iter().filter_map(|s| s.name).collect()
        };
        assert_eq!(names("MAX_?"), ["MAX_A", "MAX_B"]);
        assert_eq!(names("M*_A"), ["MAX_A", "MIN_A"]);
        assert_eq!(names("max_*"), ["max_c"]);
        assert!(matches!(matching(dir.path(), "NO_*"), Err(ConstError::UnknownName { .. })));
        assert!(matches!(matching(dir.path(), "*"), Err(ConstError::BadQuery { .. })));
        assert!(matches!(matching(dir.path(), "a(b*"), Err(ConstError::BadQuery { .. })));
    }

    #[test]
    fn a_line_shows_its_integers() {
        let dir = tree();
        let found = on_line(dir.path(), "kernel/a.c:L5").unwrap().unwrap();
        let shown: Vec<(String, u32)> = found.into_iter().map(|s| (s.text, s.index)).collect();
        assert_eq!(shown, [("8".to_string(), 0), ("8".to_string(), 1)]);
        assert!(on_line(dir.path(), "kernel/a.c:L5:8").unwrap().is_none());
        assert!(on_line(dir.path(), "MAX_A").unwrap().is_none());
        assert!(matches!(on_line(dir.path(), "kernel/a.c:L99"), Err(ConstError::NoSuchLine { .. })));
    }
}
