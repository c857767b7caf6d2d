//! `kerf const build --from`: a list of constants, with what came of each told as it is stored.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use kerf_const::entry::Entry;
use kerf_const::many::{self, Done};
use kerf_const::table::Table;
use serde_json::json;

use super::{Opened, constant_error};
use crate::commands::const_words::TableArgs;
use crate::{exit, print};

/// What a list asks for.
pub struct Wanted<'a> {
    /// The file; `-` is standard input.
    pub file: &'a Path,
    /// Where the entries go.
    pub table: &'a TableArgs,
    /// Also those that were tried before.
    pub again: bool,
    /// Where the results go, a line each.
    pub report: Option<&'a Path>,
    /// Print JSON.
    pub json: bool,
}

/// Builds what is left of a list, and sums up.
pub fn build(opened: &Opened, wanted: &Wanted) -> anyhow::Result<u8> {
    let queries = many::read_list(&read(wanted.file)?);
    let table = wanted.table.create().map_err(constant_error)?;
    let input = opened.input();
    let todo = if wanted.again { queries.clone() } else { many::remaining(&input, &table, &queries)? };
    let (bar, count) = (print::Spinner::steps("building constants", todo.len()), AtomicUsize::new(0));
    let told = |done: &Done| {
        bar.step();
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        // A terminal has the bar.
        if !io::stderr().is_terminal() {
            eprintln!("kerf: {number} of {}: {}", todo.len(), sentence(done));
        }
    };
    many::build_all(&input, table, &todo, &told)?;
    drop(bar);
    report(opened, wanted, &queries, todo.len())
}

fn read(file: &Path) -> anyhow::Result<String> {
    let text = if file == Path::new("-") { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(file) };
    text.with_context(|| format!("read the list {}", file.display()))
}

fn sentence(done: &Done) -> String {
    let what = match &done.result {
        Ok(entries) => classes(entries.iter()),
        Err(error) => format!("failed: {error}"),
    };
    format!("{} {what} ({:.1} s)", done.query, done.seconds)
}

/// The classes of a query's entries, each once.
fn classes<'a>(entries: impl Iterator<Item = &'a Entry>) -> String {
    let mut words: Vec<&str> = entries.map(|entry| entry.class.word()).collect();
    words.sort_unstable();
    words.dedup();
    words.join(", ")
}

/// All of the list, from the table: what was built now and what was built before.
fn report(opened: &Opened, wanted: &Wanted, queries: &[String], tried: usize) -> anyhow::Result<u8> {
    let build = opened.image.build_id().map(|id| id.to_string()).unwrap_or_default();
    let table: Table = wanted.table.open()?;
    let attempts: BTreeMap<String, _> =
        table.attempts(&build)?.into_iter().map(|attempt| (attempt.query.clone(), attempt)).collect();
    let entries = table.entries(Some(&build))?;
    let (mut rows, mut counts, mut failed) = (Vec::new(), BTreeMap::<String, usize>::new(), 0);
    for query in queries {
        let Some(attempt) = attempts.get(query) else { continue };
        let own: Vec<&Entry> = entries.iter().filter(|entry| is_of(entry, query)).collect();
        let class = if attempt.failure.is_some() { "failed".to_owned() } else { classes(own.iter().copied()) };
        failed += usize::from(attempt.failure.is_some());
        *counts.entry(class.clone()).or_default() += 1;
        let reason = attempt.failure.clone().or_else(|| own.first().map(|entry| entry.reason.clone()));
        let spans: usize = own.iter().map(|entry| entry.spans.len()).sum();
        rows.push((query, class, spans, attempt.seconds, reason.unwrap_or_default()));
    }
    if let Some(file) = wanted.report {
        let lines = rows.iter().map(|(query, class, spans, seconds, reason)| {
            format!("{query}\t{class}\t{spans}\t{seconds:.1}\t{}\n", reason.replace(['\t', '\n'], " "))
        });
        let text = "query\tclass\tspans\tseconds\treason\n".to_owned() + &lines.collect::<String>();
        std::fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
    }
    if wanted.json {
        print::json(&json!({ "queries": queries.len(), "tried": tried, "failed": failed, "classes": counts }))?;
    } else {
        let before = queries.len() - tried;
        print::text(&format!("{} constants: {tried} built now, {before} before", queries.len()))?;
        print::text(&print::table(
            &["CLASS", "COUNT"],
            counts.iter().map(|(class, n)| vec![class.clone(), n.to_string()]),
        ))?;
    }
    Ok(if failed > 0 { exit::ExitCode::SomeFailed as u8 } else { 0 })
}

/// Whether a query may have given this entry.
fn is_of(entry: &Entry, query: &str) -> bool {
    let name = entry.name.as_deref();
    match query.split_once(':') {
        None => name == Some(query),
        Some((file, rest)) => {
            entry.id == query || entry.file == file && (name == Some(rest) || entry.id.starts_with(query))
        }
    }
}
