//! `kerf doctor`: what this machine can do, and the command that mends what is missing.

mod machine;
mod report;

use clap::Args;

use crate::exit::ExitCode;
use crate::print;

/// How to report.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kerf doctor\n  kerf doctor --json\n\n\
The exit code is 0 when `kerf const set` is possible here, 31 when something that it needs is missing.")]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl DoctorArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        let report = report::examine(&machine::Machine::here());
        if self.json {
            print::json(&report)?;
        } else {
            print::text(&report::sentences(&report))?;
        }
        Ok(if report.can_set { 0 } else { ExitCode::Unfit as u8 })
    }
}
