//! Bench `scan`: of what `kerf const find --scan` lists, how much governs performance, and how much of a list of such constants it finds.

use std::collections::HashMap;
use std::time::Instant;

use super::{Measured, Row};
use crate::setup::Setup;
use crate::steps::Steps;
use anyhow::Context;
use kerf_const::scan::{self, Candidate, Wanted, reasons};
use kerf_const::tree::Tree;

/// Candidates that a reader has judged.
const SAMPLE: &str = include_str!("../../data/scan-sample.tsv");

/// Constants that are known to govern performance, collected without the scanner.
const LIST: &str = include_str!("../../data/perf-consts.tsv");

/// Scores at which the figures are given; the first is the command's own.
const SCORES: [u32; 4] = [reasons::LIKELY, 55, 65, 75];

/// Of what is listed, at least this share must govern performance or be a deadline.
const LEAST_PRECISION: f64 = 0.6;

/// Of the list, at least this share must be found.
const LEAST_RECALL: f64 = 0.75;

/// A judged candidate.
struct Judged<'a> {
    site: &'a str,
    half: &'a str,
    weight: f64,
    verdict: &'a str,
}

/// Scans the whole source and compares.
pub fn run() -> anyhow::Result<Measured> {
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    let source = setup.kernel.source.as_deref().context("find the kernel's source")?;
    let tree = Tree::open(source)?;
    let start = Instant::now();
    let found = steps.need("scanning the source", || Ok(scan::scan(&tree, &Wanted::default(), &())?))?;
    let mut rows = vec![Row::new("time to scan", "the whole source", "all", start.elapsed().as_secs_f64(), "s")];
    let (mut complaints, sample) = (Vec::new(), judged(SAMPLE)?);
    let scores: HashMap<&str, u32> = found.iter().map(|c| (c.site.as_str(), c.score)).collect();
    for least in SCORES {
        let case = format!("score from {least}");
        let listed = found.iter().filter(|c| c.score >= least).count();
        rows.push(Row::new("candidates", &case, "all", listed as f64, "candidates"));
        for half in ["tune", "held", "all"] {
            let [strict, lenient] = precision(&sample, half, &scores, least);
            rows.push(Row::new("precision", &case, half, strict, "of 1"));
            rows.push(Row::new("precision with deadlines", &case, half, lenient, "of 1"));
            if least == reasons::LIKELY && half == "all" && lenient < LEAST_PRECISION {
                complaints.push(format!("of what is listed {lenient:.2} is right, less than {LEAST_PRECISION}"));
            }
        }
        let (recall, missed) = recall(LIST, &found, least);
        rows.push(Row::new("recall of the list", &case, "all", recall, "of 1"));
        if least == reasons::LIKELY {
            println!("    not listed: {}", missed.join(", "));
            if recall < LEAST_RECALL {
                complaints.push(format!("{recall:.2} of the list is found, less than {LEAST_RECALL}"));
            }
        }
    }
    Ok(Measured { rows, complaints })
}

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| !line.starts_with('#')).skip(1).map(|line| line.split('\t').collect())
}

fn judged(text: &str) -> anyhow::Result<Vec<Judged<'_>>> {
    rows(text)
        .map(|fields| match fields.as_slice() {
            &[site, _, half, weight, verdict, _] => {
                let weight = weight.parse().with_context(|| format!("read the weight of {site}"))?;
                Ok(Judged { site, half, weight, verdict })
            }
            _ => anyhow::bail!("a line of the sample has not six fields: {fields:?}"),
        })
        .collect()
}

/// The share of what is listed that governs performance, and the share of that and of deadlines. Each judged candidate stands for as
/// many as its weight says.
fn precision(sample: &[Judged<'_>], half: &str, scores: &HashMap<&str, u32>, least: u32) -> [f64; 2] {
    let listed = |judged: &&Judged<'_>| {
        (half == "all" || judged.half == half) && scores.get(judged.site).is_some_and(|score| *score >= least)
    };
    let weight = |verdicts: &[&str]| -> f64 {
        sample
            .iter()
            .filter(listed)
            .filter(|judged| verdicts.contains(&judged.verdict))
            .map(|judged| judged.weight)
            .sum()
    };
    let all = weight(&["yes", "no", "edge"]);
    [weight(&["yes"]) / all, weight(&["yes", "edge"]) / all]
}

/// The share of the list's constants that the scan gives, of those that it is to find, and the others' names.
fn recall<'a>(list: &'a str, found: &[Candidate], least: u32) -> (f64, Vec<&'a str>) {
    let listed: Vec<&Candidate> = found.iter().filter(|c| c.score >= least).collect();
    let (mut all, mut missed) = (0, Vec::new());
    for fields in rows(list) {
        let &[name, file, line, _, _, _, _, left_out, ..] = fields.as_slice() else { continue };
        if !left_out.is_empty() {
            continue;
        }
        all += 1;
        let line: u32 = line.parse().unwrap_or_default();
        let is = |c: &&Candidate| {
            c.name.as_deref() == Some(name) || c.name.is_none() && c.place.file == file && c.place.line == line
        };
        if !listed.iter().any(is) {
            missed.push(name);
        }
    }
    (1.0 - missed.len() as f64 / f64::from(all.max(1)), missed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_and_the_list_can_be_read() {
        let sample = judged(SAMPLE).unwrap();
        assert_eq!(sample.len(), 200);
        assert!(
            sample.iter().all(|j| ["yes", "no", "edge"].contains(&j.verdict) && ["tune", "held"].contains(&j.half))
        );
        assert_eq!(rows(LIST).filter(|fields| fields.len() == 10).count(), 227);
    }

    #[test]
    fn shares_are_weighed() {
        let sample = judged("h\na\t-\ttune\t3.0\tyes\t-\nb\t-\theld\t1.0\tno\t-\nc\t-\theld\t4.0\tedge\t-\n").unwrap();
        let scores = HashMap::from([("a", 60), ("b", 60), ("c", 40)]);
        assert_eq!(precision(&sample, "all", &scores, 50), [0.75, 0.75]);
        assert_eq!(precision(&sample, "all", &scores, 40), [0.375, 0.875]);
        assert_eq!(precision(&sample, "held", &scores, 40), [0.0, 0.8]);
    }

    #[test]
    fn what_is_left_out_by_design_is_not_missed() {
        let list = "h\nA\ta.c\t1\t1\tx\tmacro\ty\t\nB\ta.c\t2\t1\tx\tmacro\ty\tarray size\n";
        assert_eq!(recall(list, &[], 0), (0.0, vec!["A"]));
    }
}
