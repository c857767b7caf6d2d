//! Bench `live`: constants of the atlas, drawn by a seed, set live to two values each while the kernel works; how often the code asked for
//! the value tells that it was reached with it.

use super::atlas::Store;
use super::{Measured, Row};
use crate::setup::Setup;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, ensure};
use kerf_const::Class;
use kerf_const::entry::Entry;
use kerf_lab::{FileSpec, Machine};
use kerf_trial::Generator;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Constants that must be seen at work.
pub const WANTED: usize = 20;
/// So many are tried: the workload does not reach every one.
const TRIED: usize = 60;
/// A try takes some seconds.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// Draws constants of the table that bench `atlas` has left, and sets them one after the other.
pub fn run(workspace: &Workspace, seed: u64, tried: Option<usize>) -> anyhow::Result<Measured> {
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    let kerf = steps.need("the kerf program", || workspace.build_kerf())?;
    let store = Store::open(workspace, &setup)?;
    let directory = workspace.directory("bench")?;
    let module = steps.need("kerf.ko", || {
        kerf_lab::module::build(&setup.kernel, &workspace.root.join("kernel"), &directory).context("build kerf.ko")
    })?;
    let drawn = draw(store.entries()?, seed, tried.unwrap_or(TRIED));
    ensure!(
        !drawn.is_empty(),
        "find proved constants in {}: `cargo xtask bench atlas` builds them",
        store.path.display()
    );
    let constants = directory.join("live.constants");
    let line = |(entry, [first, second]): &(Entry, [i128; 2])| format!("{} {first} {second}\n", entry.id);
    std::fs::write(&constants, drawn.iter().map(line).collect::<String>()).context("write down the constants")?;
    let mut machine = Machine::new(&setup.cache, setup.kernel.clone(), &kerf);
    machine.files = vec![
        FileSpec { host: workspace.root.join("xtask/data/live.sh"), guest: "/live.sh".into() },
        FileSpec { host: constants, guest: "/constants".into() },
        FileSpec { host: module, guest: "/kerf.ko".into() },
        FileSpec { host: store.path, guest: "/var/lib/kerf/scope.db".into() },
    ];
    machine.modules = ["virtio_blk", "crc32c_generic", "ext4"].map(str::to_owned).to_vec();
    (machine.disk_mib, machine.timeout) = (Some(128), TIMEOUT);
    let outcome = steps.need(&format!("{} constants, one after the other", drawn.len()), || {
        machine.run(&["sh", "/live.sh"].map(str::to_owned)).context("set constants in the machine")
    })?;
    let (output, errors) = (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    ensure!(outcome.exit_code == 0, "set constants: the script ended with {}:\n{errors}", outcome.exit_code);
    Ok(measured(&output, seed))
}

/// Constants of the core image in an order that the seed decides, with two values of their domains that are not the deployed one.
fn draw(entries: Vec<Entry>, seed: u64, count: usize) -> Vec<(Entry, [i128; 2])> {
    let settable = |entry: &Entry| entry.class == Class::Proved && entry.image.module.is_none();
    let mut found: Vec<(Entry, [i128; 2])> =
        entries.into_iter().filter(settable).filter_map(|entry| two_values(&entry).map(|two| (entry, two))).collect();
    found.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
    found.shuffle(&mut Generator::seed_from_u64(seed));
    found.truncate(count);
    found
}

/// Half and twice the deployed value, or what is next to it.
fn two_values(entry: &Entry) -> Option<[i128; 2]> {
    let stock = entry.value;
    let candidates = [stock / 2, stock * 2, stock + 1, stock - 1, stock + 2];
    let mut values = candidates.into_iter().filter(|value| *value != stock && entry.certifies(*value));
    let first = values.next()?;
    let second = values.find(|value| *value != first)?;
    Some([first, second])
}

/// What became of a constant: how often its code asked for the value, for each value that was set.
#[derive(Default)]
struct Tried {
    asked: Vec<(String, u64)>,
    refused: Option<String>,
}

fn measured(output: &str, seed: u64) -> Measured {
    let mut tried: BTreeMap<String, Tried> = BTreeMap::new();
    for line in output.lines() {
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        match fields[..] {
            ["tried", id, value, status] => {
                tried.entry(id.into()).or_default().asked.push((value.into(), decided(status)));
            }
            ["refused", id, _, code] => tried.entry(id.into()).or_default().refused = Some(code.into()),
            _ => {}
        }
    }
    let case = format!("seed {seed:#x}");
    let mut rows = Vec::new();
    let reached = |tried: &&Tried| tried.asked.len() == 2 && tried.asked.iter().all(|(_, count)| *count > 0);
    for (id, what) in &tried {
        for (value, count) in &what.asked {
            rows.push(Row::new("asked for the value", value, id, *count as f64, "times"));
        }
    }
    let count = tried.values().filter(reached).count();
    let refused = tried.values().filter(|tried| tried.refused.is_some()).count();
    rows.push(Row::new("set and reached", &case, "two values each", count as f64, "constants"));
    rows.push(Row::new(
        "not reached by the workload",
        &case,
        "all",
        (tried.len() - count - refused) as f64,
        "constants",
    ));
    rows.push(Row::new("refused", &case, "all", refused as f64, "constants"));
    let mut complaints: Vec<String> = output
        .lines()
        .filter_map(|line| line.strip_prefix("log "))
        .map(|line| format!("the kernel said: {line}"))
        .collect();
    if count < WANTED {
        complaints.push(format!("{count} constants were set and reached with both values, fewer than {WANTED}"));
    }
    Measured { rows, complaints }
}

/// How often the policy decided, by what `kerf status --json` says.
fn decided(status: &str) -> u64 {
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    let entries = status["entries"].as_array().into_iter().flatten();
    entries.filter_map(|entry| entry["policy"]["decided"].as_u64()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_counts_when_both_values_were_asked_for() {
        let status = |n: u64| format!(r#"{{"entries": [{{"policy": {{"decided": {n}}}}}, {{"policy": null}}]}}"#);
        let output = format!(
            "tried A 1 {}\ntried A 4 {}\ntried B 1 {}\ntried B 4 {}\nrefused C 1 17\nlog WARNING: at a.c\n",
            status(3),
            status(5),
            status(0),
            status(2),
        );
        let measured = measured(&output, 7);
        let value = |metric: &str| measured.rows.iter().find(|row| row.metric == metric).map(|row| row.value);
        assert_eq!(value("set and reached"), Some(1.0));
        assert_eq!(value("not reached by the workload"), Some(1.0));
        assert_eq!(value("refused"), Some(1.0));
        assert!(measured.complaints[0].contains("WARNING") && measured.complaints[1].contains("fewer than 20"));
    }
}
