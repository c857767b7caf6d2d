//! Files that hold everything that was counted, in forms that others read.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use fxprof_processed_profile as firefox;
use kerf_profile::Profile;
use kerf_profile::summary::Function;
use serde_json::{Value, json};

use super::Format;
use super::told::{Section, Told, name};

/// Writes the file.
pub fn write(file: &Path, format: Format, told: &Told, profile: &Profile) -> anyhow::Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    match format {
        Format::Json => serde_json::to_writer(&mut out, &everything(told, profile))?,
        Format::Collapsed => out.write_all(collapsed(told).as_bytes())?,
        Format::Firefox => serde_json::to_writer(&mut out, &firefox(told)?)?,
    }
    Ok(out.flush()?)
}

/// Intervals as `--json` prints them, and in each function its blocks and the edges that leave it.
fn everything(told: &Told, profile: &Profile) -> Value {
    let sections: Vec<Value> = told
        .sections
        .iter()
        .map(|section| {
            let mut value = told.section(section);
            let owners = owners(section);
            if let Some(functions) = value.get_mut("functions").and_then(Value::as_array_mut) {
                for (object, function) in functions.iter_mut().zip(&section.functions) {
                    object["blocks"] = blocks(section, function, profile);
                }
                for (position, edges) in edges(section, profile, &owners) {
                    if let Some(object) = functions.get_mut(position) {
                        object["to"] = edges.into();
                    }
                }
            }
            value
        })
        .collect();
    json!({ "intervals": sections })
}

/// Of each block, the position of its function.
fn owners(section: &Section) -> HashMap<u64, usize> {
    let of = |(position, function): (usize, &Function)| {
        let rows = section.interval.rows.as_slice();
        let blocks = function.rows.iter().filter_map(|row| rows.get(*row)).map(|row| row.block);
        blocks.map(move |block| (block, position)).collect::<Vec<_>>()
    };
    section.functions.iter().enumerate().flat_map(of).collect()
}

fn blocks(section: &Section, function: &Function, profile: &Profile) -> Value {
    let rows = function.rows.iter().filter_map(|row| section.interval.rows.get(*row));
    let mut blocks: Vec<Value> = rows
        .filter_map(|row| {
            let place = profile.blocks.get(row.block as usize)?;
            let misses = row.misses;
            Some(json!({
                "offset": place.address.wrapping_sub(function.address), "size": place.size,
                "instructions": row.instructions, "ends": row.ends, "taken": row.taken,
                "l1i": misses.l1i, "l1d": misses.l1d, "l2": misses.l2, "itlb": misses.itlb,
            }))
        })
        .collect();
    blocks.sort_by_key(|block| block["offset"].as_u64());
    blocks.into()
}

/// Edges by the function that they leave, as `{from, function, offset, count}`.
fn edges(section: &Section, profile: &Profile, owners: &HashMap<u64, usize>) -> BTreeMap<usize, Vec<Value>> {
    let mut sums: BTreeMap<(usize, u64, Option<usize>, u64), u64> = BTreeMap::new();
    for edge in &section.interval.edges {
        let (Some(owner), Some(from), Some(to)) =
            (owners.get(&edge.from), profile.blocks.get(edge.from as usize), profile.blocks.get(edge.to as usize))
        else {
            continue;
        };
        let key = (*owner, from.address.wrapping_add(from.size), owners.get(&edge.to).copied(), to.address);
        *sums.entry(key).or_default() += edge.count;
    }
    let start = |position: usize| section.functions.get(position).map_or(0, |function| function.address);
    let mut edges: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for ((owner, end, target, to), count) in sums {
        edges.entry(owner).or_default().push(json!({
            "from": end.wrapping_sub(start(owner)),
            "function": target.and_then(|position| section.functions.get(position)).map(name),
            "offset": to.wrapping_sub(target.map_or(0, start)),
            "count": count,
        }));
    }
    edges
}

/// The interval, kernel or user, the function, and its instructions.
fn collapsed(told: &Told) -> String {
    let mut text = String::new();
    for section in &told.sections {
        for function in section.functions.iter().filter(|function| function.sum.instructions > 0) {
            let parts = [section.name(), side(function), &name(function)].map(|part| part.replace([';', '\n'], "_"));
            text.push_str(&format!("{} {}\n", parts.join(";"), function.sum.instructions));
        }
    }
    text
}

fn side(function: &Function) -> &'static str {
    if function.kernel { "kernel" } else { "user" }
}

/// A process with one thread for each interval, which the viewer calls by its name; a sample for each function, as heavy as its instructions.
fn firefox(told: &Told) -> anyhow::Result<firefox::Profile> {
    use firefox::{
        CategoryColor, CpuDelta, Frame, FrameFlags, FrameInfo, ReferenceTimestamp, SamplingInterval, Timestamp,
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).context("read the clock")?;
    let start = ReferenceTimestamp::from_millis_since_unix_epoch(now.as_secs_f64() * 1000.0);
    let mut profile = firefox::Profile::new("kerf measure", start, SamplingInterval::from_millis(1));
    profile.set_os_name("Linux");
    profile.set_symbolicated(true);
    let moment = |ms: u32| Timestamp::from_millis_since_reference(f64::from(ms));
    let categories = [("Kernel", CategoryColor::Orange), ("User", CategoryColor::Blue)];
    let [kernel, user] = categories.map(|(name, color)| profile.add_category(name, color));
    let mut time = 0;
    for (number, section) in told.sections.iter().enumerate() {
        let id = number as u32 + 1;
        let process = profile.add_process(section.name(), id, moment(time));
        let thread = profile.add_thread(process, id, moment(time), true);
        profile.set_thread_samples_weight_type(thread, firefox::WeightType::Samples);
        for function in &section.functions {
            let category = if function.kernel { kernel } else { user };
            let labels = [side(function).to_owned(), name(function)].map(|label| profile.intern_string(&label));
            let frames = labels.into_iter().map(|label| FrameInfo {
                frame: Frame::Label(label),
                category_pair: category.into(),
                flags: FrameFlags::empty(),
            });
            let stack = profile.intern_stack_frames(thread, frames);
            let mut rest = function.sum.instructions;
            while rest > 0 {
                // A sample's weight has 31 bits.
                let weight = rest.min(i32::MAX as u64);
                profile.add_sample(thread, moment(time), stack, CpuDelta::ZERO, weight as i32);
                (rest, time) = (rest - weight, time + 1);
            }
        }
        profile.set_thread_end_time(thread, moment(time));
    }
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kerf_profile::{Counts, Detail, Edge, Interval, Place, Row, Symbols, Wanted};

    const START: u64 = 0xffff_ffff_9a00_0000;

    /// A function of the kernel that calls itself, and code outside.
    fn profile() -> Profile {
        let place = |address| Place { address, size: 16, ranges: vec![(address & 0xffff, (address & 0xffff) + 16)] };
        let row = |block, instructions| Row { block, instructions, ends: 1, taken: 1, ..Row::default() };
        let heavy = 3 * i32::MAX as u64;
        let interval = Interval {
            name: "a;b".into(),
            instructions: Counts { kernel: heavy + 5, user: 7 },
            blocks: Counts { kernel: 2, user: 1 },
            rows: vec![row(0, heavy), row(1, 5), row(2, 7)],
            edges: vec![Edge { from: 0, to: 1, count: 4 }, Edge { from: 1, to: 0, count: 3 }],
        };
        let blocks = vec![place(START), place(START + 32), place(0x40_0000)];
        Profile { intervals: vec![interval], blocks, ..Profile::default() }
    }

    fn with_told(test: impl FnOnce(&Told, &Profile)) {
        let profile = profile();
        let symbols = Symbols::parse(&format!("{START:x} t spin [mod]\n"));
        let wanted = Wanted { detail: Detail::Flow, ..Wanted::default() };
        test(&Told::new(&profile, &symbols, wanted, true), &profile);
    }

    #[test]
    fn a_line_is_a_stack_and_its_weight() {
        let heavy = 3 * i32::MAX as u64 + 5;
        with_told(|told, _| assert_eq!(collapsed(told), format!("a_b;kernel;spin [mod] {heavy}\na_b;user;[user] 7\n")));
    }

    #[test]
    fn edges_are_told_by_function_and_offset() {
        with_told(|told, profile| {
            let spin = &everything(told, profile)["intervals"][0]["functions"][0];
            assert_eq!(spin["blocks"].as_array().map(Vec::len), Some(2));
            assert_eq!(spin["to"][0], json!({"from": 16, "function": "spin [mod]", "offset": 32, "count": 4}));
            assert_eq!(spin["to"][1], json!({"from": 48, "function": "spin [mod]", "offset": 0, "count": 3}));
        });
    }

    /// Follows each sample through the tables of the processed format to the names of its stack.
    #[test]
    fn the_tables_of_a_firefox_profile_lead_to_names() {
        let profile = {
            let mut json = Value::Null;
            with_told(|told, _| json = serde_json::to_value(firefox(told).unwrap()).unwrap());
            json
        };
        assert!(profile["meta"]["preprocessedProfileVersion"].as_u64() >= Some(50), "{}", profile["meta"]);
        let thread = &profile["threads"][0];
        assert_eq!((&thread["name"], &thread["samples"]["weightType"]), (&json!("a;b"), &json!("samples")));
        let at = |table: &Value, index: &Value| table[index.as_u64().unwrap_or(u64::MAX) as usize].clone();
        let name = |stack: &Value| {
            let frame = at(&thread["stackTable"]["frame"], stack);
            let function = at(&thread["frameTable"]["func"], &frame);
            at(&thread["stringArray"], &at(&thread["funcTable"]["name"], &function))
        };
        let mut weights = BTreeMap::new();
        let samples = &thread["samples"];
        for (stack, weight) in samples["stack"].as_array().unwrap().iter().zip(samples["weight"].as_array().unwrap()) {
            let caller = at(&thread["stackTable"]["prefix"], stack);
            assert_eq!(at(&thread["stackTable"]["prefix"], &caller), Value::Null);
            *weights.entry(format!("{} {}", name(&caller), name(stack))).or_insert(0) += weight.as_i64().unwrap();
        }
        let heavy = 3 * i64::from(i32::MAX) + 5;
        let expected = [("\"kernel\" \"spin [mod]\"".to_owned(), heavy), ("\"user\" \"[user]\"".to_owned(), 7)];
        assert_eq!(weights, BTreeMap::from(expected));
    }
}
