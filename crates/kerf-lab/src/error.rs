//! Everything that can go wrong in the lab.

use crate::console::Fault;
use std::io;
use std::path::{Path, PathBuf};

/// An error of the lab. Messages are fragments that read well after "failed to …:".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program could not be started at all.
    #[error("cannot start {program}{}", .remedy.as_ref().map(|r| format!(" ({r})")).unwrap_or_default())]
    Start {
        /// The program.
        program: String,
        /// The command that would make it available.
        remedy: Option<String>,
        /// Why it failed.
        source: io::Error,
    },
    /// A program ran and reported failure.
    #[error("`{command}` failed ({status}){}", quoted(.output))]
    Tool {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// The last lines of its output.
        output: String,
    },
    /// Programs or libraries that the lab needs are not installed.
    #[error("this machine lacks {}: install with `{remedy}`", .missing.join(", "))]
    HostPackages {
        /// Debian packages that are missing.
        missing: Vec<String>,
        /// The command that installs them.
        remedy: String,
    },
    /// The package archive does not offer what is needed.
    #[error("no usable kernel in the package archive: {reason}")]
    Archive {
        /// What was looked for and what was found.
        reason: String,
    },
    /// A kernel was asked for that is neither a file nor in the cache.
    #[error("no kernel `{name}`: it is neither a file nor one of the cached releases ({})", list(.cached))]
    NoSuchKernel {
        /// What was asked for.
        name: String,
        /// Releases that are there.
        cached: Vec<String>,
    },
    /// A file is not what it should be.
    #[error("{} {problem}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// A module was asked for that does not exist for this kernel.
    #[error("no module `{name}` for kernel {release}{}", hint(.suggestion))]
    NoSuchModule {
        /// The name as asked for.
        name: String,
        /// The kernel's release.
        release: String,
        /// A similar name that does exist.
        suggestion: Option<String>,
    },
    /// The machine was described in a way that cannot be built.
    #[error("the machine cannot be built: {reason}")]
    BadMachine {
        /// Which setting is wrong and why.
        reason: String,
    },
    /// QEMU itself gave up.
    #[error("qemu failed: {reason}{}", quoted(.output))]
    Qemu {
        /// In which way.
        reason: String,
        /// What it printed.
        output: String,
    },
    /// QEMU's debugging stub cannot be reached, or does not answer as it should.
    #[error("qemu cannot be used as a debugger: {reason}")]
    Debugger {
        /// What it said, or that it is gone.
        reason: String,
    },
    /// The guest's kernel reported a fault.
    #[error("the guest kernel reported a {}: {}{}", .fault.kind, .fault.line, console(.tail))]
    KernelFault {
        /// The fault.
        fault: Fault,
        /// The end of the kernel's console.
        tail: String,
    },
    /// The guest's kernel printed nothing for a long time before the command could start.
    #[error("the guest was silent for {seconds} s before it was up{}", console(.tail))]
    SilentBoot {
        /// Length of the silence.
        seconds: u64,
        /// The end of the kernel's console.
        tail: String,
    },
    /// The command took longer than allowed.
    #[error("the guest did not finish within {seconds} s ({state}){}", console(.tail))]
    Timeout {
        /// The limit.
        seconds: u64,
        /// How far it had come.
        state: &'static str,
        /// The end of the kernel's console.
        tail: String,
    },
    /// The machine went away without saying how the command ended.
    #[error("the guest ended without a result{}", console(.tail))]
    NoResult {
        /// The end of the kernel's console.
        tail: String,
    },
    /// The guest's first process could not set the system up.
    #[error("the guest could not be set up: {reason}{}", console(.tail))]
    GuestSetup {
        /// What failed.
        reason: String,
        /// The end of the kernel's console.
        tail: String,
    },
}

impl LabError {
    /// For `map_err`: names the operation and the file.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> LabError {
        let path = path.as_ref().to_owned();
        move |source| LabError::Io { action, path, source }
    }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none yet; `kerf lab fetch` gets one".into() } else { items.join(", ") }
}

fn hint(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map(|s| format!(" (did you mean `{s}`?)")).unwrap_or_default()
}

fn quoted(output: &str) -> String {
    if output.trim().is_empty() { String::new() } else { format!(":\n{}", indent(output)) }
}

fn console(tail: &str) -> String {
    if tail.trim().is_empty() {
        "; its console is empty".into()
    } else {
        format!("\nfrom the guest's console:\n{}", indent(tail))
    }
}

fn indent(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}
