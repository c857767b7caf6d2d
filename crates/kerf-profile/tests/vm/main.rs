//! The plugin in a virtual machine: known loops are counted to the instruction, the kernel and the rest apart.

use kerf_lab::{Cache, FileSpec, Machine, Plugin, Quiet};
use kerf_profile::{Interval, Profile, mark, plugin};
use libtest_mimic::{Arguments, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Rounds of the known loop, which has two instructions.
const ROUNDS: u64 = 1_000_000;

/// What the machine plays, one word after the other.
const SCRIPT: &str = "set -e
    /loop marked
    for i in 1 2 3 4 5; do /loop calls 100; done
    for i in 1 2 3 4 5; do /loop calls 200; done
    /init guest
    /loop begin; /loop plain; /loop end";

/// The plugin, where `cargo xtask` has it too.
fn library() -> Result<PathBuf, Failed> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).ok_or("there is no workspace")?;
    // Cargo's directory for tests is `TARGET/PLATFORM/tmp`.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors().nth(2).ok_or("there is no target directory")?;
    Ok(plugin::build(workspace, target)?)
}

/// Runs the script in a machine with the plugin.
fn profile() -> Result<Profile, Failed> {
    let files = tempfile::tempdir()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = library()?;
    let host = files.path().join("loop");
    let source = root.join("tests/fixtures/loop.c");
    let built = Command::new("gcc").args(["-static", "-O1", "-o"]).arg(&host).arg(source).status()?;
    if !built.success() {
        return Err(format!("gcc: {built}").into());
    }
    let cache = Cache::open_default()?;
    let kernel = kerf_lab::kernel(&cache, &mut Quiet)?;
    let output = files.path().join("profile.json");
    let mut machine = Machine::new(&cache, kernel, std::env::current_exe()?);
    machine.cpus = 1;
    machine.plugin = Some(Plugin { file: library, arguments: plugin::arguments(&output) });
    machine.files.push(FileSpec { host, guest: "/loop".into() });
    let outcome = machine.run(&["sh".into(), "-c".into(), SCRIPT.into()])?;
    println!("{:.1} s", outcome.duration.as_secs_f64());
    if outcome.exit_code != 0 {
        return Err(String::from_utf8_lossy(&outcome.stderr).into_owned().into());
    }
    Ok(Profile::read(&output)?)
}

fn ensure(condition: bool, what: &str, profile: &Profile) -> Result<(), Failed> {
    if condition { Ok(()) } else { Err(format!("{what}: {profile:?}").into()) }
}

fn known_loops() -> Result<(), Failed> {
    let profile = profile()?;
    println!("{profile:?}");
    let [marked, calls @ .., nothing, across] = profile.intervals.as_slice() else {
        return Err(format!("intervals are missing: {profile:?}").into());
    };
    // The loop, and one instruction before it that sets its counter.
    ensure(marked.instructions.user == 2 * ROUNDS + 1, "the loop is counted exactly", &profile)?;
    let Some((hundred, two_hundred)) = calls.split_at_checked(5).filter(|(_, rest)| rest.len() == 5) else {
        return Err(format!("ten rounds of calls expected: {profile:?}").into());
    };
    // Five instructions a call, and one before the first.
    let exact = |intervals: &[Interval], calls: u64| {
        intervals.iter().all(|interval| interval.instructions.user == 5 * calls + 1)
    };
    ensure(exact(hundred, 100) && exact(two_hundred, 200), "the loops of calls are counted exactly", &profile)?;
    // Interrupts come on top of some, not of the one with the least.
    let least =
        |intervals: &[Interval]| intervals.iter().map(|interval| interval.instructions.kernel).min().unwrap_or(0);
    ensure(least(hundred) > 100 * 50, "system calls are the kernel's", &profile)?;
    ensure(least(two_hundred) == 2 * least(hundred), "twice the calls are twice the kernel", &profile)?;
    ensure(nothing.instructions.user < 20, "marks in Rust have nothing between them", &profile)?;
    ensure(across.instructions.user > 2 * ROUNDS, "an interval spans processes", &profile)?;
    ensure(profile.total.kernel > 100_000_000, "the boot is in the total", &profile)
}

/// Too many CPUs are refused by the plugin itself, with what to do.
fn one_cpu() -> Result<(), Failed> {
    let cache = Cache::open_default()?;
    let mut machine = Machine::new(&cache, kerf_lab::kernel(&cache, &mut Quiet)?, std::env::current_exe()?);
    machine.plugin = Some(Plugin { file: library()?, arguments: plugin::arguments(Path::new("/dev/null")) });
    match machine.run(&["true".into()]) {
        Ok(_) => Err("a machine with two CPUs was counted".into()),
        Err(error) if error.to_string().contains("-smp 1") => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn main() -> ExitCode {
    if kerf_lab::guest::is_guest_init() {
        return if kerf_lab::guest::run().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if std::env::args().nth(1).is_some_and(|word| word == "guest") {
        mark::begin();
        mark::end();
        return ExitCode::SUCCESS;
    }
    let mut options = Arguments::from_args();
    options.test_threads = options.test_threads.or(Some(1));
    let trials = vec![
        Trial::test("known_loops_are_counted_exactly", known_loops),
        Trial::test("more_than_one_cpu_is_refused", one_cpu),
    ];
    libtest_mimic::run(&options, trials).exit_code()
}
