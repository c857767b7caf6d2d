//! The QEMU command line of a machine, and the process it becomes.

use crate::accel::Accelerator;
use crate::error::LabError;
use crate::machine::Machine;
use crate::process;
use crate::protocol::{CONTROL_PORT, STDERR_PORT, STDOUT_PORT};
use std::ffi::OsString;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

/// The program.
const QEMU: &str = "qemu-system-x86_64";

/// A line of communication with the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// The first serial line: the kernel's console.
    Console,
    /// The guest's [`crate::protocol::Message`]s.
    Control,
    /// The command's standard output.
    Stdout,
    /// The command's standard error.
    Stderr,
    /// What QEMU itself complains about.
    Qemu,
}

/// Streams that are sockets, with the names of their virtio ports.
const SOCKETS: [(Stream, &str, &str); 4] = [
    (Stream::Console, "console", ""),
    (Stream::Control, "control", CONTROL_PORT),
    (Stream::Stdout, "stdout", STDOUT_PORT),
    (Stream::Stderr, "stderr", STDERR_PORT),
];

/// Where the files of one run lie.
#[derive(Debug)]
pub(crate) struct Layout {
    directory: PathBuf,
    /// The archive that the guest starts from.
    pub(crate) initramfs: PathBuf,
    disk: Option<PathBuf>,
}

impl Layout {
    /// Names the files in `directory` and makes the disk, which takes up no space until it is written to.
    pub(crate) fn new(directory: &Path, disk_mib: Option<u64>) -> Result<Self, LabError> {
        let mut layout =
            Layout { directory: directory.to_owned(), initramfs: directory.join("initramfs.cpio"), disk: None };
        if let Some(mib) = disk_mib {
            let path = directory.join("disk.raw");
            let file = std::fs::File::create(&path).map_err(LabError::io("create", &path))?;
            let size = mib.checked_mul(1 << 20).filter(|size| i64::try_from(*size).is_ok());
            let size = size.ok_or_else(|| LabError::BadMachine { reason: format!("no disk has {mib} MiB") })?;
            file.set_len(size).map_err(LabError::io("set the size of", &path))?;
            layout.disk = Some(path);
        }
        Ok(layout)
    }

    /// Removes the names of the files; what is open stays usable.
    pub(crate) fn remove(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::debug!(%error, "removing {}", self.directory.display());
        }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// A running QEMU that is killed when it is dropped.
pub(crate) struct Qemu {
    pub(crate) child: Child,
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A QEMU that has just been started, with its lines of communication.
pub(crate) struct Started {
    pub(crate) qemu: Qemu,
    pub(crate) sockets: Vec<(Stream, UnixStream)>,
    pub(crate) stderr: ChildStderr,
}

/// Starts QEMU and waits until it has opened its sockets.
pub(crate) fn start(machine: &Machine, accelerator: Accelerator, layout: &Layout) -> Result<Started, LabError> {
    let mut listeners = Vec::new();
    for (stream, name, _) in SOCKETS {
        let path = layout.socket(name);
        listeners.push((stream, UnixListener::bind(&path).map_err(LabError::io("listen on", &path))?, path));
    }
    let mut command = guarded(crate::host::find_program("setpriv"));
    command.args(arguments(machine, accelerator, layout));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    tracing::debug!(?command, "start");
    if crate::host::find_program(QEMU).is_none() {
        return Err(process::start_error(&Command::new(QEMU), std::io::ErrorKind::NotFound.into()));
    }
    let child = command.spawn().map_err(|source| process::start_error(&command, source))?;
    let mut qemu = Qemu { child };
    let Some(stderr) = qemu.child.stderr.take() else {
        return Err(LabError::Qemu { reason: "its standard error is not there".into(), output: String::new() });
    };
    let mut sockets = Vec::new();
    for (stream, listener, path) in listeners {
        match accept(&mut qemu.child, &listener).map_err(LabError::io("accept a connection on", &path))? {
            Some(socket) => sockets.push((stream, socket)),
            None => return Err(ended_early(&mut qemu.child, stderr)),
        }
    }
    Ok(Started { qemu, sockets, stderr })
}

/// QEMU, tied to the life of this process where the tool for that is there (util-linux has it).
fn guarded(setpriv: Option<PathBuf>) -> Command {
    match setpriv {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", QEMU]);
            command
        }
        None => Command::new(QEMU),
    }
}

/// Accepts one connection; nothing when the process has ended before.
fn accept(child: &mut Child, listener: &UnixListener) -> std::io::Result<Option<UnixStream>> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false)?;
                return Ok(Some(socket));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if child.try_wait()?.is_some() {
                    return Ok(None);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error),
        }
    }
}

fn ended_early(child: &mut Child, mut stderr: ChildStderr) -> LabError {
    let mut output = String::new();
    let _ = std::io::Read::read_to_string(&mut stderr, &mut output);
    let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    LabError::Qemu { reason: format!("it ended at once ({status})"), output }
}

/// All arguments.
fn arguments(machine: &Machine, accelerator: Accelerator, layout: &Layout) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| args.extend(words.iter().map(OsString::from));
    add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    match accelerator {
        Accelerator::Kvm => add(&["-accel", "kvm", "-cpu", "host"]),
        Accelerator::Tcg if machine.in_turns => add(&["-accel", "tcg,thread=single", "-cpu", "max"]),
        Accelerator::Tcg => add(&["-accel", "tcg,thread=multi", "-cpu", "max"]),
    }
    add(&["-smp", &topology(machine), "-m", &format!("{}M", machine.memory_mib)]);
    for words in numa(machine) {
        add(&[words.0, &words.1]);
    }
    add(&["-append", &kernel_command_line(machine)]);
    add(&["-device", "virtio-serial-pci"]);
    for (stream, name, port) in SOCKETS {
        let path = layout.socket(name);
        add(&["-chardev", &format!("socket,id={name},path={}", escape(&path))]);
        if stream == Stream::Console {
            add(&["-serial", &format!("chardev:{name}")]);
        } else {
            add(&["-device", &format!("virtserialport,chardev={name},name={port}")]);
        }
    }
    for (name, disk) in [("root", &machine.root), ("disk", &layout.disk)] {
        if let Some(disk) = disk {
            add(&["-drive", &format!("if=none,id={name},format=raw,cache=unsafe,file={}", escape(disk))]);
            add(&["-device", &format!("virtio-blk-pci,drive={name}")]);
        }
    }
    if let Some(plugin) = &machine.plugin {
        let options = plugin.arguments.iter().map(|argument| format!(",{}", argument.replace(',', ",,")));
        args.push("-plugin".into());
        args.push((escape(&plugin.file) + &options.collect::<String>()).into());
    }
    if let Some(socket) = &machine.debugger {
        // QEMU waits for the debugger's word before the first instruction.
        args.extend(["-S".into(), "-gdb".into(), format!("unix:{},server=off", escape(socket)).into()]);
    }
    args.push("-kernel".into());
    args.push(machine.kernel.vmlinuz.clone().into());
    args.push("-initrd".into());
    args.push(layout.initramfs.clone().into());
    args.extend(machine.qemu_args.iter().cloned());
    args
}

/// In QEMU's option lists a comma is written twice.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// A panic reboots at once, which ends QEMU.
fn kernel_command_line(machine: &Machine) -> String {
    let mut words = vec!["console=ttyS0", "panic=-1", "rdinit=/init"];
    words.extend(machine.append.iter().map(String::as_str));
    words.join(" ")
}

/// CPUs of one socket share a cache, and the kernel warns when they are of different nodes.
fn topology(machine: &Machine) -> String {
    let (cpus, nodes) = (machine.cpus, machine.numa_nodes);
    let sockets = match nodes {
        1 => return cpus.to_string(),
        _ if cpus % nodes == 0 => nodes,
        _ => cpus,
    };
    format!("{cpus},sockets={sockets},cores={},threads=1", cpus / sockets)
}

/// Options that divide memory and CPUs among the nodes; nodes beyond the number of CPUs have memory only.
fn numa(machine: &Machine) -> Vec<(&'static str, String)> {
    let nodes = machine.numa_nodes;
    if nodes < 2 {
        return Vec::new();
    }
    let mut options = Vec::new();
    for node in 0..nodes {
        let memory = share(machine.memory_mib, nodes, node);
        let cpus = share(machine.cpus, nodes, node);
        options.push(("-object", format!("memory-backend-ram,id=node{node},size={memory}M")));
        let mut text = format!("node,nodeid={node},memdev=node{node}");
        if cpus > 0 {
            let first: u32 = (0..node).map(|before| share(machine.cpus, nodes, before)).sum();
            text.push_str(&format!(",cpus={first}-{}", first + cpus - 1));
        }
        options.push(("-numa", text));
    }
    options
}

/// The part of `total` that falls to one of `parts`; the first ones take the remainder.
fn share(total: u32, parts: u32, part: u32) -> u32 {
    total / parts + u32::from(part < total % parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::kernel::Kernel;
    use crate::machine::Plugin;
    use proptest::prelude::*;

    fn machine() -> (tempfile::TempDir, Machine) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let kernel = Kernel::example("1-test");
        (dir, Machine::new(&cache, kernel, "/bin/kerf"))
    }

    fn text(machine: &Machine, accelerator: Accelerator, disk: Option<&str>) -> String {
        let layout =
            Layout { directory: "/w".into(), initramfs: "/w/initramfs.cpio".into(), disk: disk.map(PathBuf::from) };
        let args = arguments(machine, accelerator, &layout);
        args.iter()
            .map(|a| a.to_string_lossy().replacen('-', "\n-", usize::from(a.to_string_lossy().starts_with('-'))))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn the_plain_machine() {
        let (_dir, machine) = machine();
        insta::assert_snapshot!(text(&machine, Accelerator::Tcg, None));
    }

    #[test]
    fn the_machine_with_everything() {
        let (_dir, mut machine) = machine();
        machine.cpus = 5;
        machine.memory_mib = 1025;
        machine.numa_nodes = 2;
        machine.append = vec!["nokaslr".into(), "preempt=full".into()];
        machine.qemu_args = vec!["-plugin".into(), "/p.so".into()];
        insta::assert_snapshot!(text(&machine, Accelerator::Kvm, Some("/w/a,b.raw")));
    }

    #[test]
    fn a_plugin_is_handed_over_with_its_arguments() {
        let (_dir, mut machine) = machine();
        machine.plugin = Some(Plugin { file: "/a,b.so".into(), arguments: vec!["out=/c,d".into(), "x=1".into()] });
        let args = arguments(&machine, Accelerator::Tcg, &Layout::new(Path::new("/w"), None).unwrap());
        let at = args.iter().position(|word| word == "-plugin").unwrap();
        assert_eq!(args[at + 1], "/a,,b.so,out=/c,,d,x=1");
    }

    #[test]
    fn a_debugger_is_called_before_the_start() {
        let (_dir, mut machine) = machine();
        machine.debugger = Some("/w/gdb".into());
        let args = arguments(&machine, Accelerator::Tcg, &Layout::new(Path::new("/w"), None).unwrap());
        let at = args.iter().position(|word| word == "-gdb").unwrap();
        assert_eq!((&args[at - 1], &args[at + 1]), (&"-S".into(), &"unix:/w/gdb,server=off".into()));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_when_dividing(total in 0u32..100_000, parts in 1u32..64) {
            let shares: Vec<u32> = (0..parts).map(|part| share(total, parts, part)).collect();
            prop_assert_eq!(shares.iter().sum::<u32>(), total);
            let (min, max) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert!(max - min <= 1);
        }
    }
}
