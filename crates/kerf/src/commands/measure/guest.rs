//! `kerf measure` inside the machine: marks, and the command between the marks of the whole run.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use anyhow::Context;
use kerf_profile::{Symbols, mark};

use super::Border;

/// The virtio-serial port that the names of functions leave by.
pub const PORT: &str = "kerf.symbols";

/// Begins or ends an interval.
pub fn mark(what: Border, name: &str) -> anyhow::Result<u8> {
    match what {
        Border::Begin => {
            mark::name(name);
            mark::begin();
        }
        Border::End => mark::end(),
    }
    Ok(0)
}

/// Runs the command, with all its output as it is, and ends as it ends.
pub fn run(symbols: bool, command: &[String]) -> anyhow::Result<u8> {
    let (name, arguments) = command.split_first().context("find the command")?;
    // Twice: modules come and go while the command runs.
    let mut port = if symbols { Some(kerf_lab::guest::port(PORT).context("open a port")?) } else { None };
    send_symbols(port.as_mut())?;
    mark::start();
    let status = Command::new(name).args(arguments).status();
    mark::stop();
    send_symbols(port.as_mut())?;
    match status {
        Ok(status) => Ok(super::exit_code(status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1))),
        Err(error) => {
            eprintln!("kerf measure: cannot run `{name}` in the guest: {error}");
            Ok(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
        }
    }
}

fn send_symbols(port: Option<&mut File>) -> anyhow::Result<()> {
    let Some(port) = port else { return Ok(()) };
    let mut from = BufReader::with_capacity(1 << 16, File::open("/proc/kallsyms").context("open /proc/kallsyms")?);
    let mut to = BufWriter::with_capacity(1 << 16, port);
    let mut line = String::new();
    while from.read_line(&mut line).context("read /proc/kallsyms")? > 0 {
        if Symbols::is_wanted(&line) {
            to.write_all(line.as_bytes()).context("send the names of functions")?;
        }
        line.clear();
    }
    to.flush().context("send the names of functions")
}
