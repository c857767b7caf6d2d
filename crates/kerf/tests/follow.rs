//! Safe spans against a running kernel: a constant's value is followed from where it comes in, and nothing that uses it lies
//! outside of the spans that the entry says.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use kerf_const::entry::Entry;
use kerf_const::table::Table;
use kerf_follow::{End, Execution, Question, Wanted, watch};
use kerf_image::Image;
use kerf_lab::{Cache, Machine, Quiet};

/// Where the loop over pending softirqs has its limit: kept in a register through all that the softirqs do.
const NAME: &str = "MAX_SOFTIRQ_RESTART";

/// Packets to itself, each a softirq.
const WORKLOAD: &str = "echo go; ping -A -q -c 5 -s 1000 127.0.0.1";

fn entry() -> Entry {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let table = dir.path().join("scope.db");
    let mut kerf = Command::new(env!("CARGO_BIN_EXE_kerf"));
    let output = kerf.args(["const", "build", NAME, "--table"]).arg(&table).stdin(Stdio::null()).output();
    let output = output.expect("kerf starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Table::open(&table).expect("a table").entries(None).expect("entries").remove(0)
}

fn question(entry: &Entry) -> Question {
    let base = entry.image.text;
    let sources = entry.spans.iter().flat_map(|s| s.iv.iter().map(move |iv| base + s.function_offset + iv.offset));
    let own = entry.spans.iter().map(|s| base + s.function_offset + s.start..base + s.function_offset + s.end);
    let ranges = entry.safe_spans.iter().flat_map(|s| &s.ranges);
    Question {
        sources: sources.collect(),
        own: own.collect(),
        inside: ranges.map(|(start, end)| base + start..base + end).collect(),
        most_steps: 20_000,
        ..Question::default()
    }
}

fn seen(question: Question, image: &Image, machine: &Machine, executions: usize) -> Vec<Execution> {
    let command = ["sh", "-c", WORKLOAD].map(str::to_owned).to_vec();
    let wanted = Wanted { machine: machine.clone(), command, image, question, executions };
    let seen = watch(wanted).expect("the machine runs");
    assert_eq!(seen.outcome.exit_code, 0);
    assert_eq!(seen.executions.len(), executions);
    for execution in &seen.executions {
        eprintln!("{} steps, {:?}", execution.steps, execution.end);
        for used in &execution.uses {
            let place = |address: u64| match image.function_at(address) {
                Some(function) => format!("{}+{:#x}", function.name, address - function.address),
                None => format!("{address:#x}"),
            };
            let callers: Vec<String> = used.callers.iter().map(|ip| place(*ip)).collect();
            let path: Vec<String> = used.path.iter().map(|ip| place(*ip)).collect();
            eprintln!(
                "  {:?} {} {} `{}` < {} path {}",
                used.flow,
                used.inside,
                place(used.address),
                used.text,
                callers.join(" < "),
                path.join(" > ")
            );
        }
    }
    seen.executions
}

#[test]
fn nothing_uses_the_value_outside_of_its_safe_span() {
    let entry = entry();
    let cache = Cache::open_default().expect("a cache");
    let kernel = kerf_lab::kernel(&cache, &mut Quiet).expect("a kernel");
    let image = Image::open(&kernel.vmlinuz).expect("the kernel's image");
    let machine = Machine::new(&cache, kernel, env!("CARGO_BIN_EXE_kerf"));
    let executions = seen(question(&entry), &image, &machine, 3);
    let uses: Vec<_> = executions.iter().flat_map(|execution| &execution.uses).filter(|u| u.consumes()).collect();
    assert!(uses.iter().all(|used| used.inside), "{uses:?}");
    assert!(executions.iter().any(|execution| execution.end == End::Gone), "{executions:?}");
    // The same without a safe span: the use at the end of the loop is outside of the code around the source.
    let narrow = Question { inside: Vec::new(), ..question(&entry) };
    let executions = seen(narrow, &image, &machine, 1);
    let outside: BTreeSet<u64> =
        executions.iter().flat_map(|e| &e.uses).filter(|u| u.consumes() && !u.inside).map(|u| u.address).collect();
    assert!(!outside.is_empty(), "{executions:?}");
}
