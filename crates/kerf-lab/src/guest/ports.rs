//! The guest's ends of the virtio-serial ports.

use crate::protocol::{CONTROL_PORT, Message, STDERR_PORT, STDOUT_PORT};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the kernel lists the ports and their names.
const CLASS: &str = "/sys/class/virtio-ports";

/// Ports appear a moment after the device does.
const APPEAR: Duration = Duration::from_secs(10);

/// Three open ports.
pub(super) struct Ports {
    control: File,
    pub(super) stdout: File,
    pub(super) stderr: File,
}

impl Ports {
    /// Waits for the ports and opens them.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Ports { control: open(CONTROL_PORT)?, stdout: open(STDOUT_PORT)?, stderr: open(STDERR_PORT)? })
    }

    /// Sends one message to the host.
    pub(super) fn tell(&mut self, message: &Message) -> io::Result<()> {
        let mut line = serde_json::to_string(message)?;
        line.push('\n');
        self.control.write_all(line.as_bytes())
    }
}

/// Waits for a port and opens it.
pub(super) fn open(name: &str) -> io::Result<File> {
    let start = Instant::now();
    loop {
        if let Some(path) = find(Path::new(CLASS), name) {
            return OpenOptions::new().write(true).open(path);
        }
        if start.elapsed() > APPEAR {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no virtio port named {name}: does this kernel have virtio-pci and virtio-console built in?"),
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The device node of the port with this name.
fn find(class: &Path, name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(class).ok()?.flatten() {
        let label = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if label.trim_end() == name {
            return Some(Path::new("/dev").join(entry.file_name()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_by_its_name() {
        let class = tempfile::tempdir().unwrap();
        for (node, name) in [("vport0p1", "kerf.stdout\n"), ("vport0p2", "kerf.control\n")] {
            fs::create_dir(class.path().join(node)).unwrap();
            fs::write(class.path().join(node).join("name"), name).unwrap();
        }
        assert_eq!(find(class.path(), CONTROL_PORT), Some("/dev/vport0p2".into()));
        assert_eq!(find(class.path(), STDERR_PORT), None);
    }
}
