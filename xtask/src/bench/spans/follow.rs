//! The part of bench `spans` that runs a kernel: a workload reaches a constant, and its value is followed.

use super::super::{Measured, Row};
use crate::setup::Setup;
use anyhow::{Context, ensure};
use kerf_const::entry::Entry;
use kerf_follow::{End, Execution, Question, Seen, Use, Wanted, watch};
use kerf_image::Image;
use kerf_lab::{FileSpec, Machine};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// What a guest runs.
const SCRIPT: &str = include_str!("../../../data/spans.sh");

/// Executions that are followed from each instruction that brings the value in.
const EXECUTIONS: usize = 20;

/// The longest that a machine may take; stepping is slow.
const TIMEOUT: Duration = Duration::from_secs(1800);

/// A workload: its name in the script, and what its machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    name: &'static str,
    modules: &'static [&'static str],
    disk_mib: Option<u64>,
}

/// Programs of the host that the script uses beside busybox.
const PROGRAMS: [&str; 1] = ["/usr/sbin/tc"];

const fn workload_named(name: &'static str, modules: &'static [&'static str], disk_mib: Option<u64>) -> Workload {
    Workload { name, modules, disk_mib }
}

const SOFTIRQ: Workload = workload_named("softirq", &[], None);
const BLOCK: Workload = workload_named("block", &["null_blk bs=4096 gb=1"], None);
const MERGE: Workload = workload_named("merge", &["null_blk bs=4096 gb=1"], None);
const QUEUE: Workload = workload_named("queue", &["null_blk nr_devices=0"], None);
const SHRINK: Workload = workload_named("shrink", &["crc32c_generic", "ext4"], Some(8));
const WRITEBACK: Workload = workload_named("writeback", &["crc32c_generic", "ext4"], Some(64));
const TCP: Workload = workload_named("tcp", &[], None);
const START: Workload = workload_named("start", &["sch_netem"], None);
const LOSS: Workload = workload_named("loss", &["sch_netem"], None);
const MEMORY: Workload = workload_named("memory", &[], None);

/// Which workload reaches which constant of the list.
const REACHED: &[(&str, Workload)] = &[
    ("MAX_SOFTIRQ_RESTART", SOFTIRQ),
    ("MAX_SOFTIRQ_TIME", SOFTIRQ),
    ("BLK_MAX_REQUEST_COUNT", BLOCK),
    ("BLK_PLUG_FLUSH_SIZE", MERGE),
    ("BLK_MQ_CPU_WORK_BATCH", QUEUE),
    ("SHRINK_BATCH", SHRINK),
    ("WB_STAT_BATCH", WRITEBACK),
    ("MEMCG_CHARGE_BATCH", MEMORY),
    ("TCP_RTO_MIN", TCP),
    ("TCP_TIMEOUT_INIT", TCP),
    ("HYSTART_DELAY_MIN", START),
    ("HYSTART_DELAY_MAX", START),
    ("net/ipv4/tcp_cubic.c~delay_min >> 3~3", START),
    ("net/ipv4/tcp_recovery.c~tcp_min_rtt(tp) >> 2~2", LOSS),
];

/// The workload that reaches a constant, if there is one.
pub(super) fn workload(query: &str) -> Option<Workload> {
    REACHED.iter().find(|(name, _)| *name == query).map(|(_, workload)| *workload)
}

/// A machine for a workload.
pub(super) fn machine(setup: &Setup, kerf: &Path, workload: Workload) -> Machine {
    let mut machine = Machine::new(&setup.cache, setup.kernel.clone(), kerf);
    machine.modules = workload.modules.iter().map(|module| (*module).to_owned()).collect();
    machine.disk_mib = workload.disk_mib;
    machine.files = PROGRAMS.map(|program| FileSpec { host: program.into(), guest: program.into() }).to_vec();
    machine.timeout = TIMEOUT;
    machine
}

/// Follows an entry's value; whether any use of it was seen.
pub(super) fn check(
    mut machine: Machine,
    workload: Workload,
    image: &Image,
    entry: &Entry,
    name: &str,
    measured: &mut Measured,
) -> anyhow::Result<bool> {
    let directory = tempfile::tempdir().context("create a directory for the workload")?;
    let host = directory.path().join("spans.sh");
    std::fs::write(&host, SCRIPT).with_context(|| format!("write {}", host.display()))?;
    machine.files.push(FileSpec { host, guest: "/spans.sh".into() });
    let command = ["sh", "/spans.sh", workload.name].map(str::to_owned).to_vec();
    let question = Question::of(entry);
    let Seen { executions, outcome } = watch(Wanted { machine, command, image, question, executions: EXECUTIONS })
        .with_context(|| format!("follow it under the workload {}", workload.name))?;
    ensure!(outcome.exit_code == 0, "run the workload {}: it ended with {}", workload.name, outcome.exit_code);
    report(name, image, &executions, measured);
    Ok(!consumers(&executions).is_empty())
}

fn report(name: &str, image: &Image, executions: &[Execution], measured: &mut Measured) {
    let ended = |end: End| executions.iter().filter(|execution| execution.end == end).count();
    let gone = ended(End::Gone) + ended(End::Left);
    let cut = executions.len() - gone;
    let consumers = consumers(executions);
    let outside: Vec<&&Use> = consumers.values().filter(|used| !used.inside).collect();
    let steps: usize = executions.iter().map(|execution| execution.steps).sum();
    println!(
        "    {name}: {} executions, {cut} of them cut, {steps} instructions stepped, {} consumers, {} outside",
        executions.len(),
        consumers.len(),
        outside.len()
    );
    let mut row = |metric: &str, case: &str, value: usize, unit: &str| {
        measured.rows.push(Row::new(metric, case, name, value as f64, unit));
    };
    let case = format!("{} executions", executions.len());
    row("executions", "followed to the end", gone, "executions");
    row("executions", "cut", cut, "executions");
    row("consumers", &case, consumers.len(), "instructions");
    row("consumers_outside", &case, outside.len(), "instructions");
    measured.complaints.extend(outside.iter().map(|used| format!("{name}, outside: {}", used.describe(image))));
}

/// The instructions that consume the value, those outside with the first use that is outside.
fn consumers(executions: &[Execution]) -> BTreeMap<u64, &Use> {
    let mut consumers: BTreeMap<u64, &Use> = BTreeMap::new();
    for used in executions.iter().flat_map(|execution| &execution.uses).filter(|used| used.consumes()) {
        let known = consumers.entry(used.address).or_insert(used);
        if known.inside && !used.inside {
            *known = used;
        }
    }
    consumers
}

#[cfg(test)]
mod tests {
    use super::super::constants::{LIST, list};
    use super::*;
    use kerf_follow::Flow;

    #[test]
    fn workloads_are_for_constants_of_the_list_and_in_the_script() {
        for (name, workload) in REACHED {
            assert!(list(LIST).any(|line| line.query == *name && line.class == "proved"), "{name}");
            assert!(SCRIPT.contains(&format!("\n{}() {{\n", workload.name)), "{}", workload.name);
        }
    }

    #[test]
    fn one_use_outside_is_enough() {
        let used = |address, flow, inside| Use {
            address,
            text: "nop".into(),
            flow,
            inside,
            callers: Vec::new(),
            path: Vec::new(),
        };
        let uses = vec![
            used(1, Flow::Used, true),
            used(1, Flow::Used, false),
            used(2, Flow::Copied, false),
            used(3, Flow::Stored, true),
        ];
        let executions = [Execution { start: 0, steps: 4, end: End::Gone, uses }];
        let found: Vec<(u64, bool)> = consumers(&executions).into_iter().map(|(n, used)| (n, used.inside)).collect();
        assert_eq!(found, [(1, false), (3, true)]);
    }
}
