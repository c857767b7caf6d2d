//! Runs a trial's metric, and ends with it when a signal says so.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use kerf_trial::{Reader, TrialError};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How long a metric may take to end after it was told to.
const PATIENCE: Duration = Duration::from_secs(2);

/// A signal between a look and the sleep that follows it is seen after this time.
const LOOK: Duration = Duration::from_millis(200);

/// Signals that would end this program, noted instead, so that values are put back first.
pub struct Signals {
    seen: Arc<AtomicUsize>,
}

impl Signals {
    /// Notes Ctrl-C, SIGTERM, and SIGHUP unless whoever started this program has it ignored (`nohup`).
    pub fn catch() -> anyhow::Result<Signals> {
        let seen = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if signal != SIGHUP || !is_ignored(signal) {
                let noted = signal_hook::flag::register_usize(signal, seen.clone(), signal as usize);
                noted.context("prepare for signals")?;
            }
        }
        Ok(Signals { seen })
    }

    /// An error if one has come.
    pub fn check(&self) -> Result<(), TrialError> {
        let signal = match self.seen.load(Ordering::Acquire) as i32 {
            0 => return Ok(()),
            SIGINT => "Ctrl-C",
            SIGTERM => "SIGTERM",
            _ => "SIGHUP",
        };
        Err(TrialError::Interrupted { signal })
    }
}

/// Whether a signal is ignored, as /proc has it.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// The command that measures.
pub struct Metric {
    /// For `sh -c`.
    pub command: String,
    /// Finds the number in what it prints.
    pub reader: Reader,
    /// How long a run may take.
    pub limit: Option<Duration>,
}

impl Metric {
    /// Runs it and gives its number.
    ///
    /// # Errors
    /// [`TrialError::Metric`] and [`TrialError::NoNumber`], which quote what it printed; [`TrialError::Interrupted`].
    pub fn run(&self, signals: &Signals) -> anyhow::Result<f64> {
        // Files in memory: they never fill up as pipes do, and writing them does not disturb a disk that is measured.
        let (mut out, mut err) = (memory()?, memory()?);
        let ended = self.execute(&out, &err, signals)?;
        let printed = text(&mut out)?;
        match ended {
            Ended::Itself(status) if status.success() => Ok(self.reader.read(&printed)?),
            ended => {
                let printed = format!("{printed}{}", text(&mut err)?);
                Err(TrialError::Metric { command: self.command.clone(), how: self.sentence(ended), printed }.into())
            }
        }
    }

    fn execute(&self, out: &File, err: &File, signals: &Signals) -> anyhow::Result<Ended> {
        let start = Instant::now();
        let clone = |file: &File| file.try_clone().context("hand a file to the metric");
        // A process group of its own: it can be ended with all that it has started.
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).process_group(0);
        command.stdin(Stdio::null()).stdout(clone(out)?).stderr(clone(err)?);
        let mut running = Running(command.spawn().context("start sh for the metric")?);
        loop {
            if let Some(status) = running.0.try_wait().context("wait for the metric")? {
                return Ok(Ended::Itself(status));
            }
            signals.check()?;
            if self.limit.is_some_and(|limit| start.elapsed() >= limit) {
                return Ok(Ended::Late);
            }
            running.wait(self.limit.map_or(LOOK, |limit| LOOK.min(limit.saturating_sub(start.elapsed()))))?;
        }
    }

    fn sentence(&self, ended: Ended) -> String {
        match ended {
            Ended::Itself(status) => format!("ended with {status}"),
            Ended::Late => {
                let seconds = self.limit.unwrap_or_default().as_secs_f64();
                format!("did not end within {seconds} s and was ended (--timeout-metric)")
            }
        }
    }
}

/// How a run came to its end.
enum Ended {
    Itself(ExitStatus),
    /// It took too long.
    Late,
}

/// A process that is ended with its whole group when it is not waited for to the end.
struct Running(Child);

impl Running {
    /// Sleeps until it ends, a signal comes, or the time is over.
    fn wait(&self, time: Duration) -> anyhow::Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        let file = rustix::process::pidfd_open(pid, PidfdFlags::empty()).context("wait for the metric")?;
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("wait for the metric"),
        }
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.0.id() as i32)
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for signal in [Signal::TERM, Signal::KILL] {
            let start = Instant::now();
            // Once it has been waited for, its number may be another group's.
            while !self.has_ended() && start.elapsed() < PATIENCE {
                if let Some(pid) = self.pid() {
                    let _ = rustix::process::kill_process_group(pid, signal);
                }
                let _ = self.wait(LOOK);
            }
        }
    }
}

fn memory() -> anyhow::Result<File> {
    let file = rustix::fs::memfd_create("kerf-metric", rustix::fs::MemfdFlags::CLOEXEC);
    Ok(file.context("make a file in memory for the metric's output")?.into())
}

/// What was written to a file, whoever wrote it.
fn text(file: &mut File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read: io::Result<usize> = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
    read.context("read what the metric printed")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &str, limit: Option<u64>) -> anyhow::Result<f64> {
        let reader = Reader::new(None)?;
        let limit = limit.map(Duration::from_millis);
        let metric = Metric { command: command.into(), reader, limit };
        metric.run(&Signals { seen: Arc::default() })
    }

    #[test]
    fn the_number_comes_back() {
        assert_eq!(run("echo 3; echo 5 >&2", None).unwrap(), 3.0);
        assert_eq!(run("seq 100000", Some(60_000)).unwrap(), 100_000.0);
    }

    #[test]
    fn failures_quote_what_was_printed() {
        for (command, limit, words) in [
            ("echo 7; echo oh no >&2; exit 3", None, vec!["exit status: 3", "oh no"]),
            ("echo nothing", None, vec!["printed no number", "nothing"]),
            ("kill -9 $$", None, vec!["signal: 9"]),
            ("echo begun; sleep 60 & sleep 60", Some(300), vec!["did not end within 0.3 s", "begun"]),
        ] {
            let start = Instant::now();
            let said = format!("{:#}", run(command, limit).unwrap_err());
            assert!(words.iter().all(|word| said.contains(word)), "{command}: {said}");
            assert!(start.elapsed() < Duration::from_secs(20), "{command}");
        }
    }

    #[test]
    fn a_stubborn_metric_is_killed() {
        let start = Instant::now();
        assert!(run("trap '' TERM; while true; do sleep 1; done", Some(100)).is_err());
        assert!(start.elapsed() < PATIENCE * 6);
    }

    #[test]
    fn a_signal_ends_the_run() {
        let signals = Signals { seen: Arc::new(AtomicUsize::new(SIGTERM as usize)) };
        let metric = Metric { command: "sleep 60".into(), reader: Reader::new(None).unwrap(), limit: None };
        let error = metric.run(&signals).unwrap_err();
        assert!(format!("{error:#}").contains("interrupted by SIGTERM"), "{error:#}");
    }

    #[test]
    fn ignored_signals_are_known() {
        // Rust programs ignore SIGPIPE.
        assert!(is_ignored(signal_hook::consts::SIGPIPE));
        assert!(!is_ignored(SIGTERM));
    }
}
