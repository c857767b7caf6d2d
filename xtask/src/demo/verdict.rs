//! Whether the batches followed the value, and how each value was placed.

use super::trace::{Phase, Trace, Value};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

/// Fewer batches than this say nothing.
const FEWEST_BATCHES: usize = 10;

/// One line of the demo's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The value in force.
    pub value: Value,
    /// Where kerf put it.
    pub placement: String,
    /// How many batches there were.
    pub batches: usize,
    /// The batch in the middle, by size.
    pub median: u32,
    /// The largest batch.
    pub largest: u32,
    /// Requests in all of them.
    pub requests: u64,
}

/// Placements that `kerf status --json` has reported, by value.
pub type Placements = BTreeMap<u32, String>;

/// Splits what the guest's script printed into the trace and the placements.
pub fn read(stdout: &str) -> (Trace, Placements) {
    let mut sections = stdout.split("\nkerf: status ");
    let trace = Trace::parse(sections.next().unwrap_or_default());
    let placements = sections.filter_map(|section| {
        let (number, json) = section.split_once('\n')?;
        let status: Json = serde_json::from_str(json).ok()?;
        let mut words = BTreeSet::new();
        collect(&status, &mut words);
        Some((number.trim().parse().ok()?, words.into_iter().collect::<Vec<_>>().join(" + ")))
    });
    let placements = placements.collect();
    (trace, placements)
}

/// The placements of all locations; an entry that has locations also sums them up, which says less.
fn collect(json: &Json, words: &mut BTreeSet<String>) {
    match json {
        Json::Object(fields) => {
            for (key, value) in fields {
                match value.as_str().filter(|_| key == "placement" && !fields.contains_key("locations")) {
                    Some(word) => drop(words.insert(word.to_owned())),
                    None => collect(value, words),
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|item| collect(item, words)),
        _ => {}
    }
}

/// A line for each phase.
pub fn rows(trace: &Trace, placements: &Placements) -> Vec<Row> {
    let row = |phase: &Phase| Row {
        value: phase.value,
        placement: match phase.value {
            Value::Stock => "-".to_owned(),
            Value::Set(number) => placements.get(&number).cloned().unwrap_or_else(|| "not reported".to_owned()),
        },
        batches: phase.batches.len(),
        median: phase.median(),
        largest: phase.largest(),
        requests: phase.requests(),
    };
    trace.phases.iter().map(row).collect()
}

/// What is wrong with the rows, for values in this order and stock before and after; nothing when the batches followed.
pub fn complaints(rows: &[Row], values: &[u32], stock: u32) -> Vec<String> {
    let mut expected = vec![Value::Stock];
    expected.extend(values.iter().copied().map(Value::Set));
    expected.push(Value::Stock);
    if rows.iter().map(|row| row.value).ne(expected.iter().copied()) {
        let seen: Vec<String> = rows.iter().map(|row| row.value.to_string()).collect();
        return vec![format!("the values in force were {}, not what the demo asks for", seen.join(", "))];
    }
    rows.iter().flat_map(|row| row_complaints(row, stock)).collect()
}

fn row_complaints(row: &Row, stock: u32) -> Vec<String> {
    let limit = match row.value {
        Value::Stock => stock,
        Value::Set(number) => number,
    };
    let mut found = Vec::new();
    let mut complain = |what: String| found.push(format!("with {} in force {what}", row.value));
    if row.batches < FEWEST_BATCHES {
        complain(format!("there were only {} batches", row.batches));
    }
    if row.largest > limit {
        complain(format!("the largest batch had {} requests, more than {limit}", row.largest));
    }
    // Write-back of a file's end gives shorter batches, but not half of them.
    if u64::from(row.median) * 4 < u64::from(limit) * 3 {
        complain(format!("the batch in the middle had {} requests, far from {limit}", row.median));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: Value, median: u32, largest: u32) -> Row {
        Row { value, placement: String::new(), batches: 50, median, largest, requests: 1000 }
    }

    #[test]
    fn what_follows_is_not_complained_about() {
        let good = [row(Value::Stock, 32, 32), row(Value::Set(4), 4, 4), row(Value::Stock, 31, 32)];
        assert_eq!(complaints(&good, &[4], 32), Vec::<String>::new());
    }

    #[test]
    fn what_does_not_follow_is() {
        let same = [row(Value::Stock, 32, 32), row(Value::Set(4), 32, 32), row(Value::Stock, 32, 32)];
        assert_eq!(complaints(&same, &[4], 32), ["with 4 in force the largest batch had 32 requests, more than 4"]);
        let small = [row(Value::Stock, 32, 32), row(Value::Set(128), 32, 32), row(Value::Stock, 32, 32)];
        assert_eq!(
            complaints(&small, &[128], 32),
            ["with 128 in force the batch in the middle had 32 requests, far from 128"]
        );
        assert!(complaints(&same[..2], &[4], 32)[0].contains("stock, 4"));
        let idle = Row { batches: 1, ..row(Value::Stock, 32, 32) };
        assert_eq!(row_complaints(&idle, 32), ["with stock in force there were only 1 batches"]);
    }

    #[test]
    fn placements_are_found_wherever_the_report_has_them() {
        let text = "x\nkerf: status 4\n{\"entries\":[{\"placement\":\"sum\",\"locations\":[{\"placement\":\"immediate\"},{\"placement\":\"immediate\"}]}]}\nkerf: status 128\n{\"placement\":\"detour\"}\n";
        let (_, placements) = read(text);
        assert_eq!(placements, BTreeMap::from([(4, "immediate".into()), (128, "detour".into())]));
    }
}
