//! The doctor's judgement: a function from facts to findings.

use serde::Serialize;

use super::machine::{Machine, Module, PROGRAMS};
use crate::print::{Paint, paint};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What needs it: `set`, `build`, `policy` or `lab`.
    pub needed_for: &'static str,
    /// The command or step that mends it; empty if nothing is to be mended.
    pub remedy: String,
}

/// All findings.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What `uname -r` prints.
    pub release: String,
    /// The running kernel's build id.
    pub build_id: Option<String>,
    /// Whether `kerf const set` is possible.
    pub can_set: bool,
    /// One for each thing looked at.
    pub findings: Vec<Finding>,
}

/// Options of the kernel, what needs them, and why.
const OPTIONS: [(&str, &str, &str); 9] = [
    ("CONFIG_MODULES", "set", "the kernel module could not be loaded"),
    ("CONFIG_KPROBES", "set", "the module looks up functions through it"),
    ("CONFIG_KALLSYMS_ALL", "set", "names of functions could not be resolved"),
    ("CONFIG_UNWINDER_ORC", "set", "stacks could not be checked before text changes"),
    ("CONFIG_STACK_VALIDATION", "set", "stacks could not be checked before text changes"),
    ("CONFIG_DEBUG_INFO_BTF", "set", "the module finds members of structures by it"),
    ("CONFIG_LIVEPATCH", "policy", "locks could not be replaced"),
    ("CONFIG_BPF_SYSCALL", "policy", "policies could not be loaded"),
    ("CONFIG_BPF_JIT", "policy", "policies would be interpreted"),
];

/// An option's value in a configuration.
pub fn option<'a>(config: &'a str, name: &str) -> Option<&'a str> {
    config.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

fn finding(name: &str, ok: bool, needed_for: &'static str, found: impl Into<String>, remedy: &str) -> Finding {
    let remedy = if ok { String::new() } else { remedy.to_owned() };
    Finding { name: name.into(), ok, found: found.into(), needed_for, remedy }
}

/// Judges a machine.
pub fn examine(machine: &Machine) -> Report {
    let mut findings = vec![root(machine), build_id(machine)];
    findings.extend(options(machine));
    findings.push(btf(machine));
    findings.extend(guards(machine));
    findings.extend([headers(machine), compiler(machine), module(machine), source(machine)]);
    findings.extend(PROGRAMS.iter().map(|name| program(machine, name)));
    let can_set = findings.iter().all(|f| f.ok || f.needed_for != "set");
    Report { release: machine.release.clone(), build_id: machine.build_id.clone(), can_set, findings }
}

fn root(machine: &Machine) -> Finding {
    let found = if machine.root { "yes" } else { "no: values can be built and shown, not set" };
    finding("root", machine.root, "set", found, "sudo kerf doctor")
}

fn build_id(machine: &Machine) -> Finding {
    let found = machine.build_id.clone().unwrap_or_else(|| "none in /sys/kernel/notes".into());
    let remedy = "boot a kernel that was linked with --build-id, as distributions' kernels are";
    finding("build id", machine.build_id.is_some(), "set", found, remedy)
}

fn options(machine: &Machine) -> Vec<Finding> {
    let Some(config) = &machine.config else {
        // Without it the options show when the module is loaded.
        let remedy = format!("apt install linux-image-{}", machine.release);
        let found = format!("neither /boot/config-{} nor /proc/config.gz is there", machine.release);
        return vec![finding("kernel options", false, "build", found, &remedy)];
    };
    let judge = |(name, needed_for, why): &(&str, &'static str, &str)| {
        let on = option(config, name) == Some("y");
        // The option was renamed; either name does.
        let renamed = *name == "CONFIG_STACK_VALIDATION" && option(config, "CONFIG_OBJTOOL") == Some("y");
        let found = if on || renamed { "y".to_owned() } else { format!("not set: {why}") };
        finding(name, on || renamed, needed_for, found, &format!("boot a kernel with {name}=y, as Debian's are"))
    };
    OPTIONS.iter().map(judge).collect()
}

fn btf(machine: &Machine) -> Finding {
    let found = if machine.btf { "/sys/kernel/btf/vmlinux" } else { "/sys/kernel/btf/vmlinux is not there" };
    // A loaded module has them from the kernel itself.
    let needed_for = if matches!(machine.module, Module::Missing | Module::Built(_)) { "set" } else { "build" };
    let remedy = "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian's are";
    finding("types (BTF)", machine.btf, needed_for, found, remedy)
}

fn guards(machine: &Machine) -> Vec<Finding> {
    let mode = machine.lockdown.as_deref().unwrap_or("[none]");
    let active = mode.split(['[', ']']).nth(1).unwrap_or("none");
    let lockdown = finding(
        "lockdown",
        active == "none",
        "set",
        if active == "none" { "off" } else { active },
        "turn Secure Boot off in the firmware (or `mokutil --disable-validation`) and boot without lockdown=",
    );
    let secure = match machine.secure_boot {
        Some(true) => "on",
        Some(false) => "off",
        None => "off (no EFI variable says otherwise)",
    };
    let secure_ok = machine.secure_boot != Some(true);
    let remedy = "turn Secure Boot off in the firmware, or `mokutil --disable-validation`";
    vec![lockdown, finding("Secure Boot", secure_ok, "set", secure, remedy)]
}

fn headers(machine: &Machine) -> Finding {
    let found = match &machine.headers {
        Some(path) => path.display().to_string(),
        None => format!("/lib/modules/{}/build is not there", machine.release),
    };
    // A module that is loaded or built needs no headers any more.
    let needed_for = if machine.module == Module::Missing { "set" } else { "build" };
    let remedy = format!("apt install linux-headers-{}", machine.release);
    finding("kernel headers", machine.headers.is_some(), needed_for, found, &remedy)
}

fn compiler(machine: &Machine) -> Finding {
    let wanted =
        machine.config.as_deref().and_then(|c| option(c, "CONFIG_CC_VERSION_TEXT")).map(|t| t.trim_matches('"'));
    let wanted = wanted.map(str::to_owned).or_else(|| built_by(&machine.version)).unwrap_or_default();
    let package = wanted.split_whitespace().next().unwrap_or_default();
    // Debian calls the same compiler `gcc-12 (Debian …)` and `x86_64-linux-gnu-gcc-12 (Debian …)`.
    let version = |text: &str| text.split_once(' ').map(|(_, rest)| rest.trim().to_owned());
    let same = !wanted.is_empty() && machine.compiler.as_deref().and_then(version) == version(&wanted);
    let package = package.strip_prefix("x86_64-linux-gnu-").unwrap_or(package);
    let found = match &machine.compiler {
        Some(compiler) if same => compiler.clone(),
        Some(compiler) => format!("{compiler}; the kernel was built by {wanted}"),
        None => format!("none; the kernel was built by {wanted}"),
    };
    finding("the kernel's compiler", same, "build", found, &format!("apt install {package}"))
}

/// The compiler in the text of `/proc/version`: `… (gcc-12 (Debian …) 12.2.0, GNU ld …`.
fn built_by(version: &str) -> Option<String> {
    let start =
        version.find("(gcc").or_else(|| version.find("(x86_64-linux-gnu-gcc")).or_else(|| version.find("(clang"))?;
    let rest = version.get(start + 1..)?;
    Some(rest.split(',').next()?.to_owned())
}

fn module(machine: &Machine) -> Finding {
    let (ok, found) = match &machine.module {
        Module::Ready => (true, "loaded, of this build".to_owned()),
        Module::Hidden => (true, "loaded (only root may ask it)".to_owned()),
        Module::Built(file) => (true, format!("not loaded; `kerf module load` takes {}", file.display())),
        Module::Missing => (false, "not loaded".to_owned()),
        Module::Unusable(why) => (false, why.clone()),
    };
    let remedy = match machine.module {
        Module::Unusable(_) => "kerf module unload && kerf module load",
        _ => "kerf module load",
    };
    finding("kerf.ko", ok, "set", found, remedy)
}

fn source(machine: &Machine) -> Finding {
    let found = match &machine.source {
        Some(path) => path.display().to_string(),
        None => format!("no prepared source of {}", machine.release),
    };
    finding("kernel source", machine.source.is_some(), "build", found, "kerf lab fetch --source")
}

fn program(machine: &Machine, name: &str) -> Finding {
    let (needed_for, package) = match name {
        "qemu-system-x86_64" => ("lab", "qemu-system-x86"),
        "busybox" => ("lab", "busybox-static"),
        "clang" => ("policy", "clang"),
        "make" if machine.module == Module::Missing => ("set", "make"),
        other => ("build", other),
    };
    let ok = machine.programs.contains(&name);
    finding(name, ok, needed_for, if ok { "found" } else { "not on the PATH" }, &format!("apt install {package}"))
}

/// The report for people.
pub fn sentences(report: &Report) -> String {
    let mut out = format!("kernel {}\n", report.release);
    for finding in &report.findings {
        let word = if finding.ok { paint(Paint::Good, "ok     ") } else { paint(Paint::Bad, "missing") };
        out += &format!("{word}  {:<24} {}\n", finding.name, finding.found);
        if !finding.ok {
            out += &format!("         for {:<7} → {}\n", finding.needed_for, finding.remedy);
        }
    }
    out +=
        if report.can_set { "`kerf const set` is possible here" } else { "`kerf const set` is not possible here yet" };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "CONFIG_MODULES=y\nCONFIG_KPROBES=y\nCONFIG_KALLSYMS_ALL=y\nCONFIG_UNWINDER_ORC=y\n\
        CONFIG_OBJTOOL=y\nCONFIG_DEBUG_INFO_BTF=y\nCONFIG_LIVEPATCH=y\nCONFIG_BPF_SYSCALL=y\nCONFIG_BPF_JIT=y\n\
        CONFIG_CC_VERSION_TEXT=\"gcc-12 (Debian 12.2.0-14) 12.2.0\"\n";

    fn fit() -> Machine {
        Machine {
            release: "6.12.1+deb12-amd64".into(),
            build_id: Some("aa".into()),
            config: Some(CONFIG.into()),
            version: String::new(),
            lockdown: Some("[none] integrity confidentiality".into()),
            secure_boot: Some(false),
            btf: true,
            headers: Some("/lib/modules/x/build".into()),
            compiler: Some("gcc-12 (Debian 12.2.0-14) 12.2.0".into()),
            programs: PROGRAMS.to_vec(),
            module: Module::Ready,
            source: Some("/usr/src/linux".into()),
            root: true,
        }
    }

    fn missing(machine: &Machine) -> Vec<Finding> {
        examine(machine).findings.into_iter().filter(|f| !f.ok).collect()
    }

    #[test]
    fn a_fit_machine_lacks_nothing() {
        assert_eq!(missing(&fit()), []);
        assert!(examine(&fit()).can_set);
    }

    #[test]
    fn each_lack_is_found_with_its_remedy() {
        type Lack = (&'static str, fn(&mut Machine), &'static str);
        let lacks: [Lack; 11] = [
            ("root", |m| m.root = false, "sudo"),
            ("build id", |m| m.build_id = None, "--build-id"),
            (
                "CONFIG_KPROBES",
                |m| m.config = Some(CONFIG.replace("CONFIG_KPROBES=y", "# CONFIG_KPROBES is not set")),
                "CONFIG_KPROBES=y",
            ),
            (
                "CONFIG_STACK_VALIDATION",
                |m| m.config = Some(CONFIG.replace("CONFIG_OBJTOOL=y", "")),
                "CONFIG_STACK_VALIDATION=y",
            ),
            ("types (BTF)", |m| (m.btf, m.module) = (false, Module::Missing), "CONFIG_DEBUG_INFO_BTF=y"),
            ("lockdown", |m| m.lockdown = Some("none [integrity] confidentiality".into()), "Secure Boot"),
            ("Secure Boot", |m| m.secure_boot = Some(true), "mokutil"),
            ("kerf.ko", |m| m.module = Module::Missing, "kerf module load"),
            (
                "kerf.ko",
                |m| m.module = Module::Unusable("another build".into()),
                "kerf module unload && kerf module load",
            ),
            (
                "kernel headers",
                |m| (m.headers, m.module) = (None, Module::Missing),
                "apt install linux-headers-6.12.1+deb12-amd64",
            ),
            ("make", |m| (m.programs, m.module) = (vec!["z3"], Module::Missing), "apt install make"),
        ];
        for (name, lack, remedy) in lacks {
            let mut machine = fit();
            lack(&mut machine);
            let found = missing(&machine);
            assert!(found.iter().any(|f| f.name == name && f.remedy.contains(remedy)), "{name}: {found:?}");
            assert!(!examine(&machine).can_set, "{name}");
        }
    }

    #[test]
    fn what_only_building_needs_does_not_forbid_setting() {
        let mut machine = fit();
        (machine.source, machine.programs, machine.headers) = (None, Vec::new(), None);
        machine.btf = false;
        machine.compiler = Some("gcc-12 (Debian 12.2.0-15) 12.2.1".into());
        machine.config = Some(CONFIG.replace("CONFIG_LIVEPATCH=y\n", ""));
        let report = examine(&machine);
        assert!(report.can_set, "{}", sentences(&report));
        let found = missing(&machine);
        assert!(
            found.iter().any(|f| f.name == "the kernel's compiler" && f.remedy == "apt install gcc-12"),
            "{found:?}"
        );
    }

    #[test]
    fn the_compiler_is_known_without_a_configuration() {
        let version = "Linux version 6.12.1 (x@y) (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld 2.40) #1 SMP";
        assert_eq!(built_by(version).as_deref(), Some("gcc-12 (Debian 12.2.0-14) 12.2.0"));
        assert_eq!(built_by("nothing"), None);
        let mut machine = fit();
        (machine.config, machine.version) = (None, version.into());
        let found = missing(&machine);
        assert_eq!(found.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["kernel options"]);
    }
}
