//! Bench `atlas`: a list of constants that govern performance, each in its class; how long that takes, and whether what is called proved is
//! what the compiler makes of other values.

use super::domain::{self, audit};
use super::{Measured, Row};
use crate::setup::Setup;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, ensure};
use kerf_const::Class;
use kerf_const::build::Input;
use kerf_const::entry::Entry;
use kerf_const::many::{self, Outcome};
use kerf_const::table::Table;
use kerf_const::tree::Tree;
use kerf_image::Image;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The list, with the class that each of its constants is in.
pub const LIST: &str = include_str!("../../data/perf-consts.tsv");

/// What must be proved of those that a proof is possible for.
const LEAST_PROVED: f64 = 0.97;
/// Seconds in which the list is to be built on two processors.
const MOST_SECONDS: f64 = 1200.0;

/// What to build, and how much of it to check.
pub struct Wanted {
    /// How many of the list, or all.
    pub constants: Option<usize>,
    /// Only the one with this name or place.
    pub only: Option<String>,
    /// How many values of each proved constant are compiled and compared; none where it is 0.
    pub values: usize,
    /// Where the random numbers begin.
    pub seed: u64,
    /// Go on with what an earlier run has left.
    pub resume: bool,
}

/// The scope table that this bench has left, for others.
pub struct Store {
    /// Its file.
    pub path: PathBuf,
    build_id: String,
}

impl Store {
    /// Finds it.
    pub fn open(workspace: &Workspace, setup: &Setup) -> anyhow::Result<Self> {
        let path = workspace.directory("bench")?.join("atlas.db");
        ensure!(path.exists(), "find {}: `cargo xtask bench atlas` writes it", path.display());
        let image = Image::open(&setup.kernel.vmlinuz)?;
        Ok(Store { path, build_id: image.build_id().map(|id| id.to_string()).unwrap_or_default() })
    }

    /// The entries of the kernel at hand.
    pub fn entries(&self) -> anyhow::Result<Vec<Entry>> {
        Ok(Table::open(&self.path)?.entries(Some(&self.build_id))?)
    }
}

/// The class that the list has for each query.
type Expected = BTreeMap<String, String>;

/// Builds the list, and audits what is proved.
pub fn run(workspace: &Workspace, wanted: &Wanted) -> anyhow::Result<Measured> {
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    let directory = workspace.directory("bench")?;
    if !wanted.resume {
        forget(&directory)?;
    }
    let source = setup.kernel.source.as_deref().context("find the kernel's source")?;
    // Compilations are kept for this run alone: its time is that of somebody who has built nothing before.
    let tree = Tree::open(source)?.keeping(directory.join("atlas.objects"));
    let image = Image::open(&setup.kernel.vmlinuz)?;
    let input = Input { tree: &tree, image: &image, modules: setup.kernel.modules_dir.as_deref() };
    let (queries, expected) = queries(wanted)?;
    let (outcomes, total) = build(&input, &directory.join("atlas.db"), &queries)?;
    let mut measured = Measured { rows: rows(&outcomes), complaints: complaints(&outcomes, &expected) };
    if let Some(total) = total {
        measured.rows.push(Row::new("seconds", "all processors", "total", total, "s"));
        if total > MOST_SECONDS {
            measured.complaints.push(format!("the list took {total:.0} s, more than {MOST_SECONDS:.0}"));
        }
    }
    if wanted.values > 0 {
        check(&input, &outcomes, wanted, &directory.join("atlas.audited"), &mut measured)?;
    }
    Ok(measured)
}

/// Removes what an earlier run left.
fn forget(directory: &Path) -> anyhow::Result<()> {
    for name in ["atlas.db", "atlas.db-wal", "atlas.db-shm", "atlas.audited"] {
        let path = directory.join(name);
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    let objects = directory.join("atlas.objects");
    if objects.exists() {
        fs::remove_dir_all(&objects).with_context(|| format!("remove {}", objects.display()))?;
    }
    Ok(())
}

/// The queries that are wanted, and what the list expects of all.
fn queries(wanted: &Wanted) -> anyhow::Result<(Vec<String>, Expected)> {
    let all = many::read_list(LIST);
    let expected = all.iter().cloned().zip(classes(LIST)).collect();
    let named = |query: &String| wanted.only.as_deref().is_none_or(|only| query.ends_with(only));
    let chosen: Vec<String> = all.into_iter().filter(named).take(wanted.constants.unwrap_or(usize::MAX)).collect();
    ensure!(!chosen.is_empty(), "find {} in the list", wanted.only.as_deref().unwrap_or("a constant"));
    Ok((chosen, expected))
}

/// The column `class` of a list.
fn classes(list: &str) -> Vec<String> {
    let mut lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let column = lines.next().and_then(|header| header.split('\t').position(|name| name == "class"));
    let class = |line: &str| column.and_then(|column| line.split('\t').nth(column)).unwrap_or_default().to_owned();
    lines.map(class).collect()
}

/// Builds what the table does not have. With the seconds, if that was all of it.
fn build(input: &Input, path: &Path, queries: &[String]) -> anyhow::Result<(Vec<Outcome>, Option<f64>)> {
    let table = Table::create(path)?;
    let todo = many::remaining(input, &table, queries)?;
    let whole = todo.len() == queries.len();
    let start = Instant::now();
    many::build_all(input, table, &todo, &|done| {
        println!("    {}: {} in {:.1} s", done.query, done.words(), done.seconds);
    })?;
    let total = start.elapsed().as_secs_f64();
    Ok((many::outcomes(input, &Table::open(path)?, queries)?, whole.then_some(total)))
}

fn rows(outcomes: &[Outcome]) -> Vec<Row> {
    let mut counts = BTreeMap::<&str, usize>::new();
    outcomes.iter().for_each(|outcome| *counts.entry(&outcome.class).or_default() += 1);
    let class =
        |(class, count): (&str, usize)| Row::new("class", "constants of the list", class, count as f64, "constants");
    let seconds = |outcome: &Outcome| Row::new("seconds", &outcome.class, &outcome.query, outcome.seconds, "s");
    let mut rows: Vec<Row> = counts.into_iter().map(class).collect();
    rows.extend(outcomes.iter().map(seconds));
    rows.push(Row::new("proved share", "of those that a proof is possible for", "all", proved_share(outcomes), "of 1"));
    rows
}

/// The share of proved constants among those whose code alone depends on them: neither the layout of types, nor data, nor nothing.
fn proved_share(outcomes: &[Outcome]) -> f64 {
    let impossible = ["layout", "data", "shadowed", "foreign", "absent"];
    let possible = outcomes.iter().filter(|outcome| !impossible.contains(&outcome.class.as_str()));
    let (mut all, mut proved) = (0, 0);
    for outcome in possible {
        all += 1;
        proved += u32::from(outcome.class == Class::Proved.word());
    }
    f64::from(proved) / f64::from(all.max(1))
}

fn complaints(outcomes: &[Outcome], expected: &Expected) -> Vec<String> {
    let sentence = |Outcome { query, class, reason, .. }: &Outcome| {
        let wanted = expected.get(query).map(String::as_str).unwrap_or_default();
        (class != wanted).then(|| format!("{query} is {class}, and {} in the list: {reason}", said(wanted)))
    };
    let mut complaints: Vec<String> = outcomes.iter().filter_map(sentence).collect();
    let share = proved_share(outcomes);
    if share < LEAST_PROVED {
        complaints
            .push(format!("{share:.3} are proved of those that a proof is possible for, less than {LEAST_PROVED}"));
    }
    complaints
}

fn said(class: &str) -> &str {
    if class.is_empty() { "without a class" } else { class }
}

/// Compiles random values of each proved constant. What was checked is noted, so that an interrupted run need not do it again.
fn check(
    input: &Input,
    outcomes: &[Outcome],
    wanted: &Wanted,
    notes: &PathBuf,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let noted = fs::read_to_string(notes).unwrap_or_default();
    let mut notes = fs::OpenOptions::new().create(true).append(true).open(notes).context("note what is checked")?;
    let (mut checked, mut wrong) = (0, 0);
    let proved = outcomes.iter().flat_map(|outcome| &outcome.entries).filter(|entry| entry.class == Class::Proved);
    for entry in proved {
        let key = format!("{} {} {}", entry.id, wanted.seed, wanted.values);
        let before = noted.lines().filter_map(|line| line.split_once('\t')).find(|(known, _)| *known == key);
        let problem = match before {
            Some((_, problem)) => problem.to_owned(),
            None => {
                let problem = problem(input, entry, wanted);
                writeln!(notes, "{key}\t{}", problem.replace(['\n', '\t'], " ")).context("note what is checked")?;
                problem
            }
        };
        checked += 1;
        if !problem.is_empty() {
            wrong += 1;
            measured.complaints.push(format!("{} is called proved: {problem}", entry.id));
        }
    }
    let case = format!("{} values of each", wanted.values);
    measured.rows.push(Row::new("audited", &case, "all", f64::from(checked), "constants"));
    measured.rows.push(Row::new("false_proved", &case, "all", f64::from(wrong), "constants"));
    Ok(())
}

/// What the compiler makes of random values other than the entry says; empty if nothing.
fn problem(input: &Input, entry: &Entry, wanted: &Wanted) -> String {
    let start = Instant::now();
    let values = domain::draw_from(&entry.domain, wanted.values, wanted.seed);
    let wrong: Vec<String> = match audit(input, entry, &values) {
        Ok(judged) => {
            judged.into_iter().filter_map(|(value, verdict)| Some(format!("{value}: {}", verdict.err()?))).collect()
        }
        Err(error) => vec![error.to_string()],
    };
    let seconds = start.elapsed().as_secs_f64();
    println!("    {}: {} of {} values disagree, {seconds:.1} s", entry.label(), wrong.len(), values.len());
    wrong.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_the_list_are_known_ones() {
        let classes = classes(LIST);
        assert_eq!(classes.len(), many::read_list(LIST).len());
        // A constant that nobody has looked at has none yet: the bench complains of it.
        let known = ["proved", "layout", "data", "shadowed", "absent", "sensitive", "shape", "foreign", ""];
        let unknown: Vec<&String> = classes.iter().filter(|class| !known.contains(&class.as_str())).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    fn outcome(query: &str, class: &str) -> Outcome {
        let (query, class, reason) = (query.into(), class.into(), "so".into());
        Outcome { query, class, reason, seconds: 1.0, entries: Vec::new() }
    }

    /// Each in the class that the list has for it.
    fn expected(outcomes: &[Outcome]) -> Expected {
        outcomes.iter().map(|outcome| (outcome.query.clone(), outcome.class.clone())).collect()
    }

    #[test]
    fn only_code_counts_for_the_share() {
        let outcomes = ["proved", "proved", "layout", "data", "absent", "shadowed"].map(|class| outcome(class, class));
        assert!((proved_share(&outcomes) - 1.0).abs() < 1e-9);
        assert!(complaints(&outcomes, &expected(&outcomes)).is_empty());
        let outcomes = ["proved", "shape", "failed", "sensitive"].map(|class| outcome(class, class));
        assert!((proved_share(&outcomes) - 0.25).abs() < 1e-9);
        assert!(complaints(&outcomes, &expected(&outcomes))[0].contains("less than 0.97"));
    }

    #[test]
    fn another_class_is_told() {
        let list =
            [("A", "proved"), ("B", "proved"), ("C", "")].map(|(query, class)| (query.into(), class.into())).into();
        let complaints = complaints(&[outcome("A", "proved"), outcome("B", "data"), outcome("C", "data")], &list);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert_eq!(complaints[0], "B is data, and proved in the list: so");
    }
}
