//! `cargo xtask test`: all set-up, then format, lints, documentation and tests, each step shown with its time.

use crate::setup::{self, Setup};
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, bail};
use clap::Args;
use kerf_lab::host::Need;
use kerf_lab::root::Root;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

/// Packages whose integration tests boot virtual machines.
const WITH_MACHINES: [&str; 3] = ["kerf", "kerf-live", "kerf-profile"];

/// How much to test.
#[derive(Args)]
pub struct TestArgs {
    /// Leave out the tests that boot virtual machines.
    #[arg(long)]
    quick: bool,
}

impl TestArgs {
    /// Does it; a failed check does not keep the following ones from running.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let workspace = Workspace::find()?;
        let mut steps = Steps::new();
        let ready = self.set_up(&workspace, &mut steps);
        if ready.is_ok() {
            self.checks(&workspace, &mut steps);
        }
        steps.summary();
        Ok(if steps.all_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn set_up(&self, workspace: &Workspace, steps: &mut Steps) -> anyhow::Result<()> {
        let setup = Setup::run(steps)?;
        if !self.quick {
            systems(steps, &setup)?;
        }
        let out = workspace.directory("module")?;
        steps.need("kerf.ko, without warnings", || {
            kerf_lab::module::build(&setup.kernel, &workspace.root.join("kernel"), &out).context("build kerf.ko")
        })?;
        Ok(())
    }

    fn checks(&self, workspace: &Workspace, steps: &mut Steps) {
        let cargo = |words: &[&str]| {
            let mut command = workspace.cargo();
            command.args(words);
            command
        };
        steps.check("format", || passes(&mut cargo(&["fmt", "--check"])));
        let lints = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
        steps.check("lints", || passes(&mut cargo(&lints)));
        let mut doc = cargo(&["doc", "--quiet", "--workspace", "--no-deps"]);
        steps.check("documentation", || passes(doc.env("RUSTDOCFLAGS", "-D warnings")));
        if self.quick {
            let each = |word: &'static str| WITH_MACHINES.iter().flat_map(move |name| [word, *name]);
            let others = ["test", "--no-fail-fast", "--workspace"].into_iter().chain(each("--exclude"));
            steps.check("tests without machines", || tests(&mut cargo(&others.collect::<Vec<_>>())));
            let own = ["test", "--no-fail-fast", "--lib", "--bins"].into_iter().chain(each("--package"));
            steps.check("their unit tests", || tests(&mut cargo(&own.collect::<Vec<_>>())));
        } else {
            let all = ["test", "--no-fail-fast", "--workspace"];
            steps.check("tests, virtual machines with preempt=none and preempt=full included", || {
                tests(&mut cargo(&all))
            });
        }
    }
}

/// What the tests need that boot whole systems, and kernels of another build: fetched here, where one sees it.
fn systems(steps: &mut Steps, setup: &Setup) -> anyhow::Result<()> {
    setup::install(steps, &[Need::Roots])?;
    let mut progress = |what: &str| println!("    {what}");
    steps.need("another flavour of the kernel", || {
        let release = setup.kernel.release.replace("-amd64", "-cloud-amd64");
        kerf_lab::named(&setup.cache, &release, &mut progress).context("get the kernel")
    })?;
    steps.need("a base system", || {
        Root::default().fetch(&setup.cache, &mut progress).context("fetch the base system")
    })?;
    Ok(())
}

/// Runs a command whose output speaks for itself.
fn passes(command: &mut Command) -> anyhow::Result<String> {
    let status = command.status().context("run cargo")?;
    if status.success() { Ok(String::new()) } else { bail!("pass: {}", ended(status)) }
}

/// Runs `cargo test` and counts what its programs report, while passing that on.
fn tests(command: &mut Command) -> anyhow::Result<String> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("run cargo test")?;
    let mut count = Count::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("read what cargo test prints")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            count.add(&line);
        }
    }
    let status = child.wait().context("wait for cargo test")?;
    if !status.success() {
        bail!("pass all tests: {} of {} failed, {}", count.failed, count.passed + count.failed, ended(status));
    }
    if count.passed == 0 {
        bail!("find any test that ran");
    }
    Ok(format!("{} passed, {} ignored", count.passed, count.ignored))
}

fn ended(status: std::process::ExitStatus) -> String {
    format!("cargo ended with {status}")
}

/// Numbers of the lines `test result: ok. 3 passed; 0 failed; …`.
#[derive(Debug, Default, PartialEq)]
struct Count {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Count {
    fn add(&mut self, line: &str) {
        let Some((_, numbers)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in numbers.split(';') {
            let Some((number, word)) = part.trim().split_once(' ') else { continue };
            let number = number.parse().unwrap_or(0);
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed() {
        let mut count = Count::default();
        for line in [
            "running 4 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.10s",
            "test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 12.00s",
            "a test result: ok. 9 passed; 0 failed",
        ] {
            count.add(line);
        }
        assert_eq!(count, Count { passed: 8, failed: 2, ignored: 1 });
    }

    #[test]
    fn a_command_that_fails_does_not_pass() {
        assert!(passes(Command::new("true").arg("x")).is_ok());
        assert!(passes(&mut Command::new("false")).is_err());
        assert!(tests(&mut Command::new("true")).is_err(), "no test ran");
        let mut good = Command::new("echo");
        assert_eq!(tests(good.arg("test result: ok. 2 passed; 0 failed; 0 ignored")).unwrap(), "2 passed, 0 ignored");
    }
}
