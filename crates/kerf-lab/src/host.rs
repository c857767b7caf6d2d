//! What the lab needs from the host, and how to get it on Debian.

use crate::error::LabError;
use crate::process;
use crate::progress::Progress;
use std::path::Path;
use std::process::Command;

/// A purpose for which packages are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Fetching and extracting packages, running machines.
    Machines,
    /// Building kernel modules.
    Modules,
    /// Preparing the kernel's source and compiling units of it.
    Source,
    /// Proving updates with an SMT solver.
    Proofs,
    /// Compiling BPF programs.
    Policies,
    /// Workloads of the benches over networks with delays.
    Networks,
    /// A server for workloads of the benches.
    WebServers,
    /// A store of keys and values, and what asks it, for a bench.
    Stores,
    /// Making file systems with an operating system for machines.
    Roots,
}

/// Programs and headers, by what must exist, and the Debian package that has it.
const MACHINES: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("tar", "tar"),
    ("dpkg-deb", "dpkg"),
    ("apt-get", "apt"),
];
const MODULES: &[(&str, &str)] = &[
    ("gcc-12", "gcc-12"),
    ("make", "make"),
    ("ld", "binutils"),
    ("pahole", "dwarves"),
    ("/usr/include/stdio.h", "libc6-dev"),
    ("xz", "xz-utils"),
];
const SOURCE: &[(&str, &str)] = &[
    ("gcc", "gcc"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
    ("/usr/include/libelf.h", "libelf-dev"),
    ("/usr/include/openssl/ssl.h", "libssl-dev"),
];
const PROOFS: &[(&str, &str)] = &[("z3", "z3")];
const POLICIES: &[(&str, &str)] = &[
    ("bpftool", "bpftool"),
    ("clang", "clang"),
    ("/usr/include/bpf/bpf_helpers.h", "libbpf-dev"),
    ("/usr/include/linux/bpf.h", "linux-libc-dev"),
];
const NETWORKS: &[(&str, &str)] = &[("tc", "iproute2")];
const ROOTS: &[(&str, &str)] =
    &[("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs"), ("unshare", "util-linux"), ("newuidmap", "uidmap")];
const WEB_SERVERS: &[(&str, &str)] = &[("nginx", "nginx")];
/// The server is `redis-check-rdb` by another name; the package that has only the name would start it.
const STORES: &[(&str, &str)] = &[("redis-benchmark", "redis-tools"), ("redis-check-rdb", "redis-tools")];

impl Need {
    fn items(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Need::Machines => MACHINES.to_vec(),
            Need::Modules => MODULES.to_vec(),
            Need::Source => [MODULES, SOURCE].concat(),
            Need::Proofs => PROOFS.to_vec(),
            Need::Policies => POLICIES.to_vec(),
            Need::Networks => NETWORKS.to_vec(),
            Need::WebServers => WEB_SERVERS.to_vec(),
            Need::Stores => STORES.to_vec(),
            Need::Roots => ROOTS.to_vec(),
        }
    }
}

/// Debian packages that are missing for these purposes, each once.
pub fn missing(needs: &[Need]) -> Vec<&'static str> {
    let items: Vec<_> = needs.iter().flat_map(|need| need.items()).collect();
    missing_items(&items, exists)
}

fn missing_items(items: &[(&str, &'static str)], exists: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<&str> = items.iter().filter(|(what, _)| !exists(what)).map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Makes sure that everything for these purposes is there: installs packages as root, else says what to type.
///
/// # Errors
/// [`LabError::HostPackages`] when something is missing and this process is not root; the package manager's failure.
pub fn install(needs: &[Need], progress: &mut dyn Progress) -> Result<(), LabError> {
    let packages = missing(needs);
    if packages.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = packages.iter().map(|&name| name.to_owned()).collect();
    if !rustix::process::geteuid().is_root() {
        let remedy = install_command(packages.join(" "));
        return Err(LabError::HostPackages { missing: names, remedy });
    }
    progress.step(&format!("installing {}", packages.join(" ")));
    let mut install = Command::new("apt-get");
    // Only the programs are wanted: no service of theirs is to start.
    install.args(["install", "-y", "--no-install-recommends"]).args(&packages);
    install.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    if process::run(&mut install).is_err() {
        // Stale or missing lists are the usual reason.
        process::run(Command::new("apt-get").arg("update"))?;
        process::run(&mut install)?;
    }
    Ok(())
}

/// The command that installs packages, as a person types it.
pub(crate) fn install_command(packages: impl AsRef<str>) -> String {
    format!("sudo apt-get install -y --no-install-recommends {}", packages.as_ref())
}

/// The package that has this program.
pub(crate) fn package_of(program: &str) -> Option<&'static str> {
    let name = Path::new(program).file_name()?.to_str()?;
    let all = [MACHINES, MODULES, SOURCE, PROOFS, POLICIES, NETWORKS, WEB_SERVERS, STORES, ROOTS].concat();
    all.into_iter().find(|(what, _)| *what == name).map(|(_, package)| package)
}

/// Finds a program as the shell does, and where only root's shell looks.
pub(crate) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.map(|directory| directory.join(name)).find(|file| file.is_file())
}

fn exists(what: &str) -> bool {
    if !what.starts_with('/') {
        return find_program(what).is_some();
    }
    // Debian keeps some headers in a directory named for the architecture.
    let multiarch = what.replacen("/usr/include/", "/usr/include/x86_64-linux-gnu/", 1);
    Path::new(what).exists() || Path::new(&multiarch).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_missing_where_everything_exists() {
        assert!(missing_items(&Need::Source.items(), |_| true).is_empty());
    }

    #[test]
    fn a_package_is_named_once() {
        let names = missing_items(&[("b", "two"), ("a", "one"), ("c", "two"), ("d", "three")], |what| what == "d");
        assert_eq!(names, ["one", "two"]);
    }

    #[test]
    fn programs_know_their_packages() {
        assert_eq!(package_of("/usr/bin/pahole"), Some("dwarves"));
        assert_eq!(package_of("no-such-program"), None);
    }

    #[test]
    fn a_program_is_found() {
        assert!(exists("sh"));
        assert!(!exists("no-such-program"));
    }
}
