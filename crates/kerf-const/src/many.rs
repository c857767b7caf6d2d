//! Works through a list of constants: each is stored when it is done, so a run that is interrupted goes on where it was.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

use crate::build::{Input, build};
use crate::entry::Entry;
use crate::error::ConstError;
use crate::scan::{self, Progress, Wanted};
use crate::site::Query;
use crate::table::{Attempt, Table};
use crate::tree::Tree;
use crate::variants::in_parallel;

/// What came of one query.
#[derive(Debug)]
pub struct Done {
    /// The query, as it was written.
    pub query: String,
    /// Its entries, or why there are none.
    pub result: Result<Vec<Entry>, ConstError>,
    /// How long it took.
    pub seconds: f64,
}

/// Reads a list: a query a line, or columns divided by tabs under a header in which `name` stands, and perhaps `file` and `place`; a place is
/// the query where there is one. What begins with `#` is left out, and a query that comes twice counts once. One that means nothing fails when
/// its turn comes, as others do.
pub fn read_list(text: &str) -> Vec<String> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).peekable();
    let header: Vec<&str> = lines.peek().map(|line| line.split('\t').map(str::trim).collect()).unwrap_or_default();
    let column = |wanted: &str| header.iter().position(|column| *column == wanted);
    let name = column("name");
    let (file, place) = (name.and_then(|_| column("file")), name.and_then(|_| column("place")));
    if name.is_some() {
        lines.next();
    }
    let mut seen = BTreeSet::new();
    let mut queries = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
        let field = |column: Option<usize>| fields.get(column?).copied().filter(|field| !field.is_empty());
        let name = fields.get(name.unwrap_or(0)).copied().unwrap_or_default();
        let query = match (field(place), field(file)) {
            (Some(place), _) => place.to_owned(),
            (None, Some(file)) if !name.contains(':') => format!("{file}:{name}"),
            _ => name.to_owned(),
        };
        if seen.insert(query.clone()) {
            queries.push(query);
        }
    }
    queries
}

/// The list that a scan gives, best first: the constants that score at least so much, in the files and directories `paths`, in all the
/// source if there are none. As long as source and configuration stay, it is the same in the same order.
///
/// # Errors
/// If a path is not in the source, or the source cannot be read.
pub fn scanned(tree: &Tree, paths: &[String], score: u32, progress: &dyn Progress) -> Result<Vec<String>, ConstError> {
    if let Some(path) = paths.iter().find(|path| !tree.root().join(path).exists()) {
        let why = "with --all, words are files and directories of the source, and it has no such one; a constant is built by its name \
                   without --all"
            .into();
        return Err(ConstError::BadQuery { query: path.clone(), why });
    }
    let candidates = scan::scan(tree, &Wanted { paths: paths.to_vec() }, progress)?;
    Ok(candidates.into_iter().filter(|c| c.score >= score).map(|c| c.site).collect())
}

/// The queries that were not tried before for this image.
///
/// # Errors
/// If the table cannot be read.
pub fn remaining(input: &Input, table: &Table, queries: &[String]) -> Result<Vec<String>, ConstError> {
    let tried: BTreeSet<String> = table.attempts(&build_id(input))?.into_iter().map(|attempt| attempt.query).collect();
    Ok(queries.iter().filter(|query| !tried.contains(*query)).cloned().collect())
}

fn build_id(input: &Input) -> String {
    input.image.build_id().map(|id| id.to_string()).unwrap_or_default()
}

/// Builds all of them, on all processors, and tells of each when it is stored. One that fails does not keep the others.
///
/// # Errors
/// The first one that the table gave; the rest was built nevertheless.
pub fn build_all(
    input: &Input,
    table: Table,
    queries: &[String],
    tell: &(dyn Fn(&Done) + Sync),
) -> Result<(), ConstError> {
    let (table, build_id) = (Mutex::new(table), build_id(input));
    let results = in_parallel(queries.len(), |n| {
        let done = try_one(input, &queries[n]);
        let stored = store(&table, &build_id, &done);
        tell(&done);
        stored
    });
    results.into_iter().collect()
}

/// The word for what gave no entry, beside the classes.
pub const FAILED: &str = "failed";

/// The classes of a query's entries, each once.
pub fn classes(entries: &[Entry]) -> String {
    let mut words: Vec<&str> = entries.iter().map(|entry| entry.class.word()).collect();
    words.sort_unstable();
    words.dedup();
    words.join(", ")
}

impl Done {
    /// The classes of its entries, or that it failed and why.
    pub fn words(&self) -> String {
        match &self.result {
            Ok(entries) => classes(entries),
            Err(error) => format!("{FAILED}: {error}"),
        }
    }
}

/// What the table says of a query that was tried.
#[derive(Debug)]
pub struct Outcome {
    /// The query, as it was written.
    pub query: String,
    /// The classes of its entries, or [`FAILED`].
    pub class: String,
    /// Why it is of its class, or why it failed.
    pub reason: String,
    /// How long it took.
    pub seconds: f64,
    /// Its entries.
    pub entries: Vec<Entry>,
}

/// What the table says of those queries that were tried for this image, in their order.
///
/// # Errors
/// If the table cannot be read.
pub fn outcomes(input: &Input, table: &Table, queries: &[String]) -> Result<Vec<Outcome>, ConstError> {
    let build = build_id(input);
    let attempts: BTreeMap<String, Attempt> =
        table.attempts(&build)?.into_iter().map(|attempt| (attempt.query.clone(), attempt)).collect();
    let entries: BTreeMap<String, Entry> =
        table.entries(Some(&build))?.into_iter().map(|entry| (entry.id.clone(), entry)).collect();
    let outcome = |query: &String| {
        let attempt = attempts.get(query)?;
        let own: Vec<Entry> = attempt.ids.iter().filter_map(|id| entries.get(id).cloned()).collect();
        let (class, reason) = match &attempt.failure {
            Some(failure) => (FAILED.to_owned(), failure.clone()),
            None => (classes(&own), own.first().map(|entry| entry.reason.clone()).unwrap_or_default()),
        };
        Some(Outcome { query: query.clone(), class, reason, seconds: attempt.seconds, entries: own })
    };
    Ok(queries.iter().filter_map(outcome).collect())
}

fn try_one(input: &Input, query: &str) -> Done {
    let start = Instant::now();
    let attempt = || Query::parse(query).and_then(|parsed| build(input, &parsed));
    // Nothing that the attempt could have left half-done is used by another one.
    let result = catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
    Done { query: query.to_owned(), result, seconds: start.elapsed().as_secs_f64() }
}

fn panicked(panic: &(dyn Any + Send)) -> ConstError {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    ConstError::Internal(text.unwrap_or("the analysis stopped without a word").to_owned())
}

fn store(table: &Mutex<Table>, build_id: &str, done: &Done) -> Result<(), ConstError> {
    let failure = done.result.as_ref().err().map(ToString::to_string);
    let entries = done.result.as_deref().unwrap_or_default();
    let ids = entries.iter().map(|entry| entry.id.clone()).collect();
    let (build_id, query, seconds) = (build_id.to_owned(), done.query.clone(), done.seconds);
    let attempt = Attempt { build_id, query, failure, ids, seconds };
    let mut table = table.lock().map_err(|_| ConstError::Internal("another thread stopped while it wrote".into()))?;
    table.store_attempt(entries, Some(&attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_names_or_columns() {
        assert_eq!(read_list("# mine\nA\n\n B \nA\nb/c.h:L3:4:0\n"), ["A", "B", "b/c.h:L3:4:0"]);
        let columns = "name\tfile\tline\nA\tblock/a.h\t3\nB\t\t4\nb.c:L1:2:0\tb.c\n";
        assert_eq!(read_list(columns), ["block/a.h:A", "B", "b.c:L1:2:0"]);
        assert_eq!(read_list("file\tname\nx/y.c\tZ\n"), ["x/y.c:Z"]);
        let places = "name\tfile\tplace\nthe cap\ta.c\ta.c:L3:4:0\nB\ta.c\t\n";
        assert_eq!(read_list(places), ["a.c:L3:4:0", "a.c:B"]);
        assert!(read_list("").is_empty());
        assert_eq!(read_list("A\n\n1x\n"), ["A", "1x"]);
    }

    #[test]
    fn a_panic_is_a_failure_like_others() {
        let error = panicked(catch_unwind(|| panic!("out of {}", "range")).unwrap_err().as_ref());
        assert!(error.to_string().contains("out of range"), "{error}");
    }
}
