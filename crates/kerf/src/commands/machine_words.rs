//! Words that describe a machine of the lab, for the commands that boot one.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kerf_lab::{Cache, FileSpec, Kernel, LabError, Machine, Outcome, Sink};

/// The machine, without its CPUs.
#[derive(Debug, Args)]
pub struct MachineArgs {
    /// Memory in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u32,
    /// Number of NUMA nodes that share the CPUs and the memory.
    #[arg(long, value_name = "N", default_value_t = 1)]
    numa: u32,
    /// A kernel image, or the release of a cached kernel [default: the newest that has its source].
    #[arg(long, value_name = "FILE|RELEASE")]
    kernel: Option<String>,
    /// Words to append to the kernel's command line.
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Load a module, by name or file; parameters may follow after a space.
    #[arg(long = "module", value_name = "MODULE")]
    modules: Vec<String>,
    /// Bring a file or directory along, at the same path or another one.
    #[arg(long = "file", value_name = "FILE[:DEST]")]
    files: Vec<String>,
    /// Size in MiB of an empty disk, /dev/vda (behind a root, /dev/vdb).
    #[arg(long, value_name = "MIB")]
    disk: Option<u64>,
    /// Boot the system in this file system, which `kerf lab root` makes; the command runs there as a service, and what changes stays.
    #[arg(long, value_name = "IMAGE")]
    root: Option<PathBuf>,
    /// Seconds after which the run is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Go on after a warning of the kernel.
    #[arg(long)]
    allow_warn: bool,
    /// Show the kernel's console on standard error.
    #[arg(long)]
    console: bool,
    /// Another argument for QEMU.
    #[arg(long = "qemu-arg", value_name = "ARG", allow_hyphen_values = true)]
    qemu_args: Vec<OsString>,
}

impl MachineArgs {
    /// The machine, with so many CPUs.
    ///
    /// # Errors
    /// When the kernel or a file is not there.
    pub fn machine(&self, cpus: u32, steps: &mut Steps) -> Result<Machine, LabError> {
        let cache = Cache::open_default()?;
        let kernel = choose_kernel(&cache, self.kernel.as_deref(), steps)?;
        let mut machine = Machine::new(&cache, kernel, this_program()?);
        machine.cpus = cpus;
        machine.memory_mib = self.memory;
        machine.numa_nodes = self.numa;
        machine.append = self.append.clone();
        machine.modules = self.modules.clone();
        machine.files = self.files.iter().map(|text| FileSpec::parse(text)).collect::<Result<_, _>>()?;
        machine.disk_mib = self.disk;
        machine.root = self.root.clone();
        machine.timeout = Duration::from_secs(self.timeout);
        machine.allow_warnings = self.allow_warn;
        machine.qemu_args = self.qemu_args.clone();
        Ok(machine)
    }

    /// Boots the machine for a command, whose output is passed on, or collected for who prints it in another form.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn boot(&self, machine: &Machine, command: &[String], collect: bool) -> Result<Outcome, LabError> {
        if !collect {
            return machine.run_streaming(command, &mut Output { show_console: self.console });
        }
        let outcome = machine.run(command)?;
        if self.console {
            eprintln!("{}", outcome.console.trim_end());
        }
        Ok(outcome)
    }
}

/// The kernel that was named, else the default one.
///
/// # Errors
/// When there is none.
pub fn choose_kernel(cache: &Cache, name: Option<&str>, steps: &mut Steps) -> Result<Kernel, LabError> {
    match name {
        Some(name) => Kernel::named(cache, name),
        None => kerf_lab::kernel(cache, steps),
    }
}

fn this_program() -> Result<PathBuf, LabError> {
    std::env::current_exe().map_err(|source| LabError::Io { action: "find", path: "/proc/self/exe".into(), source })
}

/// Tells the user what is being done.
pub struct Steps {
    /// Says nothing.
    pub quiet: bool,
}

impl kerf_lab::Progress for Steps {
    fn step(&mut self, what: &str) {
        if !self.quiet {
            eprintln!("kerf: {what}");
        }
    }
}

/// Passes the guest's output on.
struct Output {
    /// The kernel's console too.
    show_console: bool,
}

impl Sink for Output {
    fn stdout(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout();
        stdout.write_all(bytes).and_then(|()| stdout.flush())
    }

    fn stderr(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::stderr().write_all(bytes)
    }

    fn console(&mut self, line: &str) -> io::Result<()> {
        if self.show_console { writeln!(io::stderr(), "{line}") } else { Ok(()) }
    }
}

/// The command's exit code as this program's.
pub fn exit_code(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}
