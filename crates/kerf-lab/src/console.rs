//! Reads the guest kernel's console and recognises the lines that mean trouble.
//!
//! A line counts only in a form that kernels print: settings and banners that merely mention a stall or a watchdog are
//! not faults. `Call Trace:` alone is one, because something has always gone wrong before it.

use regex::Regex;
use std::collections::VecDeque;
use std::fmt;
use std::sync::LazyLock;

/// What a line on the console says about the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// The kernel gave up.
    Panic,
    /// An exception in kernel mode, or a failed assertion.
    Oops,
    /// A CPU or a work queue makes no progress.
    Lockup,
    /// A grace period of RCU does not end.
    Stall,
    /// A task has been waiting for minutes.
    HungTask,
    /// A sanitizer (KASAN, KCSAN, UBSAN, KFENCE) objects.
    Sanitizer,
    /// A `WARN_ON` or a complaint of lockdep.
    Warning,
    /// A stack trace whose cause was not recognised.
    Trace,
}

impl FaultKind {
    /// Whether a run that allows warnings goes on after this.
    pub fn is_warning(self) -> bool {
        matches!(self, FaultKind::Warning | FaultKind::Trace)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultKind::Panic => "panic",
            FaultKind::Oops => "oops",
            FaultKind::Lockup => "lockup",
            FaultKind::Stall => "stall",
            FaultKind::HungTask => "hung task",
            FaultKind::Sanitizer => "memory or behaviour error",
            FaultKind::Warning => "warning",
            FaultKind::Trace => "stack trace",
        })
    }
}

/// A line that means trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind of trouble.
    pub kind: FaultKind,
    /// The line, without its time stamp.
    pub line: String,
}

/// Patterns for the text after the time stamp; the first match decides.
const PATTERNS: &[(FaultKind, &str)] = &[
    (FaultKind::Panic, r"^Kernel panic - not syncing"),
    (FaultKind::Panic, r"^PANIC: (early exception|double fault)"),
    (FaultKind::Panic, r"^traps: PANIC: "),
    (FaultKind::Sanitizer, r"^BUG: (KASAN|KCSAN|KMSAN|KFENCE): "),
    (FaultKind::Sanitizer, r"^UBSAN: "),
    (FaultKind::Lockup, r"^(NMI )?watchdog: BUG: soft lockup - CPU#"),
    (FaultKind::Lockup, r"^(NMI )?watchdog: Watchdog detected hard LOCKUP on cpu"),
    (FaultKind::Lockup, r"^(NMI watchdog: )?(BUG: soft lockup|Watchdog detected hard LOCKUP)"),
    (FaultKind::Lockup, r"^BUG: workqueue lockup - pool"),
    (FaultKind::Lockup, r"^BUG: spinlock (lockup|recursion)"),
    (FaultKind::Stall, r"^(rcu: )?INFO: rcu\w* (self-)?detected (expedited )?stalls? on "),
    (FaultKind::Stall, r"^(rcu: )?rcu\w* kthread (starved|timer wakeup didn't happen) for "),
    (FaultKind::Stall, r"^(rcu: )?INFO: rcu_tasks detected stalls on tasks"),
    (FaultKind::HungTask, r"^INFO: task .+ blocked (in I/O wait )?for more than \d+ seconds"),
    (FaultKind::Warning, r"^BUG: (sleeping function called from invalid context|scheduling while atomic)"),
    (FaultKind::Oops, r"^(kernel )?BUG( at |: )"),
    (FaultKind::Oops, r"^Oops(: |\b.*\[#\d+\])"),
    (FaultKind::Oops, r"^general protection fault\b"),
    (FaultKind::Oops, r"^(?i:unable to handle (kernel|page))"),
    (FaultKind::Oops, r": [0-9a-f]{4} \[#\d+\]"),
    (FaultKind::Oops, r"^list_(add|del) corruption"),
    (FaultKind::Warning, r"^WARNING: "),
    (FaultKind::Warning, r"^INFO: trying to register non-static key"),
    (FaultKind::Trace, r"^Call Trace:"),
];

static COMPILED: LazyLock<Vec<(FaultKind, Regex)>> = LazyLock::new(|| {
    // A pattern that does not compile is a mistake of ours, which the tests below would show.
    PATTERNS.iter().filter_map(|(kind, text)| Some((*kind, Regex::new(text).ok()?))).collect()
});

/// Removes the time stamp and caller that `printk.time` and `printk.caller` put before a message.
fn message(line: &str) -> &str {
    let mut rest = line.trim();
    while let Some(stamp) = rest.strip_prefix('[')
        && let Some((inside, after)) = stamp.split_once(']')
        && is_stamp(inside.trim())
    {
        rest = after.trim_start();
    }
    rest
}

fn is_stamp(text: &str) -> bool {
    let digits = text.strip_prefix(['T', 'C']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// Decides whether one console line reports a fault.
pub fn classify(line: &str) -> Option<Fault> {
    let text = message(line);
    let (kind, _) = COMPILED.iter().find(|(_, pattern)| pattern.is_match(text))?;
    Some(Fault { kind: *kind, line: text.to_owned() })
}

/// Turns console bytes into lines, remembers the last of them and the first fault.
pub struct Console {
    partial: Vec<u8>,
    lines: VecDeque<String>,
    keep: usize,
    allow_warnings: bool,
    fault: Option<Fault>,
    /// Lines remembered from a little before the fault on.
    since_fault: usize,
}

/// Lines before a fault that belong to it: the message of a `WARN` comes first.
const LEAD: usize = 8;

impl Console {
    /// Remembers the last `keep` lines; warnings are no faults when `allow_warnings` is set.
    pub fn new(keep: usize, allow_warnings: bool) -> Self {
        Console { partial: Vec::new(), lines: VecDeque::new(), keep, allow_warnings, fault: None, since_fault: 0 }
    }

    /// Takes the next bytes and returns the lines that they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut complete = Vec::new();
        for part in bytes.split_inclusive(|&b| b == b'\n') {
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") {
                complete.push(self.end_line());
            }
        }
        complete
    }

    /// Ends a last line that has no line end.
    pub fn finish(&mut self) -> Option<String> {
        (!self.partial.is_empty()).then(|| self.end_line())
    }

    /// The first fault seen.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// All lines that are remembered.
    pub fn text(&self) -> String {
        self.tail(self.lines.len())
    }

    /// Up to `count` lines: what surrounds the fault when there is one, else the last.
    pub fn excerpt(&self, count: usize) -> String {
        if self.fault.is_none() {
            return self.tail(count);
        }
        let skip = self.lines.len().saturating_sub(self.since_fault);
        let mut text = self.lines.iter().skip(skip).take(count).fold(String::new(), |text, line| text + line + "\n");
        if self.since_fault > count {
            text.push_str(&format!("({} more lines)\n", self.since_fault - count));
        }
        text
    }

    /// The last `count` lines.
    pub fn tail(&self, count: usize) -> String {
        let skip = self.lines.len().saturating_sub(count);
        self.lines.iter().skip(skip).fold(String::new(), |text, line| text + line + "\n")
    }

    fn end_line(&mut self) -> String {
        let bytes = std::mem::take(&mut self.partial);
        let line = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
        if self.lines.len() == self.keep {
            self.lines.pop_front();
        }
        self.lines.push_back(line.clone());
        if self.fault.is_some() {
            self.since_fault += 1;
        } else if let Some(fault) = classify(&line).filter(|fault| !(self.allow_warnings && fault.kind.is_warning())) {
            self.fault = Some(fault);
            self.since_fault = self.lines.len().min(LEAD + 1);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_pattern_compiles() {
        for (_, text) in PATTERNS {
            Regex::new(text).unwrap();
        }
    }

    #[test]
    fn faults_are_recognised() {
        use FaultKind::*;
        let table = [
            (Panic, "[    2.101] Kernel panic - not syncing: sysrq triggered crash"),
            (Panic, "[    0.9][    T1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"),
            (Panic, "PANIC: early exception 0x0e IP 10:ffffffff8b5fd8a0 error 0 cr2 0x0"),
            (Panic, "[    3.3] traps: PANIC: double fault, error_code: 0x0"),
            (Oops, "[    1.234567] BUG: kernel NULL pointer dereference, address: 0000000000000008"),
            (Oops, "[    1.2] BUG: unable to handle page fault for address: ffffa3c7c0a3d000"),
            (Oops, "[    1.2] Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI"),
            (Oops, "[    1.2] Oops: 0000 [#1] SMP PTI"),
            (Oops, "[    1.2] kernel BUG at mm/slub.c:4321!"),
            (Oops, "[    1.2] invalid opcode: 0000 [#1] PREEMPT SMP"),
            (Oops, "[    1.2] Oops: invalid opcode: 0000 [#1] PREEMPT SMP NOPTI"),
            (
                Oops,
                "[    1.2] general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1]",
            ),
            (Oops, "[    1.2] int3: 0000 [#1] PREEMPT SMP"),
            (Oops, "[    1.2] divide error: 0000 [#2] SMP"),
            (Oops, "[    1.2] BUG: Bad page state in process kworker/0:1  pfn:1234"),
            (Oops, "[    1.2] Unable to handle kernel paging request at virtual address 0000000000001000"),
            (Oops, "[    1.2] list_del corruption. prev->next should be ffff8881, but was 0000"),
            (Lockup, "[   60.0] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [insmod:77]"),
            (Lockup, "[   60.0] watchdog: Watchdog detected hard LOCKUP on cpu 1"),
            (Lockup, "[   60.0] NMI watchdog: Watchdog detected hard LOCKUP on cpu 1"),
            (Lockup, "[   60.0] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!"),
            (Stall, "[   60.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"),
            (Stall, "[   60.0] rcu: INFO: rcu_sched self-detected stall on CPU"),
            (Stall, "[   60.0] rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-.... } 21 jiffies"),
            (Stall, "[   60.0] INFO: rcu_tasks detected stalls on tasks:"),
            (Stall, "[   60.0] rcu: rcu_preempt kthread starved for 5251 jiffies! g-1155 f0x0 RCU_GP_WAIT_FQS(5)"),
            (HungTask, "[  242.1] INFO: task kworker/u8:1:35 blocked for more than 120 seconds."),
            (HungTask, "[  242.1] INFO: task cat:35 blocked in I/O wait for more than 120 seconds."),
            (Sanitizer, "[    5.0] BUG: KASAN: slab-out-of-bounds in foo+0x12/0x40"),
            (Sanitizer, "[    5.0] UBSAN: array-index-out-of-bounds in drivers/foo.c:12:3"),
            (Warning, "[    1.5] WARNING: CPU: 1 PID: 77 at kernel/softirq.c:12 foo+0x0/0x10 [bar]"),
            (Warning, "[    1.5] WARNING: possible circular locking dependency detected"),
            (Warning, "[    1.5] BUG: sleeping function called from invalid context at mm/slab.h:411"),
            (Warning, "[    1.5] BUG: scheduling while atomic: insmod/77/0x00000002"),
            (Trace, "[    1.5] Call Trace:"),
        ];
        for (kind, line) in table {
            assert_eq!(classify(line).map(|f| f.kind), Some(kind), "{line}");
        }
    }

    #[test]
    fn ordinary_lines_are_not() {
        let table = [
            "[    0.000000] Command line: console=ttyS0 panic=-1 oops=panic hung_task_panic=1 BUG: x",
            "[    0.010] Kernel command line: console=ttyS0 panic=-1 softlockup_panic=1",
            "[    0.12] rcu: RCU calculated value of scheduler-enlistment delay is 25 jiffies.",
            "[    0.12] rcu: \tRCU CPU stall timeout set to 21 seconds.",
            "[    0.12] rcu: RCU restricting CPUs from NR_CPUS=8192 to nr_cpu_ids=2.",
            "[    0.32] NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
            "[    0.32] NMI watchdog: Perf NMI watchdog permanently disabled",
            "[    0.32] watchdog: NMI not fully supported",
            "[    0.32] watchdog: Delayed init of the lockup detector failed: -19",
            "[    0.32] clocksource: timekeeping watchdog on CPU1: Marking clocksource 'tsc-early' as unstable because the skew is too large:",
            "[    0.32] tsc: Marking TSC unstable due to clocksource watchdog",
            "[    0.32] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible via Spectre v2 BHB attacks!",
            "[    0.32] MDS: Vulnerable: Clear CPU buffers attempted, no microcode",
            "[    0.32] x86/mm: Checked W+X mappings: passed, no W+X pages found.",
            "[    0.32] pci 0000:00:01.0: PIIX3: Enabling Passive Release",
            "[    0.32] Warning: unable to open an initial console.",
            "[    0.32] kerf: module verification failed: signature and/or required key missing - tainting kernel",
            "[    0.32] systemd[1]: hung_task_timeout_secs set to 120",
            "[    0.32] traps: a.out[77] general protection fault ip:401126 sp:7ffd error:0 in a.out[401000+1000]",
            "[    0.32] a.out[77]: segfault at 0 ip 0000000000401126 sp 00007ffd error 4 in a.out[401000+1000]",
            "[    0.32] workqueue: blk_mq_run_work_fn hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND",
            "[    0.32] printk: debug: ignoring loglevel setting.",
            "[    0.32] debug: unmapping init [mem 0xffffffff-0xffffffff]",
            "[    0.32] sysrq: Show Blocked State",
            "",
        ];
        for line in table {
            assert_eq!(classify(line), None, "{line}");
        }
    }

    #[test]
    fn the_first_fault_stays() {
        let mut console = Console::new(10, false);
        console.feed(b"[ 1.0] WARNING: CPU: 0 PID: 1 at a.c:1\r\n[ 1.1] Kernel panic - not syncing: x\r\n");
        assert_eq!(console.fault().map(|f| f.kind), Some(FaultKind::Warning));
    }

    #[test]
    fn allowed_warnings_do_not_hide_a_panic() {
        let mut console = Console::new(10, true);
        console.feed(b"WARNING: CPU: 0 PID: 1 at a.c:1\nCall Trace:\n");
        assert_eq!(console.fault(), None);
        console.feed(b"Kernel panic - not syncing: x\n");
        assert_eq!(console.fault().map(|f| f.kind), Some(FaultKind::Panic));
    }

    #[test]
    fn a_last_line_without_end_counts() {
        let mut console = Console::new(10, false);
        console.feed(b"Kernel panic - not syncing: x");
        assert_eq!(console.fault(), None);
        assert!(console.finish().is_some());
        assert!(console.fault().is_some());
    }

    #[test]
    fn an_excerpt_surrounds_the_fault() {
        let mut console = Console::new(1000, false);
        let before: String = (0..20).map(|n| format!("before {n}\n")).collect();
        console.feed(before.as_bytes());
        assert_eq!(console.excerpt(2), "before 18\nbefore 19\n");
        console.feed(b"WARNING: CPU: 0 PID: 1 at a.c:1\n");
        let after: String = (0..20).map(|n| format!("after {n}\n")).collect();
        console.feed(after.as_bytes());
        let excerpt = console.excerpt(12);
        assert!(excerpt.starts_with("before 12\n"), "{excerpt}");
        assert!(
            excerpt.ends_with("WARNING: CPU: 0 PID: 1 at a.c:1\nafter 0\nafter 1\nafter 2\n(17 more lines)\n"),
            "{excerpt}"
        );
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(cuts in proptest::collection::vec(1usize..20, 0..12)) {
            let text: &[u8] = b"one\ntwo \xff\r\n\nKernel panic - not syncing: \xc3\xa4\nlast";
            let mut whole = Console::new(3, false);
            whole.feed(text);
            whole.finish();
            let mut pieces = Console::new(3, false);
            let mut rest = text;
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                pieces.feed(now);
                rest = later;
            }
            pieces.feed(rest);
            pieces.finish();
            prop_assert_eq!(whole.text(), pieces.text());
            prop_assert_eq!(whole.fault(), pieces.fault());
        }
    }
}
