//! The facts about this machine that the doctor judges: read here, and nowhere else.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;
use kerf_lab::{Cache, Kernel};
use kerf_live::{Live, LiveError, module};

use crate::running;

/// Whether the kernel module is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// It answers.
    Ready,
    /// It is not loaded, and must be built first.
    Missing,
    /// It is not loaded, but this file is there.
    Built(PathBuf),
    /// It is loaded, but only root may ask it.
    Hidden,
    /// It is there but cannot be used; the text says why.
    Unusable(String),
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What `uname -r` prints.
    pub release: String,
    /// The running kernel's build id.
    pub build_id: Option<String>,
    /// Its configuration, as text.
    pub config: Option<String>,
    /// The line of `/proc/version`.
    pub version: String,
    /// `/sys/kernel/security/lockdown`, as it reads.
    pub lockdown: Option<String>,
    /// Secure Boot's state, where there is EFI.
    pub secure_boot: Option<bool>,
    /// Whether the kernel shows its types.
    pub btf: bool,
    /// Headers of the running kernel, if they are installed.
    pub headers: Option<PathBuf>,
    /// The first line that `gcc --version` prints for the compiler that modules would be built with.
    pub compiler: Option<String>,
    /// Programs that were found.
    pub programs: Vec<&'static str>,
    /// The kernel module.
    pub module: Module,
    /// A prepared source of the running version.
    pub source: Option<PathBuf>,
    /// Whether root asks.
    pub root: bool,
}

/// Programs that something of Kerf calls.
pub const PROGRAMS: [&str; 5] = ["clang", "make", "z3", "qemu-system-x86_64", "busybox"];

impl Machine {
    /// Looks at the machine that this program runs on.
    pub fn here() -> Machine {
        let release = running::release();
        let config = config(&release);
        let compiler = config.as_deref().and_then(compiler_version);
        let source = source(&release);
        Machine {
            build_id: running::build_id().ok(),
            version: read("/proc/version").unwrap_or_default(),
            lockdown: read("/sys/kernel/security/lockdown"),
            secure_boot: secure_boot(),
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            headers: Some(running::headers()).filter(|headers| headers.join("Makefile").is_file()),
            compiler,
            programs: PROGRAMS.into_iter().filter(|name| on_path(name)).collect(),
            module: loaded_module(),
            source,
            root: rustix::process::geteuid().is_root(),
            config,
            release,
        }
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// `/boot/config-RELEASE`, else `/proc/config.gz`.
fn config(release: &str) -> Option<String> {
    if let Ok(text) = fs::read_to_string(format!("/boot/config-{release}")) {
        return Some(text);
    }
    let mut text = String::new();
    GzDecoder::new(File::open("/proc/config.gz").ok()?).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The version line of the compiler with the major version that built the kernel, else of `gcc`.
fn compiler_version(config: &str) -> Option<String> {
    let text = super::report::option(config, "CONFIG_CC_VERSION_TEXT")?;
    let name = text.trim_matches('"').split_whitespace().next()?.to_owned();
    [name.as_str(), "gcc"].into_iter().find_map(first_line)
}

fn first_line(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The EFI variable's last byte is the state.
fn secure_boot() -> Option<bool> {
    let variable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    fs::read(variable).ok()?.last().map(|state| *state == 1)
}

fn loaded_module() -> Module {
    match Live::open() {
        Ok(_) => Module::Ready,
        Err(LiveError::NoModule) if module::is_loaded() => {
            Module::Unusable("it is loaded, but /dev/kerf is not there".into())
        }
        Err(LiveError::NoModule) => super::super::module::ready().map_or(Module::Missing, Module::Built),
        Err(LiveError::NotPermitted) => Module::Hidden,
        Err(error) => Module::Unusable(error.to_string()),
    }
}

/// A prepared source tree of this release: the lab's, or an installed one of the same version.
fn source(release: &str) -> Option<PathBuf> {
    let cached = Cache::open_default().ok().and_then(|cache| Kernel::cached(&cache, release).ok()?.source);
    let version = release.split(['-', '+']).next().unwrap_or(release);
    let mut trees: Vec<PathBuf> =
        fs::read_dir("/usr/src").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    trees.sort();
    cached.or_else(|| {
        trees.into_iter().find(|tree| {
            let utsrelease = tree.join("include/generated/utsrelease.h");
            tree.join("Kbuild").is_file()
                && tree.join("kernel/softirq.c").is_file()
                && fs::read_to_string(utsrelease).is_ok_and(|text| text.contains(version))
        })
    })
}
