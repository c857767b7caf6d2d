//! `kerf measure`: counts what a command does in a machine of the lab.

mod files;
mod guest;
mod told;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use kerf_lab::host::{self, Need};
use kerf_lab::{Accelerator, Machine, Plugin, Progress};
use kerf_profile::plugin::{self, Settings};
use kerf_profile::{Detail, Geometry, Model, Profile, ProfileError, Symbols, Wanted};

use super::machine_words::{MachineArgs, Steps, exit_code};
use told::Told;

pub const EXAMPLES: &str = "\
Examples:
  kerf measure -- dd if=/dev/zero of=/dev/null bs=1 count=10000
  kerf measure --per-function --top 10 -- sh -c 'find / | wc -l'
  kerf measure --model --l1d 32K/8 --file ./server -- ./server --requests 1000
  kerf measure --per-function --output kernel.json --format firefox -- make -C /src
  kerf measure -- sh -c 'prepare; kerf measure mark begin work; work; kerf measure mark end'

Everything that the machine does counts, interrupts and other processes included. Where the command sets no marks, it is measured
as a whole. The exit code is the command's own; failures of the lab itself are those of `kerf lab run`, and 42 if nothing could be
counted. What the figures mean, what the model leaves out, and how to mark in a program: docs/measuring.md";

/// What to measure, in which machine, and how to tell it.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct MeasureArgs {
    #[command(subcommand)]
    inside: Option<Inside>,
    #[command(flatten)]
    run: RunArgs,
}

/// What is done inside the machine.
#[derive(Debug, Subcommand)]
enum Inside {
    /// In the machine: begin or end an interval.
    Mark {
        /// Which of the two.
        what: Border,
        /// What the interval is called.
        #[arg(default_value = "")]
        name: String,
    },
    /// In the machine: run the command between marks.
    #[command(hide = true)]
    Guest {
        /// Say first and last where the kernel's functions are.
        #[arg(long)]
        symbols: bool,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// An end of an interval.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Border {
    Begin,
    End,
}

/// The form of a file with everything in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Every function with its blocks, and every edge.
    Json,
    /// A line for each function, as flame graphs are drawn from.
    Collapsed,
    /// For profiler.firefox.com.
    Firefox,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Number of CPUs. With more than one they are run in turns.
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    #[command(flatten)]
    machine: MachineArgs,
    /// Count function by function.
    #[arg(long)]
    per_function: bool,
    /// Follow control: branches taken, edges, lines and pages of code.
    #[arg(long)]
    flow: bool,
    /// Model caches and count their misses; follows control too.
    #[arg(long)]
    model: bool,
    #[command(flatten)]
    caches: CacheArgs,
    /// How many functions to print.
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Write everything to a file too.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What that file is.
    #[arg(long, value_enum, default_value = "json", requires = "output")]
    format: Format,
    /// QEMU's plugin that counts [default: the installed one, else it is built].
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// Print one JSON object instead of tables and the command's output.
    #[arg(long)]
    json: bool,
    /// Say nothing of the lab's own doings.
    #[arg(long, short)]
    quiet: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Sizes of what is modelled; each of them asks for the model.
#[derive(Debug, Args)]
struct CacheArgs {
    /// First-level cache for code [default: 32K/8].
    #[arg(long, value_name = "SIZE/WAYS", value_parser = str::parse::<Geometry>)]
    l1i: Option<Geometry>,
    /// First-level cache for data [default: 48K/12].
    #[arg(long, value_name = "SIZE/WAYS", value_parser = str::parse::<Geometry>)]
    l1d: Option<Geometry>,
    /// Second-level cache [default: 2M/16].
    #[arg(long, value_name = "SIZE/WAYS", value_parser = str::parse::<Geometry>)]
    l2: Option<Geometry>,
    /// TLB for code in pages of 4 KiB [default: 128/8].
    #[arg(long, value_name = "ENTRIES/WAYS", value_parser = Geometry::entries)]
    itlb: Option<Geometry>,
    /// TLB for the kernel's own code, in pages of 2 MiB [default: 16/16].
    #[arg(long, value_name = "ENTRIES/WAYS", value_parser = Geometry::entries)]
    itlb_large: Option<Geometry>,
}

impl CacheArgs {
    /// The model, if anything of it was asked for.
    fn model(&self) -> Option<Model> {
        let stock = Model::default();
        let model = Model {
            l1i: self.l1i.unwrap_or(stock.l1i),
            l1d: self.l1d.unwrap_or(stock.l1d),
            l2: self.l2.unwrap_or(stock.l2),
            itlb: self.itlb.unwrap_or(stock.itlb),
            itlb_large: self.itlb_large.unwrap_or(stock.itlb_large),
        };
        let asked = [self.l1i, self.l1d, self.l2, self.itlb, self.itlb_large].iter().any(Option::is_some);
        asked.then_some(model)
    }
}

impl MeasureArgs {
    /// Does it; the result is the exit code.
    pub fn run(self) -> anyhow::Result<u8> {
        match self.inside {
            Some(Inside::Mark { what, name }) => guest::mark(what, &name),
            Some(Inside::Guest { symbols, command }) => guest::run(symbols, &command),
            None => {
                let shown = self.run.command.join(" ");
                self.run.execute().with_context(|| format!("measure `{shown}`"))
            }
        }
    }
}

impl RunArgs {
    fn execute(self) -> anyhow::Result<u8> {
        let mut steps = Steps { quiet: self.quiet || self.json };
        host::install(&[Need::Machines], &mut steps)?;
        let wanted = self.wanted();
        let work = tempfile::tempdir().context("create a directory")?;
        let (counts, names) = (work.path().join("counts.json"), work.path().join("symbols"));
        let mut machine = self.machine.machine(self.cpus, &mut steps)?;
        let settings = Settings { output: counts.clone(), wanted, turns: self.cpus > 1 };
        machine.plugin = Some(Plugin { file: self.library(&mut steps)?, arguments: settings.arguments() });
        machine.accelerator = Some(Accelerator::Tcg);
        machine.in_turns = settings.turns;
        machine.silence = SILENCE;
        let command = self.inside(&names, &mut machine);
        steps.step(&format!("booting {} with {} to count", machine.kernel.release, told::of(wanted.detail)));
        let outcome = self.machine.boot(&machine, &command, self.json)?;
        let profile = Profile::read(&counts)?;
        let symbols = if self.named() { read_symbols(&names)? } else { Symbols::default() };
        let told = Told::new(&profile, &symbols, wanted, self.named());
        if let Some(file) = &self.output {
            files::write(file, self.format, &told, &profile).with_context(|| format!("write {}", file.display()))?;
        }
        if self.json {
            told.print_json(&outcome)?
        } else {
            told.print(self.per_function.then_some(self.top))?
        }
        Ok(exit_code(outcome.exit_code))
    }

    /// Whether functions are told apart.
    fn named(&self) -> bool {
        self.per_function || self.output.is_some()
    }

    fn wanted(&self) -> Wanted {
        let model = self.caches.model();
        let detail = match () {
            () if self.model || model.is_some() => Detail::Caches,
            () if self.flow => Detail::Flow,
            () if self.named() => Detail::Blocks,
            () => Detail::Sums,
        };
        Wanted { detail, model: model.unwrap_or_default() }
    }

    /// What the machine runs, and the way by which it says where its functions are.
    fn inside(&self, names: &Path, machine: &mut Machine) -> Vec<String> {
        let mut words = vec!["kerf", "measure", "guest"];
        if self.named() {
            let file = names.to_string_lossy().replace(',', ",,");
            machine.qemu_args.extend(["-chardev".into(), format!("file,id=symbols,path={file}").into()]);
            let port = format!("virtserialport,chardev=symbols,name={}", guest::PORT);
            machine.qemu_args.extend(["-device".into(), port.into()]);
            words.push("--symbols");
        }
        words.push("--");
        words.into_iter().map(str::to_owned).chain(self.command.iter().cloned()).collect()
    }

    /// The plugin: the one that was named, that is installed beside this program, or that its source gives.
    fn library(&self, steps: &mut Steps) -> anyhow::Result<PathBuf> {
        if let Some(file) = &self.plugin {
            return Ok(file.clone());
        }
        let program = std::env::current_exe().context("find this program")?;
        let installed = program.parent().unwrap_or(Path::new("/")).join("../lib/kerf");
        if installed.join(plugin::FILE).is_file() {
            return Ok(installed.join(plugin::FILE));
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/"));
        if !source.join("crates/kerf-profile/plugin/Cargo.toml").is_file() {
            return Err(ProfileError::NoPlugin { file: plugin::FILE, searched: installed }.into());
        }
        // Cargo's programs are `TARGET/PLATFORM/PROFILE/kerf`.
        let target = program.ancestors().nth(3).filter(|directory| directory.join("CACHEDIR.TAG").is_file());
        steps.step("building the plugin that counts, if it has changed");
        Ok(plugin::build(source, target.unwrap_or(&source.join("target")))?)
    }
}

/// A kernel that is followed to its caches takes its time to say its first word.
const SILENCE: Duration = Duration::from_secs(180);

fn read_symbols(path: &Path) -> Result<Symbols, ProfileError> {
    let text = std::fs::read(path).map_err(|source| ProfileError::Symbols { path: path.to_owned(), source })?;
    Ok(Symbols::parse(&String::from_utf8_lossy(&text)))
}
