//! `kerf apply`: what the files of /etc/kerf.d say. Each of their words is what a person would type.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use kerf_config::{Constant, Cost, DIRECTORIES, Policy, Wanted};
use kerf_live::{Live, LiveError, module};
use serde_json::{Value, json};

use super::const_words::{TableArgs, find_running};
use crate::{print, running};

pub const EXAMPLES: &str = "\
Examples:
  kerf apply
  kerf apply --dry-run
  kerf apply --directory ./kerf.d --dry-run
  kerf apply --module nvme

A file of /etc/kerf.d or /usr/lib/kerf.d, named *.toml:
  [const]
  SHRINK_BATCH = 16
  BLK_MAX_REQUEST_COUNT = { value = 4, when = 'comm == \"nginx\"', max = 64, reason = \"random reads\" }
  [policy]
  tcp-hystart-by-rtt = \"/usr/lib/kerf/tcp-hystart-by-rtt.o\"

A file hides one of the same name in /usr/lib/kerf.d; of several files that name a constant the first one counts. The constants of
a file that have the same options change together. A constant that cannot be set does not keep the others from it; the exit code is
then the first failure's. Constants of a module that is not loaded wait for it: udev calls `kerf apply --module` when it is. See
docs/drop-ins.md.";

/// A module that udev tells of is still starting: so long it may take.
const START: Duration = Duration::from_secs(30);

/// Which files, and how to report.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    files: FilesArgs,
    /// Only the constants of this module of the kernel, once it has started.
    #[arg(long, value_name = "NAME")]
    module: Option<String>,
    /// Say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    table: TableArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Where the drop-ins are.
#[derive(Debug, Args)]
pub struct FilesArgs {
    /// A directory with drop-ins, as often as wanted [default: /etc/kerf.d and /usr/lib/kerf.d].
    #[arg(long, value_name = "DIR")]
    directory: Vec<PathBuf>,
}

impl FilesArgs {
    /// What the files want; warnings go to standard error. Files that others could have written are refused when root asks.
    pub fn read(&self) -> anyhow::Result<Wanted> {
        let default = || DIRECTORIES.map(PathBuf::from).to_vec();
        let directories = if self.directory.is_empty() { default() } else { self.directory.clone() };
        let wanted = Wanted::read(&directories, rustix::process::geteuid().is_root())?;
        wanted.warnings.iter().for_each(|warning| eprintln!("kerf: warning: {warning}"));
        Ok(wanted)
    }
}

/// A word of `kerf` that carries out a part of a file.
struct Step {
    /// The file it comes from.
    file: PathBuf,
    /// Without `kerf` itself.
    words: Vec<String>,
}

/// How a step went.
struct Done {
    step: Step,
    code: i32,
    said: String,
}

impl ApplyArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        self.execute().context("apply the drop-ins")
    }

    fn execute(&self) -> anyhow::Result<u8> {
        if !rustix::process::geteuid().is_root() {
            return Err(LiveError::NotPermitted.into());
        }
        let mut wanted = self.files.read()?;
        let homes = self.homes(&wanted);
        if let Some(name) = &self.module {
            keep_module(&mut wanted, &homes, &name.replace('-', "_"));
            if !wanted.constants.is_empty() {
                wait_for_start(name);
            }
        }
        let waiting = take_waiting(&mut wanted, &homes, &running::module_is_live);
        let loaded = self.loaded_policies()?;
        let steps = steps(&wanted, &loaded);
        if !steps.is_empty() && !module::is_loaded() && !self.dry_run {
            self.known_here(&wanted)?;
            let done = self.carry_out(Step { file: PathBuf::new(), words: vec!["module".into(), "load".into()] })?;
            if done.code != 0 {
                return self.report(&[done]);
            }
        }
        let mut done: Vec<Done> = steps.into_iter().map(|step| self.carry_out(step)).collect::<anyhow::Result<_>>()?;
        done.extend(waiting);
        self.report(&done)
    }

    /// The modules that hold the constants' code, by the constants' ids. What the table does not have is told by the step that sets it.
    fn homes(&self, wanted: &Wanted) -> BTreeMap<String, String> {
        let (Ok(table), Ok(build)) = (self.table.open(), running::build_id()) else { return BTreeMap::new() };
        let home = |constant: &Constant| {
            let name = constant.id.split('@').next().unwrap_or_default();
            let module = find_running(&table, &build, name).ok()?.image.module?;
            Some((constant.id.clone(), module.replace('-', "_")))
        };
        wanted.constants.iter().filter_map(home).collect()
    }

    /// Where no entry is of the running kernel there is nothing to load the module for: it may be that of another day.
    fn known_here(&self, wanted: &Wanted) -> anyhow::Result<()> {
        if !wanted.policies.is_empty() {
            return Ok(());
        }
        let (table, build) = (self.table.open()?, running::build_id()?);
        let mut found = wanted.constants.iter().map(|constant| find_running(&table, &build, &constant.id));
        match found.next() {
            Some(Err(first)) if found.all(|entry| entry.is_err()) => Err(first),
            _ => Ok(()),
        }
    }

    fn loaded_policies(&self) -> anyhow::Result<Vec<String>> {
        if !module::is_loaded() {
            return Ok(Vec::new());
        }
        let status = Live::open()?.status()?;
        Ok(status.entries.into_iter().filter_map(|entry| entry.policy).map(|policy| policy.owner).collect())
    }

    /// Runs this program with the step's words. Without the module a dry run can only say what it would do.
    fn carry_out(&self, mut step: Step) -> anyhow::Result<Done> {
        if step.words[0] != "module" {
            step.words.extend(self.table.given().map(|table| format!("--table={}", table.display())));
        }
        if self.dry_run {
            step.words.push("--dry-run".into());
            if !module::is_loaded() {
                let said = "would be tried once the kernel module is loaded".into();
                return Ok(Done { step, code: 0, said });
            }
        }
        let own = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(own);
        command.args(&step.words).stdin(Stdio::null());
        let output = command.output().context("run this program again")?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim_end().to_owned();
        Ok(Done { step, code: output.status.code().unwrap_or(1), said })
    }

    fn report(&self, done: &[Done]) -> anyhow::Result<u8> {
        let failed = done.iter().find(|one| one.code != 0);
        let code = failed.map_or(0, |one| u8::try_from(one.code).unwrap_or(1));
        if self.json {
            let step = |one: &Done| -> Value {
                json!({ "file": one.step.file, "command": one.step.command(), "code": one.code, "said": one.said })
            };
            let steps: Vec<Value> = done.iter().map(step).collect();
            print::json(&json!({ "dry_run": self.dry_run, "steps": steps }))?;
            return Ok(code);
        }
        for one in done {
            print::text(&format!("# {}", one.step.command()))?;
            print::text(&one.said)?;
        }
        if done.is_empty() {
            print::text("no file says that anything is to be set")?;
        }
        Ok(code)
    }
}

/// Leaves what belongs to one module.
fn keep_module(wanted: &mut Wanted, homes: &BTreeMap<String, String>, module: &str) {
    wanted.constants.retain(|constant| homes.get(&constant.id).is_some_and(|home| home == module));
    wanted.policies.clear();
}

fn wait_for_start(module: &str) {
    let start = Instant::now();
    while running::module_is_starting(module) && start.elapsed() < START {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Takes out what no code is there for yet, and says what it waits for.
fn take_waiting(wanted: &mut Wanted, homes: &BTreeMap<String, String>, live: &dyn Fn(&str) -> bool) -> Vec<Done> {
    let waits = |constant: &Constant| homes.get(&constant.id).filter(|module| !live(module));
    let done = |constant: &Constant| {
        let said = format!("waits until the module {} is loaded", waits(constant)?);
        Some(Done { step: set(constant, options(constant)), code: 0, said })
    };
    let waiting = wanted.constants.iter().filter_map(done).collect();
    wanted.constants.retain(|constant| waits(constant).is_none());
    waiting
}

impl Step {
    fn command(&self) -> String {
        let quoted = |word: &String| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@,".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                word.clone()
            } else {
                format!("'{}'", word.replace('\'', "'\\''"))
            }
        };
        let words: Vec<String> = self.words.iter().map(quoted).collect();
        format!("kerf {}", words.join(" "))
    }
}

/// What is to be done, in the files' order. A policy that is loaded already stays.
fn steps(wanted: &Wanted, loaded: &[String]) -> Vec<Step> {
    let mut steps: Vec<(Vec<String>, Step)> = Vec::new();
    for constant in &wanted.constants {
        let options = options(constant);
        let together = steps.iter_mut().find(|(known, step)| *known == options && step.file == constant.place.path);
        match together {
            Some((_, step)) => {
                let end = step.words.iter().position(|word| word.starts_with("--")).unwrap_or(step.words.len());
                step.words.insert(end, assignment(constant));
            }
            None => steps.push((options.clone(), set(constant, options))),
        }
    }
    let constants = steps.into_iter().map(|(_, step)| step);
    let missing = wanted.policies.iter().filter(|policy| !loaded.contains(&policy.name));
    constants.chain(missing.map(load)).collect()
}

fn assignment(constant: &Constant) -> String {
    format!("{}={}", constant.id, constant.value)
}

fn set(constant: &Constant, options: Vec<String>) -> Step {
    let words = ["const".into(), "set".into(), assignment(constant)].into_iter().chain(options).collect();
    Step { file: constant.place.path.clone(), words }
}

fn options(constant: &Constant) -> Vec<String> {
    let mut words = Vec::new();
    let mut option = |name: &str, value: Option<String>| words.extend(value.map(|value| format!("--{name}={value}")));
    let number = |number: Option<i64>| number.map(|number| number.to_string());
    option("when", constant.when.clone());
    option("min", number(constant.min));
    option("max", number(constant.max));
    option("step", number(constant.step));
    option("rate", number(constant.rate));
    cost(constant.cost).into_iter().for_each(|(name, value)| option(name, value));
    option("mode", constant.mode.map(|mode| mode.to_string()));
    option("timeout", number(constant.timeout));
    option("note", Some(note(&constant.place.path.display().to_string(), constant.reason.as_deref())));
    words
}

fn cost(cost: Cost) -> [(&'static str, Option<String>); 2] {
    [("max-triggers", cost.triggers.map(|n| n.to_string())), ("max-time", cost.time.map(|n| n.to_string()))]
}

fn load(policy: &Policy) -> Step {
    let mut words = vec!["policy".into(), "load".into(), policy.file.display().to_string()];
    let mut option = |name: &str, value: Option<String>| words.extend(value.map(|value| format!("--{name}={value}")));
    option("name", Some(policy.name.clone()));
    policy.limits.iter().for_each(|(id, min, max)| option("limit", Some(format!("{id}={min}..{max}"))));
    cost(policy.cost).into_iter().for_each(|(name, value)| option(name, value));
    option("mode", policy.mode.map(|mode| mode.to_string()));
    option("timeout", policy.timeout.map(|seconds| seconds.to_string()));
    option("note", Some(note(&policy.place.path.display().to_string(), policy.reason.as_deref())));
    Step { file: policy.place.path.clone(), words }
}

/// The file and its reason, in the 200 ASCII characters that the module keeps.
fn note(file: &str, reason: Option<&str>) -> String {
    let text = reason.map_or_else(|| file.to_owned(), |reason| format!("{file}: {reason}"));
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn wanted(text: &str) -> Wanted {
        let dropin = kerf_config::DropIn::parse(Path::new("/etc/kerf.d/a.toml"), text).expect("a drop-in");
        Wanted::merge(vec![dropin])
    }

    fn commands(text: &str, loaded: &[&str]) -> Vec<String> {
        let loaded: Vec<String> = loaded.iter().map(|name| (*name).to_owned()).collect();
        steps(&wanted(text), &loaded).iter().map(Step::command).collect()
    }

    #[test]
    fn files_become_what_one_would_type() {
        let text = "[const]\nA = 1\nB = \"1K\"\nD = 3\n[const.C]\nvalue = 4\nwhen = 'comm == \"nginx\"'\nmax = 64\nmode = \"task\"\n";
        assert_eq!(
            commands(text, &[]),
            [
                "kerf const set A=1 B=1K D=3 --note=/etc/kerf.d/a.toml",
                "kerf const set C=4 '--when=comm == \"nginx\"' --max=64 --mode=task --note=/etc/kerf.d/a.toml",
            ]
        );
    }

    #[test]
    fn constants_of_modules_wait_for_them() {
        let mut wanted = wanted("[const]\nA = 1\nB = 2\nC = 3\n");
        let homes = [("B", "x"), ("C", "y")].map(|(id, module)| (id.to_owned(), module.to_owned())).into();
        let waiting = take_waiting(&mut wanted, &homes, &|module| module == "y");
        assert_eq!(waiting[0].step.command(), "kerf const set B=2 --note=/etc/kerf.d/a.toml");
        assert_eq!((waiting.len(), waiting[0].said.as_str()), (1, "waits until the module x is loaded"));
        let left = |wanted: &Wanted| wanted.constants.iter().map(|c| c.id.clone()).collect::<Vec<_>>();
        assert_eq!(left(&wanted), ["A", "C"]);
        keep_module(&mut wanted, &homes, "y");
        assert_eq!(left(&wanted), ["C"]);
    }

    #[test]
    fn policies_that_are_loaded_stay() {
        let text = "[policy]\np = \"p.o\"\n[policy.q]\nfile = \"/q.o\"\nlimit = { A = [1, 2] }\nmax-triggers = 9\nmax-time = 2.5\nreason = \"größer\"\n";
        assert_eq!(
            commands(text, &["p"]),
            [
                "kerf policy load /q.o --name=q --limit=A=1..2 --max-triggers=9 --max-time=2.5 '--note=/etc/kerf.d/a.toml: gr??er'"
            ]
        );
        assert_eq!(commands(text, &[]).len(), 2);
    }
}
