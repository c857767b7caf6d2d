//! Watches a running machine: passes output on, and ends the run at the first sign of trouble.

use crate::accel::Accelerator;
use crate::console::Console;
use crate::error::LabError;
use crate::machine::{Machine, Outcome, Sink};
use crate::protocol::Message;
use crate::qemu::{self, Layout, Qemu, Started, Stream};
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Console lines that are remembered, and those that an error shows.
const KEPT_LINES: usize = 5000;
const SHOWN_LINES: usize = 40;

/// After a fault the run goes on until the console has been silent this long, for the trace that follows…
const TRACE_PAUSE: Duration = Duration::from_millis(400);
/// …but no longer than this.
const TRACE_LIMIT: Duration = Duration::from_secs(5);

/// What QEMU prints when KVM cannot go on; the guest then hangs for ever.
const KVM_GAVE_UP: &str = "KVM internal error";

/// Something came from the machine; an empty block is the end of the stream.
type Event = (Stream, Vec<u8>);

struct Watch<'a> {
    machine: &'a Machine,
    layout: &'a Layout,
    sink: &'a mut dyn Sink,
    console: Console,
    control: Vec<u8>,
    complaints: String,
    ready: bool,
    result: Option<Message>,
    open: usize,
    start: Instant,
    last_line: Instant,
    fault_at: Option<Instant>,
}

/// Why a run failed, and whether that was the kernel's fault before the guest was up.
pub(crate) struct Failure {
    pub early: bool,
    pub error: LabError,
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        Failure { early: false, error }
    }
}

/// Runs the machine to its end.
pub(crate) fn run(
    machine: &Machine,
    accelerator: Accelerator,
    layout: &Layout,
    sink: &mut dyn Sink,
) -> Result<Outcome, Failure> {
    let start = Instant::now();
    let Started { mut qemu, sockets, stderr } = qemu::start(machine, accelerator, layout)?;
    let (sender, receiver) = sync_channel(64);
    let mut watch = Watch {
        machine,
        layout,
        sink,
        console: Console::new(KEPT_LINES, machine.allow_warnings),
        control: Vec::new(),
        complaints: String::new(),
        ready: false,
        result: None,
        open: sockets.len() + 1,
        start,
        last_line: start,
        fault_at: None,
    };
    for (stream, socket) in sockets {
        read_in_thread(stream, socket, sender.clone());
    }
    read_in_thread(Stream::Qemu, stderr, sender);
    let verdict = watch.until_the_end(&receiver);
    let exit_code = verdict.and_then(|()| watch.conclude(&mut qemu));
    // Killing QEMU ends the readers, whose last sends fail once the receiver is gone.
    drop(qemu);
    let faulted = watch.fault_at.is_some() && !watch.ready;
    let exit_code = exit_code.map_err(|error| Failure { early: faulted, error });
    Ok(Outcome {
        stdout: Vec::new(),
        stderr: Vec::new(),
        exit_code: exit_code?,
        console: watch.console.text(),
        accelerator,
        release: machine.kernel.release.clone(),
        duration: start.elapsed(),
    })
}

fn read_in_thread(stream: Stream, mut source: impl Read + Send + 'static, sender: SyncSender<Event>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            let block = buffer.get(..count).unwrap_or_default().to_vec();
            if sender.send((stream, block)).is_err() || count == 0 {
                break;
            }
        }
    });
}

impl Watch<'_> {
    /// Handles events until all streams have ended, which is when QEMU has.
    fn until_the_end(&mut self, events: &Receiver<Event>) -> Result<(), LabError> {
        while self.open > 0 {
            match events.recv_timeout(self.patience()) {
                Ok((stream, block)) => self.take(stream, &block)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.check_time()?;
        }
        Ok(())
    }

    /// How long to wait for the next event: until the nearest limit.
    fn patience(&self) -> Duration {
        let now = Instant::now();
        let mut limit = self.start + self.machine.timeout;
        if !self.ready {
            limit = limit.min(self.last_line + self.machine.silence);
        }
        if let Some(fault_at) = self.fault_at {
            limit = limit.min(self.last_line + TRACE_PAUSE).min(fault_at + TRACE_LIMIT);
        }
        limit.saturating_duration_since(now)
    }

    fn take(&mut self, stream: Stream, block: &[u8]) -> Result<(), LabError> {
        if block.is_empty() {
            self.open -= 1;
        }
        let refused = LabError::io("pass on", "the guest's output");
        match stream {
            Stream::Stdout => self.sink.stdout(block).map_err(refused)?,
            Stream::Stderr => self.sink.stderr(block).map_err(refused)?,
            Stream::Console => self.take_console(block).map_err(refused)?,
            Stream::Control => self.take_control(block)?,
            Stream::Qemu => {
                self.complaints.push_str(&String::from_utf8_lossy(block));
                if self.complaints.contains(KVM_GAVE_UP) {
                    return Err(self.qemu_error("kvm cannot run this guest here"));
                }
            }
        }
        Ok(())
    }

    fn take_console(&mut self, block: &[u8]) -> io::Result<()> {
        let mut lines = self.console.feed(block);
        if block.is_empty() {
            lines.extend(self.console.finish());
        }
        for line in &lines {
            self.sink.console(line)?;
        }
        if !block.is_empty() {
            if self.last_line == self.start {
                // The guest runs, so QEMU has opened all files: if this process is killed, nothing is left behind.
                self.layout.remove();
            }
            self.last_line = Instant::now();
        }
        if self.fault_at.is_none() && self.console.fault().is_some() {
            self.fault_at = Some(Instant::now());
        }
        Ok(())
    }

    fn take_control(&mut self, block: &[u8]) -> Result<(), LabError> {
        self.control.extend_from_slice(block);
        while let Some(end) = self.control.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.control.drain(..=end).collect();
            let message = serde_json::from_slice(&line).map_err(|error| LabError::GuestSetup {
                reason: format!("it sent `{}`: {error}", String::from_utf8_lossy(&line).trim_end()),
                tail: self.tail(),
            })?;
            match message {
                Message::Ready => self.ready = true,
                other => self.result = Some(other),
            }
        }
        Ok(())
    }

    fn check_time(&self) -> Result<(), LabError> {
        let now = Instant::now();
        if let Some(fault_at) = self.fault_at {
            if now >= self.last_line + TRACE_PAUSE || now >= fault_at + TRACE_LIMIT {
                return self.fault();
            }
        } else if now >= self.start + self.machine.timeout {
            let state = match (&self.result, self.ready) {
                (Some(_), _) => "the command had ended, the machine did not power off",
                (None, true) => "the command was still running",
                (None, false) => "it was still booting",
            };
            return Err(LabError::Timeout { seconds: self.machine.timeout.as_secs(), state, tail: self.tail() });
        } else if !self.ready && self.result.is_none() && now >= self.last_line + self.machine.silence {
            return Err(LabError::SilentBoot { seconds: self.machine.silence.as_secs(), tail: self.tail() });
        }
        Ok(())
    }

    /// The error for the fault that the console has shown, if any.
    fn fault(&self) -> Result<(), LabError> {
        match self.console.fault() {
            Some(fault) => Err(LabError::KernelFault { fault: fault.clone(), tail: self.tail() }),
            None => Ok(()),
        }
    }

    /// Judges a machine that has ended by itself.
    fn conclude(&mut self, qemu: &mut Qemu) -> Result<i32, LabError> {
        self.fault()?;
        // What a plugin has gathered it writes at QEMU's very end, long after the guest's command.
        if self.machine.plugin.is_some() {
            let status = qemu.child.wait().map_err(LabError::io("wait for", "qemu"))?;
            if !status.success() {
                return Err(
                    self.qemu_error(&format!("it ended with {status}, so its plugin could not tell what it saw"))
                );
            }
        }
        match self.result.take() {
            Some(Message::Exited(code)) => Ok(code),
            Some(Message::Killed(signal)) => Ok(128 + signal),
            Some(Message::Failed(reason)) => Err(LabError::GuestSetup { reason, tail: self.tail() }),
            Some(Message::Ready) | None => {
                let status = qemu.child.wait().map_err(LabError::io("wait for", "qemu"))?;
                if status.success() {
                    Err(LabError::NoResult { tail: self.tail() })
                } else {
                    Err(self.qemu_error(&format!("it ended with {status}")))
                }
            }
        }
    }

    fn qemu_error(&self, reason: &str) -> LabError {
        LabError::Qemu { reason: reason.into(), output: self.complaints.clone() }
    }

    fn tail(&self) -> String {
        self.console.excerpt(SHOWN_LINES)
    }
}
