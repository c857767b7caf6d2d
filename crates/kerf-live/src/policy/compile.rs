//! From a policy's C source to an object: clang, with the header of policies and the kernel's types.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{HEADER, PolicyError};

/// A directory with what policies include: `kerf.bpf.h`, and `vmlinux.h` with the types of one kernel.
#[derive(Clone, Debug)]
pub struct Headers {
    directory: PathBuf,
}

fn file_error(action: &'static str, file: &Path) -> impl FnOnce(io::Error) -> PolicyError {
    let file = file.to_owned();
    move |source| PolicyError::File { action, file, source }
}

fn run(command: &mut Command, tool: &'static str, package: &'static str) -> Result<Output, PolicyError> {
    command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PolicyError::Tool { tool, package },
        _ => PolicyError::File { action: "run", file: tool.into(), source: error },
    })
}

impl Headers {
    /// Prepares a directory for the types in a file with BTF (`/sys/kernel/btf/vmlinux`, or an ELF file with a `.BTF` section). What is
    /// there already is used again, so the directory should be named after the kernel's build.
    ///
    /// # Errors
    /// If bpftool is missing or cannot read the types, or the directory cannot be written.
    pub fn prepare(directory: &Path, btf: &Path) -> Result<Headers, PolicyError> {
        fs::create_dir_all(directory).map_err(file_error("create", directory))?;
        let own = directory.join("kerf.bpf.h");
        fs::write(&own, HEADER).map_err(file_error("write", &own))?;
        let types = directory.join("vmlinux.h");
        if !types.is_file() {
            let text = types_header(btf)?;
            let part = directory.join("vmlinux.h.part");
            fs::write(&part, text).map_err(file_error("write", &part))?;
            fs::rename(&part, &types).map_err(file_error("write", &types))?;
        }
        Ok(Headers { directory: directory.to_owned() })
    }
}

/// The C declarations of all types in a file with BTF.
///
/// # Errors
/// If bpftool is missing or cannot read them.
pub fn types_header(btf: &Path) -> Result<Vec<u8>, PolicyError> {
    let mut bpftool = Command::new("bpftool");
    // Debian keeps it where only root looks.
    let path = std::env::var("PATH").unwrap_or_default();
    bpftool.env("PATH", format!("{path}:/usr/sbin:/sbin")).args(["btf", "dump", "file"]).arg(btf).args(["format", "c"]);
    let output = run(&mut bpftool, "bpftool", "bpftool")?;
    if !output.status.success() || output.stdout.is_empty() {
        let why = format!("bpftool reads no types from it: {}", String::from_utf8_lossy(&output.stderr).trim());
        return Err(PolicyError::Object { file: btf.to_owned(), why });
    }
    Ok(output.stdout)
}

/// Compiles a policy; gives what the compiler warned about, if anything.
///
/// # Errors
/// [`PolicyError::Compile`] with the compiler's output.
pub fn compile(source: &Path, headers: &Headers, object: &Path) -> Result<String, PolicyError> {
    fs::metadata(source).map_err(file_error("read", source))?;
    let clang = std::env::var_os("KERF_CLANG").unwrap_or_else(|| "clang".into());
    let mut command = Command::new(clang);
    command.args([
        "-target",
        "bpf",
        "-mcpu=v3",
        "-O2",
        "-g",
        "-Wall",
        "-Wno-unused-function",
        "-fno-caret-diagnostics",
    ]);
    command.arg("-D__TARGET_ARCH_x86").arg("-isystem").arg(&headers.directory);
    command.arg("-c").arg(source).arg("-o").arg(object);
    let output = run(&mut command, "clang", "clang")?;
    let text = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    if output.status.success() {
        return Ok(text);
    }
    let missing = text.contains("bpf/bpf_helpers.h' file not found");
    if missing {
        return Err(PolicyError::Tool { tool: "bpf/bpf_helpers.h", package: "libbpf-dev" });
    }
    Err(PolicyError::Compile { file: source.to_owned(), output: text })
}
