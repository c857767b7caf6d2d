//! kerf.ko in virtual machines that run the distribution's kernel, under every preemption model.
//!
//! Short by default. `KERF_ENDURANCE=1` makes the endurance tests as long as the project promises.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use kerf_lab::{Cache, FileSpec, Machine, Quiet};

/// What every machine of this file has: built once.
struct Bench {
    machine: Machine,
    _files: tempfile::TempDir,
}

fn build_bench() -> Bench {
    let files = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cache = Cache::open_default().unwrap();
    let kernel = kerf_lab::kernel(&cache, &mut Quiet).unwrap();
    let mut specs = Vec::new();
    for directory in ["kernel", "kernel/test", "kernel/test/livepatch"] {
        let module = kerf_lab::module::build(&kernel, &root.join("../..").join(directory), files.path()).unwrap();
        let guest = format!("/{}", module.file_name().unwrap().to_string_lossy());
        specs.push(FileSpec { host: module, guest });
    }
    let submit = files.path().join("submit");
    let source = root.join("tests/fixtures/submit.c");
    let built = Command::new("gcc").args(["-static", "-O1", "-o"]).arg(&submit).arg(source).status().unwrap();
    assert!(built.success(), "gcc: {built}");
    specs.push(FileSpec { host: submit, guest: "/submit".into() });
    let mut machine = Machine::new(&cache, kernel, guest_program());
    machine.files = specs;
    machine.modules = vec!["null_blk hw_queue_depth=512".into(), module(&machine, "kerf.ko"), module(&machine, "kerf_test.ko")];
    Bench { machine, _files: files }
}

fn module(machine: &Machine, name: &str) -> String {
    let spec = machine.files.iter().find(|spec| spec.host.ends_with(name)).unwrap();
    spec.host.to_string_lossy().into_owned()
}

/// examples/guest, which cargo builds along with the tests.
fn guest_program() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    deps.parent().and_then(Path::parent).unwrap().join("examples/guest")
}

fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(build_bench)
}

/// Plays scenarios one after the other in one machine. The lab fails the run at any warning, oops or stall of the kernel.
fn play(cpus: u32, preempt: &str, scenarios: &[&str]) {
    let mut machine = bench().machine.clone();
    machine.cpus = cpus;
    machine.append = vec![format!("preempt={preempt}")];
    machine.timeout = std::time::Duration::from_secs(if long() { 3600 } else { 300 });
    let script = scenarios.iter().map(|scenario| format!("/init {scenario}")).collect::<Vec<_>>().join(" && ");
    let outcome = machine.run(&["sh".into(), "-c".into(), script]).unwrap_or_else(|error| panic!("{error}"));
    let output = format!("{}{}", String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    println!("preempt={preempt}, {cpus} CPUs, {}, {:.1} s\n{output}", outcome.accelerator, outcome.duration.as_secs_f64());
    assert_eq!(outcome.exit_code, 0, "{output}");
}

fn long() -> bool {
    std::env::var_os("KERF_ENDURANCE").is_some()
}

#[test]
fn the_plug_limit_follows_the_value() {
    for preempt in ["none", "full"] {
        play(2, preempt, &["blocks"]);
    }
}

#[test]
fn every_form_of_location_works() {
    play(2, "full", &["functions", "parked"]);
}

#[test]
fn what_must_be_refused_is() {
    play(2, "none", &["refusals"]);
}

#[test]
fn other_owners_come_and_go() {
    play(2, "full", &["kprobes", "tracers", "livepatch"]);
}

#[test]
fn modules_cpus_and_writers_come_and_go() {
    let hotplug = if long() { "hotplug 300" } else { "hotplug 20" };
    play(4, "full", &["modules", hotplug, "killed"]);
}

#[test]
fn two_immediates_never_mix() {
    let count = if long() { 10_000 } else { 300 };
    play(4, "full", &[&format!("mixing {count}")]);
}

#[test]
fn cycles_under_load_leave_stock_text() {
    let count = if long() { 2000 } else { 60 };
    for preempt in ["none", "full"] {
        play(4, preempt, &[&format!("cycles {count}")]);
    }
}
