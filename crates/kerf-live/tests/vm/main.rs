//! kerf.ko in virtual machines that run the distribution's kernel, under every preemption model.
//!
//! Short by default. `KERF_ENDURANCE=1` makes the endurance tests as long as the project promises.

mod guest;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::OnceLock;
use std::time::Duration;

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
    for program in ["submit", "kexec"] {
        let host = files.path().join(program);
        let source = root.join("tests/fixtures").join(program).with_extension("c");
        let built = Command::new("gcc").args(["-static", "-O1", "-o"]).arg(&host).arg(source).status().unwrap();
        assert!(built.success(), "gcc: {built}");
        specs.push(FileSpec { host, guest: format!("/{program}") });
    }
    let policy = files.path().join("values.bpf.o");
    let mut clang = Command::new("clang");
    clang.args(["-O2", "-target", "bpf", "-mcpu=v3", "-c"]).arg(root.join("tests/fixtures/values.bpf.c"));
    let built = clang.arg("-o").arg(&policy).status().unwrap();
    assert!(built.success(), "clang: {built}");
    specs.push(FileSpec { host: policy, guest: "/values.bpf.o".into() });
    specs.push(FileSpec { host: kernel.vmlinuz.clone(), guest: "/vmlinuz".into() });
    let mut machine = Machine::new(&cache, kernel, std::env::current_exe().unwrap());
    machine.files = specs;
    machine.disk_mib = Some(1024);
    machine.modules = vec![
        "virtio_blk".into(),
        "null_blk hw_queue_depth=512".into(),
        module(&machine, "kerf.ko"),
        module(&machine, "kerf_test.ko"),
    ];
    Bench { machine, _files: files }
}

fn module(machine: &Machine, name: &str) -> String {
    let spec = machine.files.iter().find(|spec| spec.host.ends_with(name)).unwrap();
    spec.host.to_string_lossy().into_owned()
}

fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(build_bench)
}

fn long() -> bool {
    std::env::var_os("KERF_ENDURANCE").is_some()
}

/// Plays scenarios one after the other in one machine. The lab fails the run at any warning, oops or stall of the kernel.
fn play(cpus: u32, preempt: &str, scenarios: &[String]) -> Result<(), libtest_mimic::Failed> {
    let mut machine = bench().machine.clone();
    machine.cpus = cpus;
    // Probes come and go by the thousand there.
    let probed = ["transitions", "inside", "cases", "random"];
    machine.in_turns = scenarios.iter().any(|scenario| probed.iter().any(|name| scenario.starts_with(name)));
    machine.append = vec![format!("preempt={preempt}")];
    machine.timeout = Duration::from_secs(if long() { 7200 } else { 900 });
    let script = scenarios.iter().map(|scenario| format!("/init guest {scenario}")).collect::<Vec<_>>().join(" && ");
    let outcome = machine.run(&["sh".into(), "-c".into(), script])?;
    let output = format!("{}{}", String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    let seconds = outcome.duration.as_secs_f64();
    println!("preempt={preempt}, {cpus} CPUs, {}, {seconds:.1} s\n{output}", outcome.accelerator);
    if outcome.exit_code == 0 { Ok(()) } else { Err(output.into()) }
}

/// A test: scenarios that share a machine, once for each preemption model.
fn trial(name: &str, cpus: u32, models: &'static [&str], scenarios: &[String]) -> libtest_mimic::Trial {
    let scenarios = scenarios.to_vec();
    libtest_mimic::Trial::test(name, move || models.iter().try_for_each(|model| play(cpus, model, &scenarios)))
}

/// CPUs with indirect branch tracking fault at an indirect call to most of what the module calls; emulated ones do not. Every
/// indirect call of a kernel with retpolines names a thunk, so the module's symbols show where there is one. Only a policy's program
/// may be called so: the kernel gives those a landing pad.
fn no_indirect_calls() -> Result<(), libtest_mimic::Failed> {
    let spec =
        bench().machine.files.iter().find(|spec| spec.host.ends_with("kerf.ko")).ok_or("kerf.ko is not built")?;
    let bytes = std::fs::read(&spec.host)?;
    if !bytes.windows(19).any(|window| window == b"__x86_return_thunk\0") {
        return Err("this kernel has no retpolines: the test cannot tell".into());
    }
    let callers = indirect_callers(&object::File::parse(bytes.as_slice())?)?;
    if callers.is_empty()
        || callers.iter().any(|name| !["kerf_trigger", "decide", "consult"].iter().any(|known| name.starts_with(known)))
    {
        return Err(format!("kerf.ko makes indirect calls in {callers:?}").into());
    }
    Ok(())
}

/// The functions of a module that name a thunk for indirect calls.
fn indirect_callers(file: &object::File) -> Result<Vec<String>, object::Error> {
    use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind};
    let mut callers = Vec::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        for (offset, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            if !file.symbol_by_index(index)?.name()?.starts_with("__x86_indirect_thunk") {
                continue;
            }
            let holds = |symbol: &object::Symbol| {
                let range = symbol.address()..symbol.address() + symbol.size();
                symbol.section_index() == Some(section.index()) && range.contains(&offset)
            };
            let name = file.symbols().find(holds).map(|symbol| symbol.name().map(str::to_owned)).transpose()?;
            callers.push(name.unwrap_or_default());
        }
    }
    Ok(callers)
}

fn trials() -> Vec<libtest_mimic::Trial> {
    let words = |text: &str| text.split(", ").map(str::to_owned).collect::<Vec<_>>();
    let counted = |name: &str, short: u32, full: u32| format!("{name} {}", if long() { full } else { short });
    let coming = [words("modules, killed"), vec![counted("hotplug", 20, 300)]].concat();
    vec![
        libtest_mimic::Trial::test("the_module_makes_no_indirect_call", no_indirect_calls),
        trial("the_plug_limit_follows_the_value", 2, &["none", "full"], &words("blocks")),
        trial("every_form_of_location_works", 2, &["full"], &words("functions, forms, operations, parked")),
        trial("what_must_be_refused_is", 2, &["none"], &words("guards, refusals, not-permitted")),
        trial("other_owners_come_and_go", 2, &["full"], &words("kprobes, tracers, livepatch")),
        trial("modules_cpus_and_writers_come_and_go", 4, &["full"], &coming),
        trial("hibernation_keeps_what_is_set", 2, &["full"], &words("hibernation")),
        trial("kexec_starts_from_stock_text", 2, &["full"], &words("kexec")),
        trial("two_immediates_never_mix", 4, &["full"], &[counted("mixing", 300, 10_000)]),
        trial("threads_inside_keep_their_value", 2, &["none", "full"], &words("inside")),
        trial("transitions_and_what_comes_in_the_way", 4, &["full"], &words("cases")),
        trial("random_operations_do_what_the_model_says", 2, &["full"], &[counted("random", 60, 1000)]),
        trial("one_decision_for_one_execution", 2, &["full"], &words("executions, late, crowd")),
        trial("transitions_never_mix", 4, &["full"], &[counted("transitions", 20, 1000)]),
        trial("cycles_under_load_leave_stock_text", 4, &["none", "full"], &[counted("cycles", 60, 2000)]),
    ]
}

fn main() -> ExitCode {
    if kerf_lab::guest::is_guest_init() {
        return guest::init();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("guest", rest)) = arguments.split_first().map(|(word, rest)| (word.as_str(), rest)) {
        return guest::scenario(rest);
    }
    let mut options = libtest_mimic::Arguments::from_args();
    // A machine has as many virtual CPUs as the host has real ones, or more: one at a time.
    options.test_threads = options.test_threads.or(Some(1));
    libtest_mimic::run(&options, trials()).exit_code()
}
