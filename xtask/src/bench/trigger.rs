//! Bench `trigger`: what one passing of a constant costs more, in instructions, by who decides on it and how.
//!
//! The module in `xtask/data/trigger` does operations in a loop, with interrupts off, and some of them pass a constant. The plugin of
//! kerf-profile counts. Of two runs that differ in the number of operations only, the difference is theirs alone.

pub mod guest;

use self::guest::{Case, Way};
use super::{Measured, Row};
use crate::machine;
use crate::setup::Setup;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, bail, ensure};
use kerf_image::Image;
use kerf_lab::{FileSpec, Plugin};
use kerf_live::policy::{self, Headers};
use kerf_profile::{Profile, plugin};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The function with the constant, and the constant's instruction.
const FUNCTION: &str = "kerf_bench_point";
const INSTRUCTION: [u8; 5] = guest::STOCK;

/// Who decides: the row's subject, which way the operations go, what is attached or set, and the most that it may cost.
struct Subject {
    name: &'static str,
    way: Way,
    with: With,
    most: Option<f64>,
}

enum With {
    Nothing,
    /// What the small loader attaches, see `attach.c`.
    Program(&'static str),
    /// What kerf.ko does, see [`guest::TriggerWord`].
    Kerf(&'static str),
}

const fn subject(name: &'static str, way: Way, with: With, most: Option<f64>) -> Subject {
    Subject { name, way, with, most }
}

const SUBJECTS: &[Subject] = &[
    subject("nothing", Way::Point, With::Nothing, None),
    subject("empty-bpf-kprobe", Way::Point, With::Program("kprobe"), None),
    subject("kfunc-write", Way::Point, With::Program("write"), None),
    subject("fmod-ret-alone", Way::Ask, With::Program("return"), None),
    subject("struct-ops-alone", Way::Ops, With::Program("ops"), None),
    subject("kerf-policy", Way::Point, With::Kerf("decides"), Some(150.0)),
    subject("kerf-policy-keeps", Way::Point, With::Kerf("keeps"), Some(150.0)),
    subject("kerf-policy-reads", Way::Point, With::Kerf("reads"), None),
    subject("kerf-detour", Way::Point, With::Kerf("detour"), Some(5.0)),
    subject("kerf-immediate", Way::Point, With::Kerf("immediate"), Some(0.0)),
];

/// Policies of [`guest::TriggerWord`], by name: arguments and body.
const POLICIES: &[(&str, &str, &str)] = &[
    ("decides", "", "xk_set(xk_ctx, 4);"),
    ("keeps", "", ""),
    ("reads", ", unsigned long x", "xk_set(xk_ctx, x ? 4 : 5);"),
];

/// Compiles the policies into a directory.
fn policies(directory: &Path, kernel: &Path) -> anyhow::Result<()> {
    let image = Image::open(kernel).context("read the kernel")?;
    let types = directory.join("types.btf");
    std::fs::write(&types, image.btf().context("find the kernel's types")?).context("write the types")?;
    let headers = Headers::prepare(&directory.join("headers"), &types).context("write the policies' headers")?;
    for (name, arguments, body) in POLICIES {
        let source = directory.join(format!("{name}.bpf.c"));
        let text = format!(
            "#include \"vmlinux.h\"\n#include \"kerf.bpf.h\"\nXK_TUNE({name}, \"{FUNCTION}\"{arguments})\n{{\n\t{body}\n\treturn 0;\n}}\n\
             char LICENSE[] SEC(\"license\") = \"GPL\";\n"
        );
        std::fs::write(&source, text).with_context(|| format!("write {}", source.display()))?;
        policy::compile(&source, &headers, &directory.join(format!("{name}.o"))).context("compile a policy")?;
    }
    Ok(())
}

fn compile_program(source: &Path, program: &Path) -> anyhow::Result<()> {
    let status = Command::new("gcc").args(["-static", "-O1", "-o"]).arg(program).arg(source).status();
    let status = status.context("run gcc")?;
    ensure!(status.success(), "compile {}: gcc ended with {status}", source.display());
    Ok(())
}

/// Where in its function the constant's instruction is.
fn offset(module: &Path) -> anyhow::Result<usize> {
    let image = Image::open(module).context("read the module")?;
    let address = image.symbols_named(FUNCTION).next().context("find the module's function")?.address;
    let code = image.bytes(address, 32).context("read the module's function")?;
    code.windows(INSTRUCTION.len()).position(|bytes| bytes == INSTRUCTION).context("find the constant's instruction")
}

/// What the machine does, one line a subject; every line makes an interval for each case, repeat and number of operations.
fn script(offset: usize) -> String {
    let line = |subject: &Subject| {
        let measure = format!("xtask guest-trigger measure {}", subject.way.word());
        match subject.with {
            With::Nothing => measure,
            With::Program(how) => format!("/attach {how} {FUNCTION} {offset} {measure}"),
            With::Kerf(what) => {
                format!("xtask guest-trigger set {what} {offset}; {measure}; xtask guest-trigger unset {what}")
            }
        }
    };
    format!("set -e\n{}\n", SUBJECTS.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Instructions of an operation, for each subject and case.
type Figures = BTreeMap<(&'static str, Case), f64>;

/// The least of the repeated runs is the one without anything else in it.
fn figures(profile: &Profile) -> anyhow::Result<Figures> {
    let mut figures = Figures::new();
    let mut intervals = profile.intervals.iter().map(|interval| interval.instructions.kernel);
    for subject in SUBJECTS {
        for case in guest::cases() {
            let mut least = [u64::MAX; guest::OPERATIONS.len()];
            for _ in 0..guest::REPEATS {
                for least in &mut least {
                    *least = (*least).min(intervals.next().context("find all intervals in the counts")?);
                }
            }
            let [few, many] = least;
            let operations = guest::OPERATIONS[1] - guest::OPERATIONS[0];
            figures.insert((subject.name, case), many.saturating_sub(few) as f64 / f64::from(operations));
        }
    }
    ensure!(intervals.next().is_none(), "find as many intervals as were measured: there are more");
    Ok(figures)
}

fn rows(figures: &Figures) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut complaints) = (Vec::new(), Vec::new());
    let (first, nothing) = (guest::cases()[0], "nothing");
    let of = |name, case| figures.get(&(name, case)).copied().unwrap_or(f64::NAN);
    for Subject { name, most, .. } in SUBJECTS.iter().filter(|subject| subject.name != nothing) {
        let more = of(name, first) - of(nothing, first);
        rows.push(Row::new("instructions_per_trigger", "one constant, one CPU, TCG", name, more, "instructions"));
        if most.is_some_and(|most| more > most || more.is_nan()) {
            complaints.push(format!("{name}: {more} instructions a trigger, more than {}", most.unwrap_or_default()));
        }
    }
    for case in guest::cases() {
        for Subject { name, .. } in SUBJECTS.iter().filter(|s| s.way == Way::Point && s.name != nothing) {
            let ratio = of(name, case) / of(nothing, case);
            rows.push(Row::new("slowdown", &case.to_string(), name, ratio, "ratio of instructions"));
        }
    }
    (rows, complaints)
}

/// Builds all of it, boots the machine and counts.
pub fn run(workspace: &Workspace) -> anyhow::Result<Measured> {
    let mut steps = Steps::new();
    let setup = Setup::run(&mut steps)?;
    let kerf = steps.need("the kerf program", || workspace.build_kerf())?;
    let directory = workspace.directory("bench/trigger")?;
    let data = workspace.root.join("xtask/data/trigger");
    let library = steps.need("the plugin that counts", || Ok(plugin::build(&workspace.root, &workspace.target)?))?;
    let build = |source: &Path| -> anyhow::Result<PathBuf> {
        kerf_lab::module::build(&setup.kernel, source, &directory)
            .with_context(|| format!("build {}", source.display()))
    };
    let module = steps.need("kerf.ko", || build(&workspace.root.join("kernel")))?;
    let measured = steps.need("the module that is measured", || build(&data))?;
    steps.need("what goes with it", || {
        compile_program(&data.join("attach.c"), &directory.join("attach"))?;
        policies(&directory, &setup.kernel.vmlinuz)
    })?;
    let mut machine = machine::with_this_program(workspace, &setup, &kerf)?;
    let output = directory.join("profile.json");
    machine.cpus = 1;
    machine.plugin = Some(Plugin { file: library, arguments: plugin::arguments(&output) });
    machine.modules = [&module, &measured].map(|file| file.to_string_lossy().into_owned()).into();
    let names = POLICIES.iter().map(|(name, ..)| format!("{name}.o")).chain(["attach".to_owned()]);
    machine.files.extend(names.map(|name| FileSpec { host: directory.join(&name), guest: format!("/{name}") }));
    machine.timeout = Duration::from_secs(900);
    let script = script(offset(&measured)?);
    let profile = steps.need("operations that pass a constant, counted", || {
        let outcome = machine.run(&["sh".into(), "-c".into(), script]).context("measure in the machine")?;
        if outcome.exit_code != 0 {
            bail!("measure: {}", String::from_utf8_lossy(&outcome.stderr).trim());
        }
        Ok(Profile::read(&output)?)
    })?;
    let (rows, complaints) = rows(&figures(&profile)?);
    Ok(Measured { rows, complaints })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kerf_profile::{Counts, Interval};

    #[test]
    fn a_figure_is_the_difference_of_the_least() {
        let mut intervals = Vec::new();
        for (n, _) in SUBJECTS.iter().enumerate() {
            for (k, _) in guest::cases().iter().enumerate() {
                for repeat in 0..guest::REPEATS {
                    for operations in guest::OPERATIONS {
                        let disturbed = if repeat == 0 { 0 } else { 777 };
                        let kernel = 5000 + u64::from(operations) * (10 + n as u64 + k as u64) + disturbed;
                        intervals.push(Interval { instructions: Counts { kernel, user: 3 }, ..Interval::default() });
                    }
                }
            }
        }
        let figures = figures(&Profile { intervals: intervals.clone(), ..Profile::default() }).unwrap();
        let first = guest::cases()[0];
        assert_eq!((figures[&("nothing", first)], figures[&("empty-bpf-kprobe", first)]), (10.0, 11.0));
        let (rows, complaints) = rows(&figures);
        assert_eq!(rows[0].value, 1.0);
        // An immediate costs nothing at all, here it is behind nine others.
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        intervals.pop();
        assert!(super::figures(&Profile { intervals, ..Profile::default() }).is_err());
    }
}
