//! Puts a policy's programs into the kernel. They decide on nothing before a transaction names them.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use aya::programs::links::{FdLink, LinkError};
use aya::programs::{KProbe, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};

use super::object::{Attach, Object};
use super::pins::Pins;
use super::{Beside, PolicyError};

/// Programs in the kernel. Dropped, all of it goes but what a transaction has taken over.
pub struct Loaded {
    ebpf: Ebpf,
    /// Keeps the programs beside attached until the module does.
    #[expect(dead_code, reason = "held for its Drop")]
    links: Vec<FdLink>,
    files: Vec<RawFd>,
    pins: Pins,
}

impl Loaded {
    /// The open file of a program that decides.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn program(&self, name: &str) -> Result<RawFd, PolicyError> {
        let program = self.ebpf.program(name).ok_or_else(|| failed(name, "is not in the object"))?;
        let program: &KProbe = program.try_into().map_err(|error: ProgramError| failed(name, error))?;
        Ok(program.fd().map_err(|error| failed(name, error))?.as_fd().as_raw_fd())
    }

    /// The open files of the attached programs, for [`crate::Transaction::hold`].
    pub fn files(&self) -> &[RawFd] {
        &self.files
    }

    /// Pins the maps that ask for it below the policy's name: for when the transaction has succeeded.
    ///
    /// # Errors
    /// [`PolicyError::File`] if the directory cannot be made.
    pub fn keep_pins(&self, name: &str) -> Result<(), PolicyError> {
        self.pins.keep(name)
    }
}

fn failed(what: &str, why: impl ToString) -> PolicyError {
    PolicyError::Load { what: what.to_owned(), why: why.to_string() }
}

/// The last lines of the verifier's log, which say what it objected to; comments in it are the policy's own lines.
fn verdict(log: &str) -> String {
    const SHOWN: usize = 24;
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    // What the verifier says of itself comes behind.
    let figures = |line: &str| ["verification time ", "stack depth ", "processed "].iter().any(|w| line.starts_with(w));
    let wanted = lines.iter().position(|line| figures(line)).unwrap_or(lines.len());
    let start = wanted.saturating_sub(SHOWN);
    // The line of the source that the refused instruction stands in may lie before what is shown.
    let source = lines.get(..start).and_then(|before| before.iter().rev().find(|line| line.starts_with(';')));
    let own = lines.get(start..wanted).unwrap_or_default();
    let missing = source.filter(|_| !own.iter().any(|line| line.starts_with(';')));
    missing.into_iter().chain(own).copied().collect::<Vec<_>>().join("\n")
}

fn loading(program: &str, error: ProgramError) -> PolicyError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verdict(&verifier_log.to_string());
            let log = if log.is_empty() { io_error.to_string() } else { log };
            PolicyError::Verifier { program: program.to_owned(), log }
        }
        other => failed(program, chain(&other)),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Asks the kernel's verifier about the programs that decide, and attaches nothing.
///
/// # Errors
/// As [`load`].
pub fn verify(object: &Object) -> Result<(), PolicyError> {
    let pins = Pins::prepare();
    decide(object, &pins).map(drop)
}

/// Loads a policy's maps and programs, and attaches those beside. `name` is the policy's.
///
/// # Errors
/// [`PolicyError::Verifier`] with the verifier's words, or [`PolicyError::Load`].
pub fn load(object: &Object, name: &str) -> Result<Loaded, PolicyError> {
    let pins = Pins::prepare();
    let mut ebpf = decide(object, &pins)?;
    pins.check(name)?;
    let mut links = Vec::new();
    for program in &object.beside {
        links.push(attach(&mut ebpf, program).map_err(|error| error.of(&program.program))?);
    }
    let files = links.iter().map(file_of).collect::<Result<_, _>>()?;
    Ok(Loaded { ebpf, links, files, pins })
}

/// The maps, and the programs that decide.
fn decide(object: &Object, pins: &Pins) -> Result<Ebpf, PolicyError> {
    let mut loader = EbpfLoader::new();
    loader.allow_unsupported_maps().default_map_pin_directory(pins.directory());
    let wrong = |error| failed("the policy's maps and types", chain(&error) + &pins.hint());
    let mut ebpf = loader.load(&object.bytes).map_err(wrong)?;
    for tune in &object.tunes {
        let program = ebpf.program_mut(&tune.program).ok_or_else(|| failed(&tune.program, "is not in the object"))?;
        let program: &mut KProbe = program.try_into().map_err(|error| loading(&tune.program, error))?;
        program.load().map_err(|error| loading(&tune.program, error))?;
    }
    Ok(ebpf)
}

/// The library has an error for programs and one for links.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Types(#[from] aya::BtfError),
}

impl AttachError {
    fn of(self, program: &str) -> PolicyError {
        match self {
            AttachError::Program(error) => loading(program, error),
            other => failed(program, chain(&other)),
        }
    }
}

fn attach(ebpf: &mut Ebpf, beside: &Beside) -> Result<FdLink, AttachError> {
    use aya::programs::{FEntry, FExit, RawTracePoint, TracePoint};
    let program = ebpf.program_mut(&beside.program).ok_or(ProgramError::UnexpectedProgramType)?;
    let types = Btf::from_sys_fs;
    Ok(match &beside.attach {
        Attach::Kprobe(function, offset) => {
            let program: &mut KProbe = program.try_into()?;
            program.load()?;
            let link = program.attach(function, *offset)?;
            program.take_link(link)?.try_into()?
        }
        Attach::Kretprobe(function) => {
            let program: &mut KProbe = program.try_into()?;
            program.load()?;
            let link = program.attach(function, 0)?;
            program.take_link(link)?.try_into()?
        }
        Attach::Tracepoint(category, name) => {
            let program: &mut TracePoint = program.try_into()?;
            program.load()?;
            let link = program.attach(category, name)?;
            program.take_link(link)?.try_into()?
        }
        Attach::RawTracepoint(name) => {
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
            let link = program.attach(name)?;
            program.take_link(link)?.into()
        }
        Attach::Fentry(function) => {
            let program: &mut FEntry = program.try_into()?;
            program.load(function, &types()?)?;
            let link = program.attach()?;
            program.take_link(link)?.into()
        }
        Attach::Fexit(function) => {
            let program: &mut FExit = program.try_into()?;
            program.load(function, &types()?)?;
            let link = program.attach()?;
            program.take_link(link)?.into()
        }
    })
}

/// The open file of a link. The library keeps it to itself; the kernel tells which of this process's files it is.
fn file_of(link: &FdLink) -> Result<RawFd, PolicyError> {
    let id = link.info().map_err(|error| failed("a link", chain(&error)))?.id();
    let wanted = format!("link_id:\t{id}");
    let directory = fs::read_dir("/proc/self/fdinfo").map_err(|error| failed("/proc/self/fdinfo", error))?;
    let files = directory.flatten().filter_map(|file| file.file_name().to_str()?.parse::<RawFd>().ok());
    let mut matching = files.filter(|fd| {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        text.lines().any(|line| line == wanted)
    });
    matching.next().ok_or_else(|| failed("a link", "the kernel does not say which open file it is"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_keeps_the_source_line() {
        let mut log = String::from("; if (!p) @ a.bpf.c:7\n");
        log += &(0..40).map(|n| format!("{n}: (bf) r1 = r2\n")).collect::<String>();
        log += "R1 invalid mem access 'scalar'\nverification time 9 usec\nstack depth 0\nprocessed 41 insns (limit 1000000)\n";
        let shown = verdict(&log);
        assert!(shown.starts_with("; if (!p) @ a.bpf.c:7\n"), "{shown}");
        assert!(shown.ends_with("R1 invalid mem access 'scalar'"), "{shown}");
        assert!(shown.lines().count() <= 25, "{shown}");
    }
}
