//! `kerf status --metrics`: the state as Prometheus' text format.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context;
use kerf_live::{ActiveEntry, Status};

use super::Stock;
use crate::print;

/// Writes it to a file, which holds the old or the new text at any time; `-` is standard output.
pub fn write(file: &Path, status: Option<&Status>, stock: Stock) -> anyhow::Result<()> {
    let text = metrics(status, stock);
    if file == Path::new("-") {
        return print::text(&text);
    }
    replace(file, &text).with_context(|| format!("write {}", file.display()))
}

/// In the same directory first, then under its name: a collector never sees half of it.
fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    let name = file.file_name().context("it has no file name")?.to_string_lossy();
    // A collector reads *.prom alone.
    let beside = file.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = fs::File::create(&beside)
        .and_then(|mut new| new.write_all(text.as_bytes()).and_then(|()| new.sync_all()))
        .and_then(|()| fs::rename(&beside, file));
    if written.is_err() {
        // Whatever was made of it; the error is that of writing.
        fs::remove_file(&beside).ok();
    }
    Ok(written?)
}

/// One line: labels and a number.
type Sample = (Vec<(&'static str, String)>, i128);

/// A metric with all its lines.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Vec<Sample>,
}

fn family(name: &'static str, kind: &'static str, help: &'static str, samples: Vec<Sample>) -> Family {
    Family { name, kind, help, samples }
}

/// Backslashes, quotes and line ends as the format wants them.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Family {
    fn write(&self, out: &mut String) {
        let Family { name, kind, help, samples } = self;
        // Writing to a string does not fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, number) in samples {
            let labels: Vec<String> =
                labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(out, "{name}{labels} {number}");
        }
    }
}

fn of(entry: &ActiveEntry) -> Vec<(&'static str, String)> {
    vec![("constant", entry.id.clone())]
}

/// The labels of a constant and its policy, if it has one.
fn with_policy(entry: &ActiveEntry) -> Vec<(&'static str, String)> {
    let policy = entry.policy.iter().map(|policy| ("policy", policy.owner.clone()));
    of(entry).into_iter().chain(policy).collect()
}

fn outcomes(entry: &ActiveEntry) -> Vec<Sample> {
    let Some(policy) = &entry.policy else { return Vec::new() };
    let counts =
        [("decided", policy.decided), ("kept", policy.kept), ("refused", policy.refused), ("missed", policy.missed)];
    let sample = |(outcome, count): (&str, u64)| {
        let mut labels = with_policy(entry);
        labels.push(("outcome", outcome.to_owned()));
        (labels, i128::from(count))
    };
    counts.into_iter().map(sample).collect()
}

fn values(entry: &ActiveEntry) -> Vec<Sample> {
    let Some(policy) = &entry.policy else { return Vec::new() };
    let sample = |magnitude: &kerf_live::Magnitude| {
        let mut labels = with_policy(entry);
        labels.extend([("min", magnitude.min.to_string()), ("max", magnitude.max.to_string())]);
        (labels, i128::from(magnitude.count))
    };
    policy.histogram.iter().map(sample).collect()
}

fn metrics(status: Option<&Status>, stock: Stock) -> String {
    let entries = status.map_or(&[][..], |status| &status.entries);
    let removed = status.map_or(&[][..], |status| &status.removed);
    let fixed = entries.iter().filter(|entry| entry.policy.is_none());
    let timed = entries.iter().filter(|entry| entry.policy.as_ref().is_some_and(|policy| policy.timed > 0));
    let ns = |entry: &ActiveEntry| entry.policy.as_ref().map_or(0, |policy| i128::from(policy.ns));
    let families = [
        family("kerf_module_loaded", "gauge", "Whether kerf.ko is loaded.", vec![(vec![], status.is_some().into())]),
        family(
            "kerf_constant_value",
            "gauge",
            "The value that a constant is set to.",
            fixed.map(|entry| (of(entry), entry.value.into())).collect(),
        ),
        family(
            "kerf_constant_stock",
            "gauge",
            "The value that the kernel was compiled with, of constants that are set.",
            entries.iter().filter_map(|entry| Some((of(entry), stock(entry)?))).collect(),
        ),
        family(
            "kerf_constant_in_force",
            "gauge",
            "Whether a constant that is set is in force at all its locations.",
            entries.iter().map(|entry| (with_policy(entry), entry.in_force().into())).collect(),
        ),
        family(
            "kerf_constant_since_seconds",
            "gauge",
            "Since when a constant is set, in seconds since 1970.",
            entries.iter().map(|entry| (of(entry), i128::from(entry.origin.since_ns / 1_000_000_000))).collect(),
        ),
        family(
            "kerf_policy_triggers_total",
            "counter",
            "How often a constant with a policy was passed, by what became of it.",
            entries.iter().flat_map(outcomes).collect(),
        ),
        family(
            "kerf_policy_decided_values_total",
            "counter",
            "Decisions, by the size of the value: min to max.",
            entries.iter().flat_map(values).collect(),
        ),
        family(
            "kerf_policy_nanoseconds_total",
            "counter",
            "Time that a policy took, of those whose time has a limit.",
            timed.map(|entry| (with_policy(entry), ns(entry))).collect(),
        ),
        family(
            "kerf_policy_removed",
            "gauge",
            "Policies that were taken out because they came over a limit.",
            removed
                .iter()
                .map(|one| (vec![("policy", one.policy.clone()), ("reason", one.reason.clone())], 1))
                .collect(),
        ),
    ];
    let mut out = String::new();
    families.iter().filter(|family| !family.samples.is_empty()).for_each(|family| family.write(&mut out));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
kerf protocol=6 build_id=764949bb
text base=0xffffffff81000000 size=0x1000000
pool slots=512 used=0
result code=0 attempts=1 tasks=9 stop_ns=300000 inside=0 looks=0 total_ns=0 text=
entry id=A value=4 locations=0
since id=A ns=1700000000900000000 pid=1 login=-1 note=
entry id=net/a.c~\"x\"~1 value=32 locations=0
since id=B ns=1 pid=1 login=-1 note=
policy id=B program=7 hits=9 decided=4 kept=3 refused=2 missed=0 last=0:64 decisions=4:1,7:3 timed=9 ns=1800 longest_ns=400 stopped=0 owner=plug
limits id=B triggers=0 permille=25
removed policy=costly ns=1 waits=0 reason=9 triggers in a second, permitted are 1
";

    #[test]
    fn every_number_has_a_line() {
        let status = kerf_live::status::parse(STATUS).expect("a status");
        insta::assert_snapshot!(metrics(Some(&status), &|entry| (entry.id == "A").then_some(32)));
    }

    #[test]
    fn without_the_module_only_that_is_said() {
        let text = metrics(None, &|_| None);
        assert_eq!(text.lines().last(), Some("kerf_module_loaded 0"));
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("kerf.prom");
        fs::write(&file, "old\n").expect("write a file");
        write(&file, None, &|_| None).expect("write metrics");
        assert!(fs::read_to_string(&file).expect("read it").ends_with("kerf_module_loaded 0\n"));
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
        let missing = write(&directory.path().join("no/kerf.prom"), None, &|_| None).unwrap_err();
        assert!(format!("{missing:#}").contains("no/kerf.prom"), "{missing:#}");
    }
}
