//! `kerf lab`: boots kernels in virtual machines.

use super::machine_words::{MachineArgs, Steps, choose_kernel, exit_code};
use anyhow::Context;
use clap::{Args, Subcommand};
use kerf_lab::host::{self, Need};
use kerf_lab::root::Root;
use kerf_lab::{Cache, FileSpec, Kernel, Outcome};
use std::io::{self, Write};
use std::path::PathBuf;

const RUN_EXAMPLES: &str = "\
Examples:
  kerf lab run -- uname -r
  kerf lab run --cpus 4 --numa 2 --append preempt=full -- cat /sys/devices/system/node/online
  kerf lab run --module 'null_blk nr_devices=1' --file ./script.sh:/bin/script -- script
  kerf lab run --root debian.ext4 -- systemctl --failed
  kerf lab run --json -- true

The exit code is the command's own. Failures of the lab itself:
  64 set-up   65 packages missing   66 no kernel   67 qemu   68 guest set-up, modules
  70 panic, oops, lockup, stall   71 kernel warning   72 silent boot   73 time limit   74 no result";

const ROOT_EXAMPLES: &str = "\
Examples:
  kerf lab root debian.ext4
  kerf lab root debian.ext4 --package nginx-light --deb ./kerf_0.1.0_amd64.deb
  kerf lab run --root debian.ext4 -- systemctl is-system-running --wait";

/// What the lab can do.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Boot a kernel, run a command in it, and end with the command's exit code.
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Fetch the distribution's kernel and its headers into the cache.
    #[command(
        after_help = "Examples:\n  kerf lab fetch\n  kerf lab fetch --source\n  kerf lab fetch 6.12.117+deb12-cloud-amd64"
    )]
    Fetch(FetchArgs),
    /// Make a file system with Debian on it, which `kerf lab run --root` boots.
    #[command(after_help = ROOT_EXAMPLES)]
    Root(RootArgs),
    /// List the kernels in the cache.
    List(ListArgs),
    /// Build a kernel module against the cached headers.
    #[command(after_help = "Example:\n  kerf lab module kernel -o target/kerf.ko")]
    Module(ModuleArgs),
}

/// What to fetch.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// What `uname -r` prints on the kernel that is wanted [default: the newest that has its source].
    #[arg(value_name = "RELEASE", conflicts_with = "update")]
    release: Option<String>,
    /// Also fetch, unpack and prepare the kernel's source.
    #[arg(long)]
    source: bool,
    /// Ask the package archive for a newer kernel than the cached one.
    #[arg(long)]
    update: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What is in the file system.
#[derive(Debug, Args)]
pub struct RootArgs {
    /// The file to write; one that exists is replaced.
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// A package of the archive to have in it, beyond what a system needs to boot.
    #[arg(long = "package", value_name = "NAME")]
    packages: Vec<String>,
    /// A package file to install.
    #[arg(long = "deb", value_name = "FILE")]
    debs: Vec<PathBuf>,
    /// Copy a file or directory, to the same path or another one.
    #[arg(long = "file", value_name = "FILE[:DEST]")]
    files: Vec<String>,
    /// Size of the file system in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    size: u64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// How to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print the list as JSON.
    #[arg(long)]
    json: bool,
}

/// The module and the kernel it is for.
#[derive(Debug, Args)]
pub struct ModuleArgs {
    /// Directory with the module's source and its Makefile or Kbuild file.
    #[arg(value_name = "DIR")]
    source: PathBuf,
    /// Where the module goes: a file NAME.ko, or a directory.
    #[arg(long, short, value_name = "OUT", default_value = ".")]
    out: PathBuf,
    /// Release of a cached kernel, or an image whose headers lie beside it [default: the newest that has its source].
    #[arg(long, value_name = "FILE|RELEASE")]
    kernel: Option<String>,
}

/// The machine and the command.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Number of CPUs.
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    #[command(flatten)]
    machine: MachineArgs,
    /// Print one JSON object instead of the command's output.
    #[arg(long)]
    json: bool,
    /// Say nothing of the lab's own doings.
    #[arg(long, short)]
    quiet: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl LabCommand {
    /// Does it; the result is the exit code.
    pub fn run(self) -> anyhow::Result<u8> {
        match self {
            LabCommand::Run(args) => args.run(),
            LabCommand::Fetch(args) => args.run().context("fetch a kernel"),
            LabCommand::Root(args) => args.run().context("make a root file system"),
            LabCommand::List(args) => args.run().context("list the cached kernels"),
            LabCommand::Module(args) => args.run().context("build the module"),
        }
    }
}

impl FetchArgs {
    fn run(self) -> anyhow::Result<u8> {
        let mut steps = Steps { quiet: self.json };
        host::install(&[Need::Machines], &mut steps)?;
        let cache = Cache::open_default()?;
        let mut kernel = match &self.release {
            Some(release) => kerf_lab::named(&cache, release, &mut steps)?,
            None if self.update => kerf_lab::update(&cache, &mut steps)?,
            None => kerf_lab::kernel(&cache, &mut steps)?,
        };
        if self.source {
            kernel.source = Some(kerf_lab::source(&cache, &kernel, &mut steps)?);
        }
        print_kernels(std::slice::from_ref(&kernel), self.json)?;
        Ok(0)
    }
}

impl RootArgs {
    fn run(self) -> anyhow::Result<u8> {
        let mut steps = Steps { quiet: self.json };
        host::install(&[Need::Machines, Need::Roots], &mut steps)?;
        let files = self.files.iter().map(|text| FileSpec::parse(text)).collect::<Result<_, _>>()?;
        let root = Root { packages: self.packages, debs: self.debs, files, size_mib: self.size };
        root.make(&Cache::open_default()?, &self.image, &mut steps)?;
        if self.json {
            writeln!(io::stdout(), "{:#}", serde_json::json!({ "image": self.image }))?;
        } else {
            writeln!(io::stdout(), "{}", self.image.display())?;
        }
        Ok(0)
    }
}

impl ListArgs {
    fn run(self) -> anyhow::Result<u8> {
        let cache = Cache::open_default()?;
        let releases = cache.releases();
        let kernels = releases.iter().map(|release| Kernel::cached(&cache, release));
        print_kernels(&kernels.collect::<Result<Vec<_>, _>>()?, self.json)?;
        Ok(0)
    }
}

impl ModuleArgs {
    fn run(self) -> anyhow::Result<u8> {
        let mut steps = Steps { quiet: false };
        host::install(&[Need::Machines, Need::Modules], &mut steps)?;
        let cache = Cache::open_default()?;
        let kernel = choose_kernel(&cache, self.kernel.as_deref(), &mut steps)?;
        let module = kerf_lab::module::build(&kernel, &self.source, &self.out)?;
        writeln!(io::stdout(), "{}", module.display())?;
        Ok(0)
    }
}

fn print_kernels(kernels: &[Kernel], json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        let rows: Vec<_> = kernels
            .iter()
            .map(|kernel| {
                serde_json::json!({
                    "release": kernel.release,
                    "version": kernel.version,
                    "vmlinuz": kernel.vmlinuz,
                    "headers": kernel.headers,
                    "source": kernel.source,
                })
            })
            .collect();
        return writeln!(out, "{:#}", serde_json::Value::from(rows)).context("print the list");
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["RELEASE", "VERSION", "IMAGE", "SOURCE"]);
    for kernel in kernels {
        let source = kernel.source.as_ref().map_or_else(|| "-".into(), |path| path.display().to_string());
        let image = kernel.vmlinuz.display().to_string();
        table.add_row([kernel.release.clone(), kernel.version.clone(), image, source]);
    }
    writeln!(out, "{table}").context("print the list")
}

impl RunArgs {
    fn run(self) -> anyhow::Result<u8> {
        let shown = self.command.join(" ");
        self.execute().with_context(|| format!("run `{shown}` in the lab"))
    }

    fn execute(self) -> anyhow::Result<u8> {
        let mut steps = Steps { quiet: self.quiet || self.json };
        host::install(&[Need::Machines], &mut steps)?;
        let mut machine = self.machine.machine(self.cpus, &mut steps)?;
        let accelerator = machine.accelerator()?;
        machine.accelerator = Some(accelerator);
        kerf_lab::Progress::step(&mut steps, &format!("booting {} on {accelerator}", machine.kernel.release));
        let outcome = self.machine.boot(&machine, &self.command, self.json)?;
        if self.json {
            print_json(&outcome)?;
        }
        Ok(exit_code(outcome.exit_code))
    }
}

fn print_json(outcome: &Outcome) -> anyhow::Result<()> {
    let object = serde_json::json!({
        "stdout": String::from_utf8_lossy(&outcome.stdout),
        "stderr": String::from_utf8_lossy(&outcome.stderr),
        "exit_code": outcome.exit_code,
        "accelerator": outcome.accelerator,
        "release": outcome.release,
        "seconds": (outcome.duration.as_secs_f64() * 1000.0).round() / 1000.0,
    });
    writeln!(io::stdout(), "{object:#}").context("print the result")
}
