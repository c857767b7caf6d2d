//! Words that the scenarios share.

use std::error::Error;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kerf_live::{Change, DetourInstruction, Entry, Live, LiveError, LoadedModule, Location, Target, Transaction};

use super::{Outcome, kcore};

/// Control file of kerf_test.ko.
pub const TEST: &str = "/sys/kernel/debug/kerf_test";
/// The tracing directory.
pub const TRACING: &str = "/sys/kernel/tracing";

/// Fails with a text unless the condition holds.
pub fn ensure(condition: bool, text: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(text().into()) }
}

/// Fails unless both are equal.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Outcome {
    ensure(found == expected, || format!("{what} is {found:?}, not {expected:?}"))
}

/// One of the numbers that kerf_test.ko shows.
pub fn shown(key: &str) -> Result<i64, Box<dyn Error>> {
    let text = fs::read_to_string(TEST)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    Ok(line.ok_or_else(|| format!("kerf_test shows no {key}"))?.parse()?)
}

/// Writes a word to a control file.
pub fn write(path: &str, text: &str) -> Outcome {
    fs::write(path, text).map_err(|error| format!("{path}: `{text}`: {error}").into())
}

/// An empty transaction for the running kernel.
pub fn transaction(live: &mut Live) -> Result<Transaction, Box<dyn Error>> {
    Ok(Transaction::new(live.status()?.build_id))
}

/// kerf_test.ko as a target.
pub fn test_module() -> Result<Target, Box<dyn Error>> {
    Ok(LoadedModule::find("kerf-test")?.target())
}

/// Address of a function of kerf_test.ko.
pub fn test_symbol(name: &str) -> Result<u64, Box<dyn Error>> {
    kcore::symbol(&format!("kerf_test_{name}"), Some("kerf_test"))
}

/// A location in kerf_test.ko, by its stock bytes in a function there.
pub fn test_location(function: &str, stock: &[u8], change: Change) -> Result<Location, Box<dyn Error>> {
    let address = kcore::find(test_symbol(function)?, 128, stock)?;
    let image_offset = address - kcore::module_base("kerf_test")?;
    Ok(Location { target: test_module()?, image_offset, expected: stock.to_vec(), change })
}

/// A new immediate.
pub fn immediate(field_offset: usize, bytes: &[u8]) -> Change {
    Change::Immediate { field_offset, bytes: bytes.to_vec() }
}

/// A detour of these instructions.
pub fn detour(instructions: &[&[u8]]) -> Change {
    let instructions = instructions.iter().map(|bytes| DetourInstruction { bytes: bytes.to_vec() });
    Change::Detour { instructions: instructions.collect() }
}

/// An entry without ranges.
pub fn entry(id: &str, value: i64, locations: Vec<Location>) -> Entry {
    Entry { id: id.into(), value, decider: None, locations, gates: Vec::new(), spans: Vec::new(), between: Vec::new() }
}

/// Sets one entry.
pub fn set(live: &mut Live, entry: Entry) -> Result<kerf_live::Outcome, Box<dyn Error>> {
    let mut transaction = transaction(live)?;
    transaction.entries.push(entry);
    Ok(live.set(&transaction)?)
}

/// The error that setting one entry gives; it is wrong if there is none.
pub fn refused(live: &mut Live, entry: Entry) -> Result<LiveError, Box<dyn Error>> {
    let mut transaction = transaction(live)?;
    let id = entry.id.clone();
    transaction.entries.push(entry);
    transaction.timeout = Duration::from_millis(100);
    match live.set(&transaction) {
        Ok(_) => Err(format!("{id} was set, but must be refused").into()),
        Err(error) => Ok(error),
    }
}

/// Fails unless the error's text holds these words.
pub fn says(error: &LiveError, words: &[&str]) -> Outcome {
    let text = error.to_string();
    println!("  {text}");
    words.iter().try_for_each(|word| ensure(text.contains(word), || format!("`{text}` does not say `{word}`")))
}

/// Waits until the condition holds, a minute at most: the host may be busy.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> Result<bool, Box<dyn Error>>) -> Outcome {
    let start = Instant::now();
    while !condition()? {
        ensure(start.elapsed() < Duration::from_secs(60), || format!("{what} did not happen in a minute"))?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Runs a program of the initramfs to its end.
pub fn run(program: &str, arguments: &[&str]) -> Outcome {
    let output = Command::new(program).args(arguments).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.success(), || format!("{program} {arguments:?}: {} {stderr}", output.status))
}

/// A background program, ended when dropped.
pub struct Load(Child);

impl Load {
    /// Starts it.
    pub fn start(program: &str, arguments: &[&str]) -> Result<Load, Box<dyn Error>> {
        Ok(Load(Command::new(program).args(arguments).stdout(Stdio::null()).spawn()?))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
