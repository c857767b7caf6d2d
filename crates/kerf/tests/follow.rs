//! Safe spans against a running kernel: a constant's value is followed from where it comes in, and nothing that uses it lies
//! outside of the spans that the entry says.

use std::process::{Command, Stdio};

use kerf_const::entry::Entry;
use kerf_const::table::Table;
use kerf_follow::{End, Question, Seen, Use, Wanted, watch};
use kerf_image::Image;
use kerf_lab::{Cache, Machine, Quiet};

/// The plug limit: two numbers in one expression, compared behind it.
const NAME: &str = "BLK_MAX_REQUEST_COUNT";

/// Each page that is written is a request of its own.
const WORKLOAD: &str = "queue=/sys/block/nullb0/queue
    echo none > $queue/scheduler; echo 2 > $queue/nomerges; echo 4 > $queue/max_sectors_kb
    echo go; dd if=/dev/zero of=/dev/nullb0 bs=1M count=8 conv=fsync";

fn entry() -> Entry {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let table = dir.path().join("scope.db");
    let mut kerf = Command::new(env!("CARGO_BIN_EXE_kerf"));
    let output = kerf.args(["const", "build", NAME, "--table"]).arg(&table).stdin(Stdio::null()).output();
    let output = output.expect("kerf starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Table::open(&table).expect("a table").entries(None).expect("entries").remove(0)
}

#[test]
fn nothing_uses_the_value_outside_of_its_safe_span() {
    let entry = entry();
    let cache = Cache::open_default().expect("a cache");
    let kernel = kerf_lab::kernel(&cache, &mut Quiet).expect("a kernel");
    let image = Image::open(&kernel.vmlinuz).expect("the kernel's image");
    let mut machine = Machine::new(&cache, kernel, env!("CARGO_BIN_EXE_kerf"));
    machine.modules.push("null_blk bs=4096 gb=1".into());
    let command = ["sh", "-c", WORKLOAD].map(str::to_owned).to_vec();
    let question = Question::of(&entry);
    let wanted = Wanted { machine, command, image: &image, question: question.clone(), executions: 10 };
    let Seen { executions, outcome } = watch(wanted).expect("the machine runs");
    assert_eq!(outcome.exit_code, 0);
    let ends: Vec<(usize, End)> = executions.iter().map(|execution| (execution.steps, execution.end)).collect();
    assert!(ends.iter().filter(|(_, end)| *end == End::Gone).count() > ends.len() / 2, "{ends:?}");
    let uses: Vec<&Use> = executions.iter().flat_map(|execution| &execution.uses).filter(|u| u.consumes()).collect();
    let described: Vec<String> = uses.iter().map(|used| used.describe(&image)).collect();
    assert!(uses.iter().all(|used| used.inside), "{described:#?}");
    // The comparison lies behind the critical span: without a safe span it is found to be outside.
    let narrow = Question { inside: Vec::new(), ..question };
    let outside = |used: &&Use| !narrow.allows(used.address, used.callers.iter().copied());
    assert!(uses.iter().any(outside), "{ends:?} {described:#?}");
}
