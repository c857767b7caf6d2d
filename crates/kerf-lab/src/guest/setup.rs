//! Mounts, modules and the loopback device: what a command may expect of the guest.

use crate::protocol::ModuleLoad;
use rustix::mount::MountFlags;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where commands are searched for.
pub(super) const PATH: &str = "/bin:/sbin:/usr/bin:/usr/sbin";

/// Type, place, options, and whether a guest without it is of any use.
const MOUNTS: &[(&str, &str, &str, bool)] = &[
    ("proc", "/proc", "", true),
    ("sysfs", "/sys", "", true),
    ("devtmpfs", "/dev", "mode=0755", true),
    ("tmpfs", "/tmp", "mode=1777", true),
    ("tmpfs", "/run", "mode=0755", true),
    ("devpts", "/dev/pts", "", false),
    ("tmpfs", "/dev/shm", "mode=1777", false),
    ("debugfs", "/sys/kernel/debug", "", false),
    ("tracefs", "/sys/kernel/tracing", "", false),
    ("securityfs", "/sys/kernel/security", "", false),
    ("configfs", "/sys/kernel/config", "", false),
    ("bpf", "/sys/fs/bpf", "mode=0700", false),
    ("cgroup2", "/sys/fs/cgroup", "", false),
];

/// Mounts every file system that this kernel has.
pub(super) fn mount_all() -> io::Result<()> {
    for &(kind, place, options, needed) in MOUNTS {
        // Files that were brought along to /tmp or /run must stay visible; the root is a tmpfs anyway.
        if !(has_content(place) && kind == "tmpfs") {
            let result = mount(kind, place, options);
            if needed {
                result.map_err(|error| {
                    io::Error::new(error.kind(), format!("cannot mount {kind} on {place}: {error}"))
                })?;
            }
        }
    }
    for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        let _ = std::os::unix::fs::symlink(target, Path::new("/dev").join(link));
    }
    Ok(())
}

/// Mounts what a module may have brought.
pub(super) fn mount_late() {
    for &(kind, place, options, needed) in MOUNTS {
        if !needed && place.starts_with("/sys") && !has_content(place) {
            let _ = mount(kind, place, options);
        }
    }
}

/// Takes away what [`mount_all`] has mounted below /sys and /dev: a system that gets the machine has its own wishes there.
pub(super) fn unmount_late() {
    for &(_, place, _, needed) in MOUNTS {
        if !needed {
            let _ = rustix::mount::unmount(place, rustix::mount::UnmountFlags::empty());
        }
    }
}

fn mount(kind: &str, place: &str, options: &str) -> io::Result<()> {
    // Under /dev the directories come with the mount; under /sys the kernel makes them if it has the file system.
    if !Path::new(place).exists() {
        fs::create_dir_all(place)?;
    }
    let data = CString::new(options)?;
    Ok(rustix::mount::mount(kind, place, kind, MountFlags::empty(), data.as_c_str())?)
}

fn has_content(place: &str) -> bool {
    fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_some())
}

/// Loads one module; that it is there already is no error.
pub(super) fn load_module(module: &ModuleLoad) -> io::Result<()> {
    let explain = |error: io::Error| {
        let hint = match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::NOEXEC) => "; it is not a module for this kernel",
            Some(rustix::io::Errno::NOENT) => "; it uses a symbol that no loaded module or this kernel has",
            _ => "",
        };
        io::Error::new(error.kind(), format!("cannot load module {}: {error}{hint}", module.path))
    };
    let file = File::open(&module.path).map_err(explain)?;
    let parameters = CString::new(module.parameters.as_str())?;
    match rustix::system::finit_module(&file, &parameters, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(explain(error.into())),
    }
}

/// Commands expect 127.0.0.1 to answer. A guest without network is no failure.
pub(super) fn start_loopback() {
    let _ = Command::new("/bin/busybox")
        .args(["ip", "link", "set", "lo", "up"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}
