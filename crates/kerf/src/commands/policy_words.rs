//! `kerf policy`: the words, and what several of them share.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use kerf_const::ConstError;
use kerf_const::entry::Entry;
use kerf_image::Image;
use kerf_lab::Cache;
use kerf_live::policy::{self, Headers, Object, Tune};

use super::const_build::cached_kernels;
use super::{policy_check, policy_load, policy_new, policy_unload};
use crate::running;

/// The running kernel's types.
const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// What can be done with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Write the beginning of a policy for some constants.
    #[command(after_help = policy_new::EXAMPLES)]
    New(policy_new::NewArgs),
    /// Compile a policy and check it against the scope table.
    #[command(after_help = policy_check::EXAMPLES)]
    Check(policy_check::CheckArgs),
    /// Let a policy decide in the running kernel.
    #[command(after_help = policy_load::EXAMPLES)]
    Load(policy_load::LoadArgs),
    /// Take a policy out: its constants are stock again.
    #[command(after_help = policy_unload::EXAMPLES)]
    Unload(policy_unload::UnloadArgs),
}

impl PolicyCommand {
    /// Does it; the result is the exit code.
    pub fn run(self) -> anyhow::Result<u8> {
        match self {
            PolicyCommand::New(args) => args.run(),
            PolicyCommand::Check(args) => args.run(),
            PolicyCommand::Load(args) => args.run(),
            PolicyCommand::Unload(args) => args.run(),
        }
    }
}

/// Which kernel's types a policy is compiled with.
#[derive(Debug, Args)]
pub struct TypesArgs {
    /// The kernel image whose types the source sees [default: the running kernel, else the lab's].
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
}

/// A compiled policy, and the file that holds it as long as it is needed.
pub struct Compiled {
    pub object: Object,
    /// What the compiler warned about.
    pub warnings: String,
    _directory: Option<tempfile::TempDir>,
}

/// Whether a file is C source, by its name.
fn is_source(file: &Path) -> bool {
    file.extension().is_some_and(|e| e == "c")
}

/// The name of a policy: that of its file, without `.bpf.c` and the like.
pub fn name_of(file: &Path) -> String {
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.strip_suffix(".c").or_else(|| name.strip_suffix(".o")).unwrap_or(&name);
    name.strip_suffix(".bpf").unwrap_or(name).to_owned()
}

/// A policy from its source, compiled, or from an object. `keep` is where the object stays.
pub fn compiled(file: &Path, types: &TypesArgs, keep: Option<&Path>) -> anyhow::Result<Compiled> {
    if !is_source(file) {
        return Ok(Compiled { object: Object::read(file)?, warnings: String::new(), _directory: None });
    }
    let headers = types.headers()?;
    let directory = tempfile::tempdir().context("make a directory for the compiled policy")?;
    let target = keep.map_or_else(|| directory.path().join("policy.o"), Path::to_owned);
    let warnings = policy::compile(file, &headers, &target)?;
    Ok(Compiled { object: Object::read(&target)?, warnings, _directory: Some(directory) })
}

impl TypesArgs {
    /// The headers of the kernel, made once for each build.
    fn headers(&self) -> anyhow::Result<Headers> {
        let types = Cache::open_default()?.root().join("types");
        let release = running::release();
        let kernels = cached_kernels();
        let lab = || kernels.iter().rev().find(|k| k.release == release).or(kernels.last()).map(|k| k.vmlinuz.clone());
        let file = match &self.image {
            Some(file) => file.clone(),
            None if Path::new(TYPES).is_file() => {
                return Ok(Headers::prepare(&types.join(running::build_id()?), Path::new(TYPES))?);
            }
            None => lab().context("find a kernel's types: this one has none in /sys/kernel/btf; name an --image")?,
        };
        let image = Image::open(&file).map_err(ConstError::from)?;
        let build = image.build_id().map(ToString::to_string).with_context(|| no(&file, "build id"))?;
        let btf = tempfile::NamedTempFile::new().context("make a file for the kernel's types")?;
        std::fs::write(btf.path(), image.btf().with_context(|| no(&file, "types (BTF)"))?)
            .context("write the types")?;
        Ok(Headers::prepare(&types.join(build), btf.path())?)
    }
}

fn no(file: &Path, what: &str) -> String {
    format!("{} has no {what}", file.display())
}

/// The parameters that a program reads, from 0. One that hands its context on may read all of them.
pub fn parameters(tune: &Tune) -> BTreeSet<usize> {
    policy::parameters_read(&tune.code).unwrap_or_else(|| (0..6).collect())
}

/// A name for what decides on a constant, one that C takes.
pub fn program_name(entry: &Entry) -> String {
    let lower = entry.label().to_lowercase();
    let name: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("c_{name}") } else { name }
}

/// Functions and parameters that a policy of the constant can see, one line a place.
pub fn visible(entry: &Entry) -> Vec<String> {
    let mut lines = Vec::new();
    for span in &entry.spans {
        let place = |p: &kerf_const::entry::Parameter| p.place != kerf_const::entry::Place::Gone;
        let seen = span.parameters.iter().enumerate().filter(|(_, p)| place(p));
        let seen: Vec<String> =
            seen.map(|(n, p)| format!("PT_REGS_PARM{} = {} {}", n + 1, p.type_name, p.name)).collect();
        let seen = if seen.is_empty() { "no argument".to_string() } else { seen.join(", ") };
        lines.push(format!("{}+{:#x}: {seen}", span.function, span.start));
    }
    lines
}
