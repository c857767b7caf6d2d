//! What a person types in this repository: `cargo xtask demo|test|bench`.

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
    /// Set up everything, then check format, lints, documentation and all tests.
    Test(test::TestArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().word {
        Word::Test(args) => args.run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}
