//! The guest's first process: sets the system up, runs one command, reports how it ended, powers off.
//!
//! Nothing here returns to a shell or a login: whatever happens, the machine goes down, and the host learns why. Where the machine has a
//! root of its own, `system.rs` hands it over and comes back as a service there.

mod ports;
mod setup;
mod system;

use crate::protocol::{MANIFEST_PATH, Manifest, Message};
use ports::Ports;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use rustix::system::RebootCommand;
use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long the rest of the command's output may take after every process is gone.
const DRAIN: Duration = Duration::from_secs(20);

/// Opens the virtio-serial port of this name, which the machine has been given.
///
/// # Errors
/// When there is none.
pub fn port(name: &str) -> io::Result<File> {
    ports::open(name)
}

/// Whether this process is the first one of a guest that the lab has started.
///
/// Being process 1 is not enough: the first process of a container is that too.
pub fn is_guest_init() -> bool {
    let first = rustix::process::getpid() == Pid::INIT && std::path::Path::new(MANIFEST_PATH).exists();
    first || system::is_service()
}

/// Runs the guest and powers it off. Call it only when [`is_guest_init`] says so.
///
/// # Errors
/// When called elsewhere, or when the machine cannot be powered off.
pub fn run() -> io::Result<()> {
    if !is_guest_init() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "this is the first process of a lab machine and runs nowhere else",
        ));
    }
    if system::is_service() {
        return system::serve();
    }
    if let Err(error) = serve() {
        eprintln!("kerf lab-init: {error}");
    }
    rustix::system::reboot(RebootCommand::PowerOff)?;
    Ok(())
}

/// Everything between the kernel's start of this process and the power switch.
fn serve() -> io::Result<()> {
    setup::mount_all()?;
    let manifest = manifest(MANIFEST_PATH)?;
    if manifest.root {
        // Comes back only with an error, which the host must hear of.
        let error = system::hand_over(&manifest).err().map_or_else(String::new, |error| error.to_string());
        return Ports::open()?.tell(&Message::Failed(error));
    }
    let mut ports = Ports::open()?;
    let message = match prepare(&manifest).and_then(|()| command(&manifest)) {
        Ok((mut command, name)) => {
            ports.tell(&Message::Ready)?;
            execute(&mut command, &name, &mut ports)?
        }
        Err(error) => Message::Failed(error.to_string()),
    };
    ports.tell(&message)
}

fn manifest(path: &str) -> io::Result<Manifest> {
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

/// Loads the modules, and mounts what they bring.
fn prepare(manifest: &Manifest) -> io::Result<()> {
    setup::start_loopback();
    for module in &manifest.modules {
        setup::load_module(module)?;
    }
    setup::mount_late();
    Ok(())
}

/// The command with its surroundings.
fn command(manifest: &Manifest) -> io::Result<(Command, String)> {
    let (name, arguments) = manifest
        .command
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the manifest names no command"))?;
    let mut command = Command::new(name);
    command
        .args(arguments)
        .current_dir("/root")
        .env_clear()
        .env("PATH", setup::PATH)
        .env("HOME", "/root")
        .env("TERM", "dumb")
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok((command, name.clone()))
}

/// Runs the command, with its output on the two ports, until it and all that it left behind are gone.
fn execute(command: &mut Command, name: &str, ports: &mut Ports) -> io::Result<Message> {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
            writeln!(ports.stderr, "kerf lab: cannot run `{name}` in the guest: {error}")?;
            return Ok(Message::Exited(code));
        }
    };
    let (done, pumps) = mpsc::channel();
    pump(child.stdout.take(), ports.stdout.try_clone()?, done.clone());
    pump(child.stderr.take(), ports.stderr.try_clone()?, done);
    let message = wait_for(&child)?;
    if rustix::process::getpid() == Pid::INIT {
        // What the command left running would hold its output open for ever.
        let _ = rustix::process::kill_process_group(Pid::INIT, Signal::KILL);
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::empty()) {}
    }
    for _ in 0..2 {
        if pumps.recv_timeout(DRAIN).is_err() {
            break;
        }
    }
    Ok(message)
}

/// Waits for the command, and reaps whatever else ends meanwhile, as the first process must.
fn wait_for(child: &Child) -> io::Result<Message> {
    loop {
        let Some((pid, status)) = rustix::process::wait(WaitOptions::empty())? else { continue };
        if pid.as_raw_nonzero().get() as u32 == child.id()
            && let Some(message) = ending(status)
        {
            return Ok(message);
        }
    }
}

fn ending(status: WaitStatus) -> Option<Message> {
    let exited = status.exit_status().map(Message::Exited);
    exited.or_else(|| status.terminating_signal().map(Message::Killed))
}

/// Copies `from` to `to` in a thread of its own and reports its end.
fn pump(from: Option<impl Read + Send + 'static>, mut to: File, done: mpsc::Sender<()>) {
    std::thread::spawn(move || {
        if let Some(mut from) = from {
            let mut buffer = vec![0; 32 << 10];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        }
        let _ = done.send(());
    });
}
