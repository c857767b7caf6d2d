//! `kerf const find --scan`: constants that are likely to govern performance, as a table or as JSON.

use std::sync::OnceLock;

use kerf_const::scan::{self, Candidate, Progress, Wanted, history};
use kerf_const::tree::Tree;
use serde_json::{Value, json};

use super::FindArgs;
use crate::print::{self, Spinner};

/// As many as a person looks through.
const LIMIT: usize = 40;

/// So many places of use are shown.
const PLACES: usize = 2;

/// So much of a comment is shown, in characters.
const COMMENT: usize = 80;

/// A bar from when it is known how many files there are.
#[derive(Default)]
pub struct Bar(OnceLock<Spinner>);

impl Progress for Bar {
    fn files(&self, count: usize) {
        self.0.get_or_init(|| Spinner::steps("reading the source", count));
    }

    fn file(&self) {
        if let Some(bar) = self.0.get() {
            bar.step();
        }
    }
}

impl FindArgs {
    /// Scans and prints.
    pub(super) fn scan(&self) -> anyhow::Result<u8> {
        let tree = Tree::open(&self.root()?)?;
        let paths = self.query.iter().chain(&self.paths).cloned().collect();
        let mut found = scan::scan(&tree, &Wanted { paths }, &Bar::default())?;
        found.retain(|candidate| candidate.score >= self.min_score);
        let all = found.len();
        found.truncate(self.limit.unwrap_or(if self.json { usize::MAX } else { LIMIT }));
        let changes = {
            let _spinner = Spinner::start("asking git how often values changed");
            history::changes(tree.root(), &found)?
        };
        if self.json {
            let rows: Vec<Value> =
                found.iter().enumerate().map(|(n, c)| row(c, changes.as_ref().map(|all| all[n]))).collect();
            print::json(&json!({ "history": changes.is_some(), "candidates": rows }))?;
        } else {
            table(&found, all, changes.as_deref())?;
        }
        Ok(0)
    }
}

fn row(candidate: &Candidate, changes: Option<u32>) -> Value {
    let mut row = json!({
        "site": candidate.site,
        "name": candidate.name,
        "file": candidate.place.file,
        "line": candidate.place.line,
        "kind": candidate.kind,
        "text": candidate.text,
        "value": candidate.value,
        "comment": candidate.comment,
        "uses": candidate.uses.len(),
        "places": candidate.uses,
        "reasons": candidate.reasons,
        "score": candidate.score,
    });
    if let (Some(changes), Some(row)) = (changes, row.as_object_mut()) {
        row.insert("changes".into(), changes.into());
    }
    row
}

fn table(found: &[Candidate], all: usize, changes: Option<&[u32]>) -> anyhow::Result<()> {
    let mut header = vec!["SCORE", "CONSTANT", "KIND", "USES", "WHY"];
    if changes.is_some() {
        header.insert(4, "CHANGES");
    }
    let rows = found.iter().enumerate().map(|(n, candidate)| {
        let mut cells = vec![
            candidate.score.to_string(),
            constant(candidate),
            candidate.kind.word().into(),
            candidate.uses.len().to_string(),
            why(candidate),
        ];
        if let Some(changes) = changes {
            cells.insert(4, changes[n].to_string());
        }
        cells
    });
    print::text(&print::table(&header, rows))?;
    let least = if found.len() < all { format!(" of {all}; --limit {all} lists the rest") } else { String::new() };
    print::text(&format!("{} candidates{least}; kerf const build takes the places and the names", found.len()))?;
    if changes.is_none() {
        print::text("how often their values changed is not known: the source is no git work tree")?;
    }
    Ok(())
}

/// Name and value, and below them the place that is built.
fn constant(candidate: &Candidate) -> String {
    let text = candidate.text.split_whitespace().collect::<Vec<_>>().join(" ");
    let value = candidate.value.map(|value| value.to_string()).filter(|value| *value != text);
    let value = value.map(|value| format!(" = {value}")).unwrap_or_default();
    match &candidate.name {
        Some(name) => format!("{name} = {text}{value}\n{}", place(candidate)),
        None => place(candidate),
    }
}

fn place(candidate: &Candidate) -> String {
    let place = &candidate.place;
    // A name says too little where it is the only thing to build by.
    if candidate.site.contains(':') { candidate.site.clone() } else { format!("{}:L{}", place.file, place.line) }
}

/// The reasons, the comment, and where it is used.
fn why(candidate: &Candidate) -> String {
    let reasons = candidate.reasons.iter().map(|reason| format!("{}: {}", reason.kind.word(), reason.because));
    let comment = candidate.comment.iter().map(|comment| format!("“{}”", short(comment)));
    let shown = if candidate.name.is_some() { PLACES } else { 0 };
    let places = candidate.uses.iter().take(shown).map(|place| format!("at {}:{}", place.file, place.line));
    let rest = candidate.uses.len().saturating_sub(shown);
    let more = (shown > 0 && rest > 0).then(|| format!("and {rest} more"));
    reasons.chain(comment).chain(places).chain(more).collect::<Vec<_>>().join("\n")
}

/// The beginning of a comment.
fn short(comment: &str) -> String {
    match comment.char_indices().nth(COMMENT) {
        Some((end, _)) => format!("{}…", comment.get(..end).unwrap_or(comment)),
        None => comment.to_owned(),
    }
}
