//! The words of the command line, one file each.

mod const_build;
mod const_decide;
mod const_find;
mod const_list;
mod const_set;
mod const_show;
mod const_transfer;
mod const_unset;
mod const_verify;
mod const_words;
mod doctor;
pub mod init;
mod lab;
mod mode_words;
mod module;
mod policy_check;
mod policy_load;
mod policy_new;
mod policy_unload;
mod policy_words;
mod status;

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
    /// Constants compiled into the kernel: find, prove and set them.
    #[command(subcommand)]
    Const(const_words::ConstCommand),
    /// Policies: BPF programs that decide on constants, thread by thread and call by call.
    #[command(subcommand)]
    Policy(policy_words::PolicyCommand),
    /// What is set in the running kernel, and whether it is in force everywhere.
    Status(status::StatusArgs),
    /// What this machine can do, and how to mend what is missing.
    Doctor(doctor::DoctorArgs),
    /// The kernel module that changes the running kernel.
    #[command(subcommand)]
    Module(module::ModuleCommand),
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
            Command::Const(command) => command.run(),
            Command::Policy(command) => command.run(),
            Command::Status(args) => args.run(),
            Command::Doctor(args) => args.run(),
            Command::Module(command) => command.run(),
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
