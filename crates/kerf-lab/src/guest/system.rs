//! A machine with a system of its own: the first process hands it over to that one's, and runs the command as a service there.

use super::{command, execute, manifest, ports::Ports, setup};
use crate::protocol::{Manifest, Message, SERVICE_DIRECTORY};
use rustix::mount::MountFlags;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where the root is mounted until it is the root.
const NEW_ROOT: &str = "/new-root";

/// File systems that the new system finds in place. It mounts all others itself.
const HANDED_OVER: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];

const UNIT: &str = "kerf-lab.service";

/// Wanted by the target that the boot is for, and started behind it: the command finds a system that is up.
const UNIT_TEXT: &str = "\
[Unit]
Description=The command that this machine of the lab was started for
DefaultDependencies=no
After=multi-user.target

[Service]
Type=simple
ExecStart=/run/kerf-lab/init
";

/// Whether this process was started by the unit that [`hand_over`] wrote.
pub(super) fn is_service() -> bool {
    std::env::current_exe().is_ok_and(|program| program.parent() == Some(Path::new(SERVICE_DIRECTORY)))
}

/// Mounts the root, leaves what the service needs in /run, and becomes the system's first process.
///
/// # Errors
/// Always: where it succeeds it does not come back.
pub(super) fn hand_over(manifest: &Manifest) -> io::Result<()> {
    let explain =
        |what: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("cannot {what}: {error}"));
    for module in &manifest.modules {
        setup::load_module(module)?;
    }
    fs::create_dir_all(NEW_ROOT)?;
    rustix::mount::mount("/dev/vda", NEW_ROOT, "ext4", MountFlags::empty(), None)
        .map_err(|error| explain("mount the root")(error.into()))?;
    bring(&manifest.files).map_err(explain("copy the files to the root"))?;
    leave_service(manifest).map_err(explain("write the service"))?;
    setup::unmount_late();
    for place in HANDED_OVER {
        rustix::mount::mount_move(place, format!("{NEW_ROOT}{place}"))
            .map_err(|error| explain("move the mounted file systems")(error.into()))?;
    }
    Err(explain("start the system's first process")(
        Command::new("/bin/busybox").args(["switch_root", "-c", "/dev/console", NEW_ROOT, "/sbin/init"]).exec(),
    ))
}

/// Copies what was brought along to its places on the root.
fn bring(files: &[String]) -> io::Result<()> {
    for file in files {
        let place = format!("{NEW_ROOT}{file}");
        if let Some(above) = Path::new(&place).parent() {
            fs::create_dir_all(above)?;
        }
        // A directory that is there already takes the content.
        let from = if Path::new(file).is_dir() { format!("{file}/.") } else { file.clone() };
        let copied = Command::new("/bin/busybox").args(["cp", "-a", &from, &place]).status()?;
        if !copied.success() {
            return Err(io::Error::other(format!("cp of {file} ended with {copied}")));
        }
    }
    Ok(())
}

fn leave_service(manifest: &Manifest) -> io::Result<()> {
    let directory = Path::new(SERVICE_DIRECTORY);
    fs::create_dir_all(directory)?;
    fs::copy("/init", directory.join("init"))?;
    fs::write(directory.join("manifest.json"), serde_json::to_vec(manifest)?)?;
    let units = Path::new("/run/systemd/system");
    let wants = units.join("multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    fs::write(units.join(UNIT), UNIT_TEXT)?;
    symlink(units.join(UNIT), wants.join(UNIT))
}

/// Runs the command, reports how it ended, and shuts the system down as a person would.
pub(super) fn serve() -> io::Result<()> {
    let mut ports = Ports::open()?;
    let manifest = manifest(&format!("{SERVICE_DIRECTORY}/manifest.json"));
    let message = match manifest.and_then(|manifest| command(&manifest)) {
        Ok((mut command, name)) => {
            ports.tell(&Message::Ready)?;
            execute(&mut command, &name, &mut ports)?
        }
        Err(error) => Message::Failed(error.to_string()),
    };
    ports.tell(&message)?;
    let shutdown = Command::new("systemctl").args(["--no-block", "poweroff"]).stdin(Stdio::null()).status()?;
    if shutdown.success() { Ok(()) } else { Err(io::Error::other(format!("systemctl poweroff ended with {shutdown}"))) }
}
