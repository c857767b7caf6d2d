//! What the host and the guest's first process say to each other.
//!
//! The host leaves a [`Manifest`] in the initramfs; the guest answers with [`Message`]s, one JSON object a line, on
//! the control port. The command's output travels on two ports of its own.

use serde::{Deserialize, Serialize};

/// Where the manifest lies in the initramfs. Its presence is what makes process 1 a guest's init.
pub const MANIFEST_PATH: &str = "/etc/kerf-lab.json";
/// Where the guest's first process leaves itself, the manifest and its unit for a system that it hands the machine to.
pub const SERVICE_DIRECTORY: &str = "/run/kerf-lab";

/// Name of the virtio-serial port that carries [`Message`]s.
pub const CONTROL_PORT: &str = "kerf.control";
/// Name of the virtio-serial port that carries the command's standard output.
pub const STDOUT_PORT: &str = "kerf.stdout";
/// Name of the virtio-serial port that carries the command's standard error.
pub const STDERR_PORT: &str = "kerf.stderr";

/// What the guest has to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Modules in the order in which they must be loaded.
    pub modules: Vec<ModuleLoad>,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The command runs as a service of the system on the first disk, which the machine is handed to.
    #[serde(default)]
    pub root: bool,
    /// Paths of files that were brought along, for such a system to have them too.
    #[serde(default)]
    pub files: Vec<String>,
}

/// One module for the guest to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleLoad {
    /// Path of the uncompressed module in the guest.
    pub path: String,
    /// Module parameters, `name=value` separated by spaces.
    pub parameters: String,
}

/// What the guest reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The system is set up and the modules are loaded; the command starts next.
    Ready,
    /// The command ended by itself with this exit code.
    Exited(i32),
    /// A signal ended the command.
    Killed(i32),
    /// The guest could not be set up; the command did not run.
    Failed(String),
}
