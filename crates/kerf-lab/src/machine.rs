//! A virtual machine as a value: what it has, and what came of a command that ran in it.

use crate::accel::{self, Accelerator};
use crate::cache::Cache;
use crate::error::LabError;
use crate::initramfs::{FileSpec, Initramfs};
use crate::kernel::Kernel;
use crate::protocol::Manifest;
use crate::{modules, qemu, supervise};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Receives a run's output while it happens. An error from it ends the run.
pub trait Sink {
    /// Bytes that the command wrote to its standard output.
    fn stdout(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
    /// Bytes that the command wrote to its standard error.
    fn stderr(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
    /// A line of the kernel's console, without line end.
    fn console(&mut self, _line: &str) -> io::Result<()> {
        Ok(())
    }
}

/// How a command ended, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The command's standard output; empty when it was streamed.
    pub stdout: Vec<u8>,
    /// The command's standard error; empty when it was streamed.
    pub stderr: Vec<u8>,
    /// Its exit code; 128 plus the signal's number when a signal ended it.
    pub exit_code: i32,
    /// The end of the kernel's console (some thousand lines).
    pub console: String,
    /// What the machine ran on.
    pub accelerator: Accelerator,
    /// The kernel's release.
    pub release: String,
    /// From the start of QEMU to its end.
    pub duration: Duration,
}

/// A plugin of QEMU's translator, which sees every instruction that is executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// The shared library.
    pub file: PathBuf,
    /// What it is told, as `name=value`.
    pub arguments: Vec<String>,
}

/// A machine to run commands in. Make one with [`Machine::new`] and change what should differ.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where the answer to "does KVM work" is remembered.
    pub cache: Cache,
    /// What is booted.
    pub kernel: Kernel,
    /// The static program that becomes the guest's first process and calls [`crate::guest::run`].
    pub init: PathBuf,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of NUMA nodes; CPUs and memory are divided among them.
    pub numa_nodes: u32,
    /// Words for the kernel's command line.
    pub append: Vec<String>,
    /// Modules to load: a name or a file, and parameters after a space.
    pub modules: Vec<String>,
    /// Files to bring along.
    pub files: Vec<FileSpec>,
    /// Size of an empty disk in MiB: `/dev/vda`, or `/dev/vdb` behind a root.
    pub disk_mib: Option<u64>,
    /// An ext4 file system with an operating system whose `/sbin/init` is systemd (see [`crate::root`]). It becomes `/dev/vda`, the
    /// machine boots it and runs the command as a service when it is up, and what changes there stays in the file.
    pub root: Option<PathBuf>,
    /// How long everything may take.
    pub timeout: Duration,
    /// How long the console may be silent before the guest is up.
    pub silence: Duration,
    /// Whether the run goes on after a kernel warning.
    pub allow_warnings: bool,
    /// KVM or TCG; by default KVM when it can boot this kernel here.
    pub accelerator: Option<Accelerator>,
    /// TCG runs all CPUs in turns on one thread. Slower; but with a thread each, a CPU sometimes runs a breakpoint that the
    /// guest's kernel has already taken out of its text.
    pub in_turns: bool,
    /// A plugin; such a machine runs on TCG.
    pub plugin: Option<Plugin>,
    /// The socket of a [`crate::gdb::Desk`]: QEMU comes to it, and the guest starts when the debugger says so. Such a machine has
    /// one CPU and runs on TCG.
    pub debugger: Option<PathBuf>,
    /// More arguments for QEMU.
    pub qemu_args: Vec<OsString>,
}

impl Machine {
    /// Two CPUs, 1 GiB, five minutes.
    pub fn new(cache: &Cache, kernel: Kernel, init: impl Into<PathBuf>) -> Self {
        Machine {
            cache: cache.clone(),
            kernel,
            init: init.into(),
            cpus: 2,
            memory_mib: 1024,
            numa_nodes: 1,
            append: Vec::new(),
            modules: Vec::new(),
            files: Vec::new(),
            disk_mib: None,
            root: None,
            timeout: Duration::from_secs(300),
            silence: Duration::from_secs(30),
            allow_warnings: false,
            accelerator: None,
            in_turns: false,
            plugin: None,
            debugger: None,
            qemu_args: Vec::new(),
        }
    }

    /// Boots, runs `command`, powers off. An exit code other than 0 is no error.
    ///
    /// # Errors
    /// When the machine cannot be built or started, and when the guest's kernel reports a fault, stays silent, runs out
    /// of time or goes away.
    pub fn run(&self, command: &[String]) -> Result<Outcome, LabError> {
        let mut collected = Collected::default();
        let mut first = self.run_streaming(command, &mut collected);
        let mishap = first.as_ref().err().and_then(|error| self.mishap(error));
        if let Some(mishap) = mishap
            && self.accelerator()? == Accelerator::Tcg
        {
            tracing::warn!("{mishap}; running the machine again");
            collected = Collected::default();
            first = self.run_streaming(command, &mut collected);
        }
        let mut outcome = first?;
        outcome.stdout = collected.stdout;
        outcome.stderr = collected.stderr;
        Ok(outcome)
    }

    /// What the emulator did, where it and not the guest is to blame and the same run can be made again.
    fn mishap(&self, error: &LabError) -> Option<&'static str> {
        match error {
            // What the command has changed on a root stays there: it would not be the same run.
            _ if self.root.is_some() => None,
            LabError::Qemu { .. } if self.plugin.is_some() => Some("the emulator broke down while a plugin looked on"),
            error if is_stale_breakpoint(error) => Some("the emulator ran a breakpoint that the kernel had taken away"),
            _ => None,
        }
    }

    /// As [`Machine::run`], with the output going to `sink` while the command runs.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn run_streaming(&self, command: &[String], sink: &mut dyn Sink) -> Result<Outcome, LabError> {
        self.check(command)?;
        let accelerator = self.accelerator()?;
        match self.boot(command, accelerator, sink) {
            // Emulation with several threads can run an instruction that the booting kernel has just patched in another
            // of its own routines. Nobody's command has run by then, so the machine starts over, once.
            Err(supervise::Failure { early: true, error }) if accelerator == Accelerator::Tcg => {
                tracing::warn!(%error, "the kernel failed before the guest was up; starting it again");
                self.boot(command, accelerator, sink).map_err(|failure| failure.error)
            }
            other => other.map_err(|failure| failure.error),
        }
    }

    fn boot(
        &self,
        command: &[String],
        accelerator: Accelerator,
        sink: &mut dyn Sink,
    ) -> Result<Outcome, supervise::Failure> {
        let work = tempfile::Builder::new()
            .prefix("kerf-lab-")
            .tempdir()
            .map_err(LabError::io("create a directory in", std::env::temp_dir()))?;
        let layout = qemu::Layout::new(work.path(), self.disk_mib)?;
        self.write_initramfs(command, &layout.initramfs)?;
        supervise::run(self, accelerator, &layout, sink)
    }

    /// What this machine runs on: the setting, else the best that works here and can do what it should.
    ///
    /// # Errors
    /// When the memory of earlier probes cannot be written.
    pub fn accelerator(&self) -> Result<Accelerator, LabError> {
        match (self.accelerator, &self.plugin) {
            (Some(accelerator), _) => Ok(accelerator),
            (None, Some(_)) => Ok(Accelerator::Tcg),
            (None, None) if self.debugger.is_some() => Ok(Accelerator::Tcg),
            (None, None) => accel::choose(self),
        }
    }

    fn check(&self, command: &[String]) -> Result<(), LabError> {
        let bad = |reason: &str| Err(LabError::BadMachine { reason: reason.into() });
        if command.is_empty() {
            return bad("no command was given");
        }
        if self.cpus == 0 || self.cpus > 255 {
            return bad("it needs between 1 and 255 CPUs");
        }
        if self.numa_nodes == 0 || self.numa_nodes > 64 {
            return bad("it needs between 1 and 64 NUMA nodes");
        }
        if self.memory_mib / self.numa_nodes < 64 {
            return bad("every NUMA node needs at least 64 MiB of memory");
        }
        if let Some(root) = self.root.as_ref().filter(|root| !root.is_file()) {
            return bad(&format!("the root {} is no file: make one with `kerf lab root`", root.display()));
        }
        if self.debugger.is_some() && (self.cpus != 1 || self.accelerator == Some(Accelerator::Kvm)) {
            return bad("a debugger follows one emulated CPU: make it one, and leave the accelerator open");
        }
        if let Some(plugin) = &self.plugin {
            if self.accelerator == Some(Accelerator::Kvm) {
                return bad("a plugin sees only what QEMU translates: leave the accelerator open, or make it tcg");
            }
            if !plugin.file.is_file() {
                return bad(&format!("the plugin {} is not there: build it first", plugin.file.display()));
            }
        }
        Ok(())
    }

    fn write_initramfs(&self, command: &[String], path: &Path) -> Result<(), LabError> {
        let mut requests = self.modules.clone();
        if self.root.is_some() {
            // Which checksum ext4 asks for stands in no dependency.
            requests.splice(0..0, ["crc32c_generic".into(), "ext4".into()]);
        }
        if self.disk_mib.is_some() || self.root.is_some() {
            requests.insert(0, "virtio_blk".into());
        }
        let small = path.with_file_name("init");
        let mut initramfs = Initramfs::new(if strip(&self.init, &small) { &small } else { &self.init })?;
        let manifest = Manifest {
            modules: Vec::new(),
            command: command.to_vec(),
            root: self.root.is_some(),
            files: self.files.iter().map(|file| file.guest.clone()).collect(),
        };
        initramfs.manifest(&modules::plan(&self.kernel, &requests)?, manifest)?;
        for file in &self.files {
            initramfs.file(file)?;
        }
        let file = File::create(path).map_err(LabError::io("create", path))?;
        initramfs.write(BufWriter::with_capacity(1 << 18, file)).map_err(LabError::io("write", path))
    }
}

/// Whether the kernel stopped at a breakpoint instruction that is no longer in its text.
///
/// While a kernel patches itself it puts `int3` in front for a moment. QEMU's translator with several threads can run
/// its translation of that byte after the kernel has taken it away, which no processor does. The byte before the one
/// that the oops marks is what was there: a breakpoint that somebody left would show as `cc`.
fn is_stale_breakpoint(error: &LabError) -> bool {
    let LabError::KernelFault { fault, tail } = error else { return false };
    let before = tail.lines().find_map(|l| l.split("Code: ").nth(1)?.split('<').next()?.split_whitespace().last());
    fault.line.contains("Oops: int3") && before.is_some_and(|byte| byte != "cc")
}

/// Writes a copy without debugging information, which a guest would only load slowly; a wish, not a need.
fn strip(program: &Path, to: &Path) -> bool {
    Command::new("strip").arg("-o").arg(to).arg(program).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Keeps all output in memory.
#[derive(Default)]
struct Collected {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Sink for Collected {
    fn stdout(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stdout.extend_from_slice(bytes);
        Ok(())
    }

    fn stderr(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stderr.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> Kernel {
        Kernel::example("1-test")
    }

    #[test]
    fn a_plugin_needs_its_file_and_emulation() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let mut machine = Machine::new(&cache, kernel(), "/bin/kerf");
        let file = dir.path().join("p.so");
        machine.plugin = Some(Plugin { file: file.clone(), arguments: Vec::new() });
        assert_eq!(machine.accelerator().unwrap(), Accelerator::Tcg);
        let refused = |machine: &Machine| machine.check(&["true".into()]).unwrap_err().to_string();
        assert!(refused(&machine).contains("p.so is not there"), "{}", refused(&machine));
        std::fs::write(&file, "").unwrap();
        assert!(machine.check(&["true".into()]).is_ok());
        machine.accelerator = Some(Accelerator::Kvm);
        assert!(refused(&machine).contains("make it tcg"), "{}", refused(&machine));
    }

    #[test]
    fn only_the_emulators_own_mishaps_are_worth_another_run() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let mut machine = Machine::new(&cache, kernel(), "/bin/kerf");
        let broken = LabError::Qemu { reason: "it ended with signal 6".into(), output: "Bad host ram pointer".into() };
        assert_eq!(machine.mishap(&broken), None, "wrong arguments would be wrong again");
        machine.plugin = Some(Plugin { file: "/p.so".into(), arguments: Vec::new() });
        assert!(machine.mishap(&broken).is_some());
        assert_eq!(machine.mishap(&LabError::NoResult { tail: String::new() }), None);
        machine.root = Some("/r.ext4".into());
        assert_eq!(machine.mishap(&broken), None, "a root keeps what the first run did");
    }

    #[test]
    fn a_debugger_needs_one_emulated_cpu() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let mut machine = Machine::new(&cache, kernel(), "/bin/kerf");
        machine.debugger = Some("/w/gdb".into());
        assert_eq!(machine.accelerator().unwrap(), Accelerator::Tcg);
        assert!(machine.check(&["true".into()]).is_err(), "two CPUs");
        machine.cpus = 1;
        assert!(machine.check(&["true".into()]).is_ok());
        machine.accelerator = Some(Accelerator::Kvm);
        assert!(machine.check(&["true".into()]).is_err());
    }

    #[test]
    fn only_breakpoints_that_are_gone_count_as_stale() {
        let fault = |line: &str, code: &str| {
            let fault = crate::console::classify(line).unwrap();
            LabError::KernelFault {
                fault,
                tail: format!("RIP: 0010:mutex_lock+0xe\nCode: 89 fb {code} 31 c0\nCall Trace:\n"),
            }
        };
        let line = "Oops: int3: 0000 [#1] PREEMPT SMP NOPTI";
        assert!(is_stale_breakpoint(&fault(line, "2e <2e>")));
        assert!(!is_stale_breakpoint(&fault(line, "cc <2e>")));
        assert!(!is_stale_breakpoint(&fault("Kernel panic - not syncing: x", "2e <2e>")));
    }
}
