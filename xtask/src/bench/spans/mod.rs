//! Bench `spans`: how large the safe spans of the list's constants are, how long they take to find, and whether a running
//! kernel uses a value outside of them.

mod follow;

use super::constants::{self, list};
use super::{Measured, Row, median};
use crate::setup::{self, Setup};
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, ensure};
use kerf_const::Class;
use kerf_const::build::{Input, build};
use kerf_const::entry::Entry;
use kerf_const::safe_span::{Analysis as _, ThinSlices};
use kerf_const::site::Query;
use kerf_const::tree::Tree;
use kerf_image::Image;
use kerf_lab::host::Need;
use std::time::Instant;

/// What the papers' authors found for the constants that they looked at (*Xkernel*): instructions in the middle one.
const PAPER: f64 = 10.0;

/// Longer than this is too long for an analysis.
const MOST_SECONDS: f64 = 10.0;

/// Fewer constants than this say little about the analysis.
const LEAST_FOLLOWED: usize = 5;

/// Which constants of the list.
pub struct Wanted {
    /// How many of those that are proved, or all.
    pub constants: Option<usize>,
    /// Only the one that the list names so.
    pub only: Option<String>,
}

/// Builds the list's proved constants, measures their safe spans, and follows the values of those that a workload reaches.
pub fn run(workspace: &Workspace, wanted: &Wanted) -> anyhow::Result<Measured> {
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    setup::install(&mut steps, &[Need::Networks])?;
    let kerf = steps.need("the kerf program", || workspace.build_kerf())?;
    let source = setup.kernel.source.as_deref().context("find the kernel's source")?;
    let tree = Tree::open(source)?;
    let image = Image::open(&setup.kernel.vmlinuz)?;
    let input = Input { tree: &tree, image: &image, modules: setup.kernel.modules_dir.as_deref() };
    let mut spans = Spans::default();
    let named = |query: &str| wanted.only.as_deref().is_none_or(|only| only == query);
    let proved = list(constants::LIST).filter(|line| line.class == "proved" && named(line.query));
    let lines: Vec<_> = proved.take(wanted.constants.unwrap_or(usize::MAX)).collect();
    ensure!(!lines.is_empty(), "find {} among the list's proved constants", wanted.only.as_deref().unwrap_or("any"));
    let mut followed = 0;
    for line in &lines {
        let query = Query::parse(&constants::resolve(source, line.query)?)?;
        let entries = build(&input, &query).unwrap_or_else(|error| {
            spans.measured.complaints.push(format!("{} was not built: {error}", line.query));
            Vec::new()
        });
        for entry in entries.iter().filter(|entry| entry.class == Class::Proved) {
            spans.measure(line.query, &image, entry)?;
            let workload = follow::workload(line.query).filter(|_| entry.image.module.is_none());
            let Some(workload) = workload else { continue };
            let machine = follow::machine(&setup, &kerf, workload);
            match follow::check(machine, workload, &image, entry, line.query, &mut spans.measured) {
                Ok(true) => followed += 1,
                Ok(false) => println!("    {}: no use of its value was seen", line.query),
                Err(error) => spans.measured.complaints.push(format!("{} was not followed: {error:#}", line.query)),
            }
        }
    }
    if wanted.only.is_none() && wanted.constants.is_none() && followed < LEAST_FOLLOWED {
        spans.measured.complaints.push(format!("uses were seen of only {followed} constants, not {LEAST_FOLLOWED}"));
    }
    Ok(spans.finish())
}

/// The sizes so far.
struct Spans {
    measured: Measured,
    tracked: Vec<f64>,
    all: Vec<f64>,
    seconds: Vec<f64>,
}

impl Default for Spans {
    fn default() -> Self {
        let measured = Measured { rows: Vec::new(), complaints: Vec::new() };
        Spans { measured, tracked: Vec::new(), all: Vec::new(), seconds: Vec::new() }
    }
}

impl Spans {
    /// Finds an entry's safe spans once more, for the time that it takes, and notes how large those are that were built.
    fn measure(&mut self, name: &str, image: &Image, entry: &Entry) -> anyhow::Result<()> {
        let start = Instant::now();
        ThinSlices::default().safe_spans(image, entry)?;
        let safe_spans = &entry.safe_spans;
        let seconds = start.elapsed().as_secs_f64();
        self.seconds.push(seconds);
        self.measured.rows.push(Row::new("seconds", "analysis", name, seconds, "s"));
        if seconds > MOST_SECONDS {
            self.measured.complaints.push(format!("the safe spans of {name} took {seconds:.1} s"));
        }
        let several = safe_spans.len() > 1;
        for span in safe_spans {
            let (case, size) =
                (if span.widened.is_some() { "widened" } else { "tracked" }, f64::from(span.instructions));
            let subject = if several { format!("{name} in {}", span.function) } else { name.to_owned() };
            self.measured.rows.push(Row::new("safe_span_instructions", case, &subject, size, "instructions"));
            self.all.push(size);
            if span.widened.is_none() {
                self.tracked.push(size);
            }
        }
        let sizes: Vec<String> = safe_spans.iter().map(|span| span.instructions.to_string()).collect();
        println!("    {name}: safe spans of {} instructions, in {seconds:.2} s", sizes.join(", "));
        Ok(())
    }

    fn finish(mut self) -> Measured {
        let mut row = |metric: &str, case: &str, value: Option<f64>, unit: &str| {
            if let Some(value) = value {
                self.measured.rows.push(Row::new(metric, case, "all", value, unit));
            }
        };
        row("safe_span_instructions", "tracked, median", median(&self.tracked), "instructions");
        row("safe_span_instructions", "all, median", median(&self.all), "instructions");
        row("safe_span_instructions", "the paper's median", Some(PAPER), "instructions");
        row("seconds", "analysis, median", median(&self.seconds), "s");
        self.measured
    }
}
