//! A machine under a debugger: QEMU's own stub stops the guest, steps it and reads its memory. Nothing in the guest's text
//! changes, since QEMU translates a breakpoint and does not write it.
//!
//! While the guest is stopped its clocks stand still, and while it is stepped it takes no interrupts.

mod packet;
mod registers;

pub use registers::Registers;

use crate::error::LabError;
use packet::{Came, Line};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an answer may take that QEMU gives at once; machines are slow when others use them too.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most that is read with one packet.
const MOST_BYTES: usize = 1024;

/// Where QEMU finds the debugger: the path is for [`crate::Machine::debugger`].
#[derive(Debug)]
pub struct Desk {
    listener: UnixListener,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Desk {
    /// A socket in a directory of its own.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open() -> Result<Desk, LabError> {
        let directory = tempfile::Builder::new().prefix("kerf-lab-").tempdir();
        let directory = directory.map_err(LabError::io("create a directory in", std::env::temp_dir()))?;
        let path = directory.path().join("gdb");
        let listener = UnixListener::bind(&path).map_err(LabError::io("listen on", &path))?;
        Ok(Desk { listener, path, _directory: directory })
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the machine, which then stands before its first instruction.
    ///
    /// # Errors
    /// When none comes within the time, and when it does not speak as QEMU does.
    pub fn wait(&self, patience: Duration) -> Result<Debugger, LabError> {
        let limit = Instant::now() + patience;
        self.listener.set_nonblocking(true).map_err(LabError::io("listen on", &self.path))?;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).map_err(LabError::io("listen on", &self.path))?;
                    return Debugger::new(stream);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < limit => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(source) => return Err(LabError::io("accept a connection on", &self.path)(source)),
            }
        }
    }
}

/// Why a guest runs no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// At a breakpoint, after a step, or because it was told to.
    Halted,
    /// Memory that is watched was read; the instruction that did is done.
    Watched,
    /// The machine is gone.
    Ended,
}

/// The debugger of a machine with one CPU.
pub struct Debugger {
    line: Line,
}

impl Debugger {
    fn new(stream: UnixStream) -> Result<Debugger, LabError> {
        let mut debugger = Debugger { line: Line::new(stream) };
        // One instruction a step, without interrupts (2) and timers (4).
        debugger.order("Qqemu.sstep=7")?;
        Ok(debugger)
    }

    /// All general registers.
    ///
    /// # Errors
    /// When the machine is gone or does not answer as it should.
    pub fn registers(&mut self) -> Result<Registers, LabError> {
        let answer = self.ask("g")?;
        let registers = from_hex(&answer).and_then(|bytes| Registers::parse(&bytes));
        registers.ok_or_else(|| broken(format!("it gave these registers: {answer}")))
    }

    /// Memory of the guest as it sees it now; `None` where nothing is mapped.
    ///
    /// # Errors
    /// When the machine is gone or does not answer as it should.
    pub fn read(&mut self, address: u64, length: usize) -> Result<Option<Vec<u8>>, LabError> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let (start, count) = (address.wrapping_add(bytes.len() as u64), MOST_BYTES.min(length - bytes.len()));
            let answer = self.ask(&format!("m{start:x},{count:x}"))?;
            if answer.starts_with('E') {
                return Ok(None);
            }
            match from_hex(&answer) {
                Some(part) if part.len() == count => bytes.extend(part),
                _ => return Err(broken(format!("it gave this memory at {start:#x}: {answer}"))),
            }
        }
        Ok(Some(bytes))
    }

    /// Makes the guest stop before the instruction at this address.
    ///
    /// # Errors
    /// When QEMU refuses, or is gone.
    pub fn set_breakpoint(&mut self, address: u64) -> Result<(), LabError> {
        self.order(&format!("Z1,{address:x},1"))
    }

    /// Takes back [`Debugger::set_breakpoint`].
    ///
    /// # Errors
    /// When QEMU refuses, or is gone.
    pub fn clear_breakpoint(&mut self, address: u64) -> Result<(), LabError> {
        self.order(&format!("z1,{address:x},1"))
    }

    /// Makes the guest stop when these bytes are read.
    ///
    /// # Errors
    /// When QEMU refuses, or is gone.
    pub fn set_watch(&mut self, address: u64, length: u64) -> Result<(), LabError> {
        self.order(&format!("Z3,{address:x},{length:x}"))
    }

    /// Takes back [`Debugger::set_watch`].
    ///
    /// # Errors
    /// When QEMU refuses, or is gone.
    pub fn clear_watch(&mut self, address: u64, length: u64) -> Result<(), LabError> {
        self.order(&format!("z3,{address:x},{length:x}"))
    }

    /// Runs one instruction. Where a fault keeps it from being run, the guest stands at the fault's handler.
    ///
    /// # Errors
    /// When QEMU does not answer as it should.
    pub fn step(&mut self) -> Result<Stop, LabError> {
        self.say("s")?;
        self.wait(PATIENCE)?.ok_or_else(|| broken("it does not come back from a step".into()))
    }

    /// Lets the guest run. It stands at no breakpoint: one that it does stand at would stop it again.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn resume(&mut self) -> Result<(), LabError> {
        self.say("c")
    }

    /// Waits until a running guest stops by itself; `None` when it does not within the time.
    ///
    /// # Errors
    /// When QEMU does not answer as it should.
    pub fn wait(&mut self, patience: Duration) -> Result<Option<Stop>, LabError> {
        match self.line.receive(patience) {
            Ok(Came::Packet(packet)) => match packet.bytes().next() {
                Some(b'T') if packet.contains("watch:") => Ok(Some(Stop::Watched)),
                Some(b'T' | b'S') => Ok(Some(Stop::Halted)),
                Some(b'W' | b'X') => Ok(Some(Stop::Ended)),
                _ => Err(broken(format!("it stopped with `{packet}`"))),
            },
            Ok(Came::End) => Ok(Some(Stop::Ended)),
            Ok(Came::Nothing) => Ok(None),
            Err(error) => Err(broken(error.to_string())),
        }
    }

    /// Stops a running guest where it is.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn interrupt(&mut self) -> Result<Stop, LabError> {
        self.line.send_interrupt().map_err(|error| broken(error.to_string()))?;
        self.wait(PATIENCE)?.ok_or_else(|| broken("it does not stop".into()))
    }

    /// Lets the guest run, and leaves it.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn detach(mut self) -> Result<(), LabError> {
        self.order("D")
    }

    fn say(&mut self, text: &str) -> Result<(), LabError> {
        self.line.send(text).map_err(|error| broken(error.to_string()))
    }

    fn ask(&mut self, text: &str) -> Result<String, LabError> {
        self.say(text)?;
        match self.line.receive(PATIENCE) {
            Ok(Came::Packet(packet)) => Ok(packet),
            Ok(Came::End) => Err(broken(format!("it is gone instead of answering `{text}`"))),
            Ok(Came::Nothing) => Err(broken(format!("it does not answer `{text}`"))),
            Err(error) => Err(broken(error.to_string())),
        }
    }

    fn order(&mut self, text: &str) -> Result<(), LabError> {
        match self.ask(text)?.as_str() {
            "OK" => Ok(()),
            other => Err(broken(format!("it answers `{other}` to `{text}`"))),
        }
    }
}

fn broken(reason: String) -> LabError {
    LabError::Debugger { reason }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_read() {
        assert_eq!(from_hex("00ff7a"), Some(vec![0, 255, 122]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("0g"), None);
    }

    #[test]
    fn nobody_comes() {
        let desk = Desk::open().unwrap();
        assert!(desk.path().exists());
        assert!(desk.wait(Duration::from_millis(20)).is_err());
    }
}
