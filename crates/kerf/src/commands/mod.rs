//! The words of the command line, one file each.

pub mod init;
mod lab;

use clap::{Parser, Subcommand};

/// Fits a deployed Linux kernel to its workload.
#[derive(Debug, Parser)]
#[command(name = "kerf", version, after_help = "Set KERF_LOG=debug to see what is done.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What `kerf` can do. A new word is a file here, a variant, and a line in [`Cli::run`].
#[derive(Debug, Subcommand)]
enum Command {
    /// Virtual machines that boot the distribution's kernel and run a command in it.
    #[command(subcommand)]
    Lab(lab::LabCommand),
    /// The first process of a lab machine; useless elsewhere.
    #[command(hide = true)]
    LabInit,
}

impl Cli {
    /// Does what the words say; the result is the exit code.
    pub fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Lab(command) => command.run(),
            Command::LabInit => init::run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_words_are_consistent() {
        Cli::command().debug_assert();
    }
}
