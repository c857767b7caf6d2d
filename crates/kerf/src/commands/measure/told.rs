//! How counts are told: tables for a person, JSON for a program.

use kerf_lab::Outcome;
use kerf_profile::summary::{Function, Sum, functions, sums};
use kerf_profile::{Detail, Interval, Profile, Symbols, Wanted, plugin};
use serde_json::{Map, Value, json};

use crate::print;

/// What is counted, in words.
pub fn of(detail: Detail) -> &'static str {
    match detail {
        Detail::Sums => "a plugin",
        Detail::Blocks => "a plugin that keeps functions apart",
        Detail::Flow => "a plugin that follows control",
        Detail::Caches => "a plugin that models caches",
    }
}

/// Something that is counted.
struct Measure {
    /// In the overview.
    title: &'static str,
    /// Above its column.
    column: &'static str,
    /// In JSON.
    member: &'static str,
    /// The detail that it needs.
    from: Detail,
    of: fn(&Sum) -> u64,
}

const fn measure(
    title: &'static str,
    column: &'static str,
    member: &'static str,
    from: Detail,
    of: fn(&Sum) -> u64,
) -> Measure {
    Measure { title, column, member, from, of }
}

const MEASURES: [Measure; 10] = [
    measure("instructions", "INSTR", "instructions", Detail::Sums, |sum| sum.instructions),
    measure("blocks", "BLOCKS", "blocks", Detail::Sums, |sum| sum.blocks),
    measure("branches taken", "TAKEN", "taken", Detail::Flow, |sum| sum.taken),
    measure("edges", "EDGES", "edges", Detail::Flow, |sum| sum.edges),
    measure("code lines", "LINES", "lines", Detail::Blocks, |sum| sum.lines),
    measure("code pages", "PAGES", "pages", Detail::Blocks, |sum| sum.pages),
    measure("L1I misses", "L1I", "l1i", Detail::Caches, |sum| sum.misses.l1i),
    measure("L1D misses", "L1D", "l1d", Detail::Caches, |sum| sum.misses.l1d),
    measure("L2 misses", "L2", "l2", Detail::Caches, |sum| sum.misses.l2),
    measure("iTLB misses", "ITLB", "itlb", Detail::Caches, |sum| sum.misses.itlb),
];

/// An interval and what is said of it.
pub struct Section<'a> {
    /// Its counts as they came.
    pub interval: &'a Interval,
    /// The kernel's, and the others'.
    pub sums: (Sum, Sum),
    /// Function by function, if that was asked for.
    pub functions: Vec<Function>,
}

impl Section<'_> {
    /// What it is called where it must be called something.
    pub fn name(&self) -> &str {
        if self.interval.name.is_empty() { "run" } else { &self.interval.name }
    }
}

/// A run.
pub struct Told<'a> {
    wanted: Wanted,
    /// Whether functions are told apart.
    named: bool,
    /// The marked intervals; without any, the whole run.
    pub sections: Vec<Section<'a>>,
    /// The whole run, where it is not among them.
    whole: Option<Section<'a>>,
}

impl<'a> Told<'a> {
    /// Sums up.
    pub fn new(profile: &'a Profile, symbols: &Symbols, wanted: Wanted, named: bool) -> Told<'a> {
        let section = |interval: &'a Interval| {
            let functions = if named { functions(profile, interval, symbols) } else { Vec::new() };
            Section { interval, sums: sums(profile, interval), functions }
        };
        let mut sections: Vec<Section> = profile.intervals.iter().map(section).collect();
        let mut whole = profile.whole.as_ref().map(section);
        if sections.is_empty() {
            sections.extend(whole.take());
        }
        Told { wanted, named, sections, whole }
    }

    /// Tables; of each interval so many functions.
    pub fn print(&self, top: Option<usize>) -> anyhow::Result<()> {
        for section in &self.sections {
            let name = section.interval.name.as_str();
            let title = if name.is_empty() { String::new() } else { format!("{name}\n") };
            print::text(&format!("{title}{}", self.overview(section)))?;
            if let Some(top) = top {
                print::text(&format!("\n{}", self.per_function(section, top)))?;
            }
        }
        Ok(())
    }

    /// The measures that were taken.
    fn measures(&self) -> impl Iterator<Item = &'static Measure> {
        let detail = self.wanted.detail;
        MEASURES.iter().filter(move |measure| detail >= measure.from)
    }

    fn overview(&self, section: &Section) -> String {
        let (kernel, user) = &section.sums;
        let rows = self.measures().map(|Measure { title, of, .. }| {
            let (kernel, user) = (of(kernel), of(user));
            vec![(*title).to_owned(), exact(kernel), exact(user)]
        });
        print::numbers(&["", "KERNEL", "USER"], rows, 1)
    }

    fn per_function(&self, section: &Section, top: usize) -> String {
        let all: u64 = section.functions.iter().map(|function| function.sum.instructions).sum();
        let mut header = vec!["FUNCTION", "SHARE"];
        header.extend(self.measures().map(|measure| measure.column));
        let rows = section.functions.iter().take(top).map(|function| {
            let share = 100.0 * function.sum.instructions as f64 / all.max(1) as f64;
            let mut row = vec![name(function), format!("{share:.1} %")];
            row.extend(self.measures().map(|measure| scaled((measure.of)(&function.sum))));
            row
        });
        let mut text = print::numbers(&header, rows, 1);
        if let Some(more) = section.functions.len().checked_sub(top).filter(|more| *more > 0) {
            text.push_str(&format!("\n … and {more} more functions: --top N, --output FILE"));
        }
        text
    }

    /// One object.
    pub fn print_json(&self, outcome: &Outcome) -> anyhow::Result<()> {
        let model: Map<String, Value> = plugin::caches(self.wanted.model)
            .into_iter()
            .map(|(name, geometry)| (name.to_owned(), json!({"lines": geometry.lines(), "ways": geometry.ways()})))
            .collect();
        print::json(&json!({
            "intervals": self.sections.iter().map(|section| self.section(section)).collect::<Vec<_>>(),
            "whole": self.whole.as_ref().map(|section| self.section(section)),
            "model": (self.wanted.detail == Detail::Caches).then_some(model),
            "stdout": String::from_utf8_lossy(&outcome.stdout),
            "stderr": String::from_utf8_lossy(&outcome.stderr),
            "exit_code": outcome.exit_code,
            "release": outcome.release,
            "seconds": (outcome.duration.as_secs_f64() * 1000.0).round() / 1000.0,
        }))
    }

    /// An interval as an object.
    pub fn section(&self, section: &Section) -> Value {
        let functions: Vec<Value> = section
            .functions
            .iter()
            .map(|function| {
                let mut object = self.sum(&function.sum);
                object.insert("name".into(), json!(function.name));
                object.insert("module".into(), json!(function.module));
                object.insert("address".into(), json!(function.address));
                object.insert("kernel".into(), json!(function.kernel));
                Value::Object(object)
            })
            .collect();
        json!({
            "name": section.interval.name,
            "kernel": self.sum(&section.sums.0),
            "user": self.sum(&section.sums.1),
            "functions": self.named.then_some(functions),
        })
    }

    /// Only what was counted.
    fn sum(&self, sum: &Sum) -> Map<String, Value> {
        self.measures().map(|measure| (measure.member.to_owned(), json!((measure.of)(sum)))).collect()
    }
}

/// A function as it is shown, with its module.
pub fn name(function: &Function) -> String {
    match &function.module {
        Some(module) => format!("{} [{module}]", function.name),
        None => function.name.clone(),
    }
}

/// All digits, in groups of three.
fn exact(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Four digits at most; the exact ones are in the JSON.
fn scaled(number: u64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    if number < 10_000 {
        return number.to_string();
    }
    let value = number as f64;
    let (scale, unit) = UNITS.into_iter().find(|(scale, _)| value >= *scale).unwrap_or((1.0, ""));
    let value = value / scale;
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1000, 1_234_567].map(exact), ["0", "999", "1,000", "1,234,567"]);
        let shown = [0, 9999, 10_000, 123_456, 1_234_567_890].map(scaled);
        assert_eq!(shown, ["0", "9999", "10.0k", "123k", "1.23G"]);
    }
}
