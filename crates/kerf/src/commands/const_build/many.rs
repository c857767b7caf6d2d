//! `kerf const build --from` and `--all`: a list of constants, with what came of each told as it is stored.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use kerf_const::many::{self, Done, FAILED, Outcome};
use serde_json::json;

use super::{Opened, constant_error};
use crate::commands::const_report::{Images, write_page};
use crate::commands::const_words::TableArgs;
use crate::{exit, print};

/// What a list asks for.
pub struct Wanted<'a> {
    /// The constants.
    pub queries: Vec<String>,
    /// Where the entries go.
    pub table: &'a TableArgs,
    /// Also those that were tried before.
    pub again: bool,
    /// Where the results go, a line each.
    pub report: Option<&'a Path>,
    /// Where the page about the whole table goes.
    pub page: Option<&'a Path>,
    /// Print JSON.
    pub json: bool,
}

/// Builds what is left of a list, and sums up.
pub fn build(opened: &Opened, wanted: &Wanted) -> anyhow::Result<u8> {
    let queries = &wanted.queries;
    let table = wanted.table.create().map_err(constant_error)?;
    let input = opened.input();
    let todo = if wanted.again { queries.clone() } else { many::remaining(&input, &table, queries)? };
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
    report(opened, wanted, todo.len())
}

/// The list in a file; `-` is standard input.
pub fn read(file: &Path) -> anyhow::Result<Vec<String>> {
    let text = if file == Path::new("-") { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(file) };
    Ok(many::read_list(&text.with_context(|| format!("read the list {}", file.display()))?))
}

fn sentence(done: &Done) -> String {
    format!("{} {} ({:.1} s)", done.query, done.words(), done.seconds)
}

/// All of the list, from the table: what was built now and what was built before.
fn report(opened: &Opened, wanted: &Wanted, tried: usize) -> anyhow::Result<u8> {
    let queries = &wanted.queries;
    let table = wanted.table.open()?;
    let outcomes = many::outcomes(&opened.input(), &table, queries)?;
    if let Some(file) = wanted.report {
        std::fs::write(file, columns(&outcomes)).with_context(|| format!("write {}", file.display()))?;
    }
    if let Some(file) = wanted.page {
        let images = Images { core: &opened.image, modules: opened.modules.as_deref() };
        let build = opened.image.build_id().map(|id| id.to_string()).unwrap_or_default();
        write_page(file, &table, &build, &images)?;
    }
    let mut counts = BTreeMap::<&str, usize>::new();
    outcomes.iter().for_each(|outcome| *counts.entry(&outcome.class).or_default() += 1);
    let failed = counts.get(FAILED).copied().unwrap_or(0);
    if wanted.json {
        print::json(&json!({ "queries": queries.len(), "tried": tried, "failed": failed, "classes": counts }))?;
    } else {
        let before = queries.len() - tried;
        print::text(&format!("{} constants: {tried} built now, {before} before", queries.len()))?;
        let rows = counts.iter().map(|(class, count)| vec![(*class).to_owned(), count.to_string()]);
        print::text(&print::table(&["CLASS", "COUNT"], rows))?;
    }
    Ok(if failed > 0 { exit::ExitCode::SomeFailed as u8 } else { 0 })
}

fn columns(outcomes: &[Outcome]) -> String {
    let line = |Outcome { query, class, reason, seconds, entries }: &Outcome| {
        let spans: usize = entries.iter().map(|entry| entry.spans.len()).sum();
        format!("{query}\t{class}\t{spans}\t{seconds:.1}\t{}\n", reason.replace(['\t', '\n'], " "))
    };
    "query\tclass\tspans\tseconds\treason\n".to_owned() + &outcomes.iter().map(line).collect::<String>()
}
