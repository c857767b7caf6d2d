//! Fast word search over a kernel source tree.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use regex::bytes::Regex;
use rustc_hash::FxHashSet;

use crate::error::ConstError;

/// Directories that no x86 kernel compiles code from.
const SKIPPED: [&str; 6] = ["Documentation", "tools", "scripts", "samples", "usr", "LICENSES"];

/// Reads one source file of the tree, tolerating bytes that are not UTF-8.
pub fn read_source(tree: &Path, file: &str) -> Result<String, ConstError> {
    let path = tree.join(file);
    match fs::read(&path) {
        Ok(bytes) => {
            Ok(String::from_utf8(bytes).unwrap_or_else(|e| e.into_bytes().iter().map(|b| *b as char).collect()))
        }
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(ConstError::NoSuchFile { file: file.into(), tree: tree.into() })
        }
        Err(source) => Err(ConstError::Io { what: "read", path, source }),
    }
}

/// All `.c` and `.h` files that an x86 build can see, relative to the tree, sorted.
pub fn source_files(tree: &Path) -> Result<Vec<String>, ConstError> {
    let mut files = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        let path = tree.join(&directory);
        let entries =
            fs::read_dir(&path).map_err(|source| ConstError::Io { what: "list", path: path.clone(), source })?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let relative = directory.join(name);
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                let skipped = directory.as_os_str().is_empty() && SKIPPED.contains(&name);
                let foreign = directory.as_os_str() == "arch" && name != "x86";
                // Kbuild makes directories such as `.tmp_123` and removes them while we look.
                if !skipped && !foreign && !name.starts_with('.') {
                    pending.push(relative);
                }
            } else if kind.is_file() && (name.ends_with(".c") || name.ends_with(".h")) && !name.ends_with(".mod.c") {
                files.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Applies `look` to the bytes of every source file on all processors and collects what it returns.
fn scan<T: Send>(tree: &Path, files: &[String], look: impl Fn(&str, &[u8]) -> Option<T> + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                // One buffer for all: fresh memory for each of so many files costs more than the search.
                let mut bytes = Vec::new();
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    bytes.clear();
                    let read = fs::File::open(tree.join(file)).and_then(|mut file| file.read_to_end(&mut bytes));
                    if read.is_err() {
                        continue;
                    }
                    if let Some(item) = look(file, &bytes)
                        && let Ok(mut found) = found.lock()
                    {
                        found.push(item);
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_default()
}

/// The source files that contain one of the words, sorted.
pub fn files_with_words(tree: &Path, words: &[String]) -> Result<Vec<String>, ConstError> {
    let files = source_files(tree)?;
    let mut found = match word_regex(words) {
        Ok(regex) => scan(tree, &files, |file, bytes| regex.is_match(bytes).then(|| file.to_string())),
        // A scan asks for thousands of words. Looking up each word of the source takes ten times as long, but has no limit.
        Err(regex::Error::CompiledTooBig(_)) => {
            let wanted: FxHashSet<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            scan(tree, &files, |file, bytes| has_word(bytes, &wanted).then(|| file.to_string()))
        }
        Err(error) => return Err(ConstError::Internal(format!("word search: {error}"))),
    };
    found.sort();
    Ok(found)
}

fn word_regex(words: &[String]) -> Result<Regex, regex::Error> {
    let any: Vec<String> = words.iter().map(|w| regex::escape(w)).collect();
    Regex::new(&format!(r"\b(?:{})\b", any.join("|")))
}

/// Whether one of some words stands in a text by itself.
fn has_word(text: &[u8], wanted: &FxHashSet<&[u8]>) -> bool {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
    text.split(|byte| !part(byte)).any(|word| !word.is_empty() && wanted.contains(word))
}

/// Names of macros in the tree that look like `name`: at most eight, nearest first.
pub fn similar_macros(tree: &Path, name: &str) -> Result<Vec<String>, ConstError> {
    let regex =
        Regex::new(r"(?m)^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+\S").map_err(|e| ConstError::Internal(e.to_string()))?;
    let files = source_files(tree)?;
    let wanted = name.to_ascii_uppercase();
    let near = scan(tree, &files, |_, bytes| {
        let names: Vec<(usize, String)> = regex
            .captures_iter(bytes)
            .filter_map(|c| std::str::from_utf8(c.get(1)?.as_bytes()).ok().map(str::to_string))
            .filter(|n| n.len().abs_diff(name.len()) <= 4)
            .map(|n| (strsim::damerau_levenshtein(&n.to_ascii_uppercase(), &wanted), n))
            .filter(|(distance, _)| *distance <= 2 + name.len() / 8)
            .collect();
        (!names.is_empty()).then_some(names)
    });
    let sorted: BTreeSet<(usize, String)> = near.into_iter().flatten().collect();
    Ok(sorted.into_iter().map(|(_, n)| n).take(8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_of_words_are_searched_at_once() {
        let dir = tempfile::tempdir().unwrap();
        // Words that have little in common, as names have.
        let word = |n: u64| format!("limit_{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        fs::write(dir.path().join("a.c"), format!("int {};\n", word(4999))).unwrap();
        fs::write(dir.path().join("b.c"), format!("int my_{}, {}0, limit;\n", word(7), word(8))).unwrap();
        let words: Vec<String> = (0..20_000).map(word).collect();
        assert!(word_regex(&words).is_err(), "they are too many for an expression");
        assert_eq!(files_with_words(dir.path(), &words).unwrap(), ["a.c"]);
        assert_eq!(files_with_words(dir.path(), &["limit".into()]).unwrap(), ["b.c"]);
    }

    #[test]
    fn only_what_this_kernel_can_be_built_from_is_searched() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a.c", "b/c.h", "b/c.mod.c", ".tmp_12/x.c", "arch/arm/y.c", "arch/x86/z.c", "tools/t.c"] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        assert_eq!(source_files(dir.path()).unwrap(), ["a.c", "arch/x86/z.c", "b/c.h"]);
    }
}
