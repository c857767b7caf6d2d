//! What a person types in this repository: `cargo xtask demo|test|bench|install|package`.

mod bench;
mod demo;
mod guest;
mod install;
mod machine;
mod package;
mod page;
mod setup;
mod steps;
mod test;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Show a constant of the distribution's kernel change while I/O runs, with a report in target/demo.
    Demo,
    /// Set up everything, then check format, lints, documentation and all tests.
    Test(test::TestArgs),
    /// Measure something: prints a table and writes target/bench/NAME.json.
    Bench(bench::BenchArgs),
    /// Put the program, its unit, man pages and completions below a directory, as a package would.
    Install(install::InstallArgs),
    /// Make a Debian package of what `install` puts into a directory.
    Package(package::PackageArgs),
    /// The running kernel's text; for use in a virtual machine.
    #[command(hide = true, subcommand)]
    GuestText(guest::TextWord),
    /// The part of `bench switch` for the virtual machine.
    #[command(hide = true)]
    GuestSwitch(bench::switch::GuestSwitch),
    /// The part of `bench trigger` for the virtual machine.
    #[command(hide = true, subcommand)]
    GuestTrigger(bench::trigger::guest::TriggerWord),
    /// The part of `bench transitions` for the virtual machine.
    #[command(hide = true)]
    GuestTransitions(bench::transitions::GuestTransitions),
}

fn main() -> ExitCode {
    let result = match Cli::parse().word {
        Word::Demo => demo::run(),
        Word::Test(args) => args.run(),
        Word::Bench(args) => args.run(),
        Word::Install(args) => args.run(),
        Word::Package(args) => args.run(),
        Word::GuestText(word) => word.run(),
        Word::GuestSwitch(args) => args.run(),
        Word::GuestTrigger(word) => word.run(),
        Word::GuestTransitions(args) => args.run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}
