//! The words of the command line, one file each.

mod apply;
mod const_build;
mod const_decide;
mod const_find;
mod const_list;
mod const_port;
mod const_report;
mod const_set;
mod const_show;
mod const_transfer;
mod const_unset;
mod const_verify;
mod const_words;
mod doctor;
mod generate;
mod guard_words;
pub mod init;
mod lab;
mod limit_words;
mod log;
mod machine_words;
mod measure;
mod mode_words;
mod module;
mod off;
mod policy_check;
mod policy_load;
mod policy_new;
mod policy_unload;
mod policy_words;
mod status;
mod try_metric;
mod try_told;
mod try_turns;
mod try_values;
mod verify;

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
    /// Whether values are better: measure with each of them in turn and compare.
    #[command(after_help = try_values::EXAMPLES)]
    Try(try_values::TryArgs),
    /// What is set in the running kernel, and whether it is in force everywhere.
    #[command(after_help = status::EXAMPLES)]
    Status(status::StatusArgs),
    /// Set what the files of /etc/kerf.d say.
    #[command(after_help = apply::EXAMPLES)]
    Apply(apply::ApplyArgs),
    /// Compare the running kernel with what the files of /etc/kerf.d say.
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::VerifyArgs),
    /// What was changed, when, by whom and why.
    #[command(after_help = log::EXAMPLES)]
    Log(log::LogArgs),
    /// Everything stock again, and the kernel module gone.
    #[command(after_help = off::EXAMPLES)]
    Off(off::OffArgs),
    /// What this machine can do, and how to mend what is missing.
    Doctor(doctor::DoctorArgs),
    /// The kernel module that changes the running kernel.
    #[command(subcommand)]
    Module(module::ModuleCommand),
    /// Virtual machines that boot the distribution's kernel and run a command in it.
    #[command(subcommand)]
    Lab(lab::LabCommand),
    /// Count what a command does in a virtual machine: instructions, branches, misses of modelled caches.
    #[command(after_help = measure::EXAMPLES)]
    Measure(measure::MeasureArgs),
    /// Man pages and shell completions, for who packages this program.
    #[command(hide = true)]
    Generate(generate::GenerateArgs),
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
            Command::Try(args) => args.run(),
            Command::Status(args) => args.run(),
            Command::Apply(args) => args.run(),
            Command::Verify(args) => args.run(),
            Command::Log(args) => args.run(),
            Command::Off(args) => args.run(),
            Command::Doctor(args) => args.run(),
            Command::Generate(args) => args.run(),
            Command::Module(command) => command.run(),
            Command::Lab(command) => command.run(),
            Command::Measure(args) => args.run(),
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
