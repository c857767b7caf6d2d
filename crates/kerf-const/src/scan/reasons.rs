//! Why a constant is thought to govern performance and not meaning, how sure that is, and what is left out.

use serde::Serialize;

use super::context::{Context, Role, is_time};
use super::words::{self, Leaning};

/// Scores end here.
pub const BEST: u32 = 100;

/// What the parts of the kernel that every workload passes through add.
const CORE: i32 = 15;

/// From here on most candidates are what they seem: `cargo xtask bench scan` says how many.
pub const LIKELY: u32 = 45;

/// A reason to believe that a constant governs performance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Compared with a quantity.
    Threshold,
    /// A time that is waited or counted.
    Interval,
    /// How much is done at a time, or how often something is tried.
    Batch,
    /// Multiplies, divides or shifts a quantity.
    Scale,
}

impl Kind {
    /// The word that tables and JSON use.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Threshold => "threshold",
            Kind::Interval => "interval",
            Kind::Batch => "batch",
            Kind::Scale => "scale",
        }
    }
}

/// A reason, and what in the source gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What for.
    pub kind: Kind,
    /// In words: `compared with plug->rq_count`.
    pub because: String,
}

/// What is known of a constant.
pub struct Evidence<'a> {
    /// Its name, if it has one.
    pub name: Option<&'a str>,
    /// Where it is defined.
    pub file: &'a str,
    /// How its value is written.
    pub text: &'a str,
    /// Its value, if that is known.
    pub value: Option<i128>,
    /// The comment beside it.
    pub comment: Option<&'a str>,
    /// What it is used for, place by place.
    pub contexts: Vec<&'a Context>,
    /// Number of uses, those included of which nothing can be said.
    pub uses: usize,
}

/// What came of it: the reasons, and a score from 0 to [`BEST`].
pub type Verdict = (Vec<Reason>, u32);

/// Weighs the evidence; `None` if there is no reason, or one against it.
pub fn judge(evidence: &Evidence<'_>) -> Option<Verdict> {
    if evidence.file.contains("/uapi/") || excluded(evidence) {
        return None;
    }
    match evidence.name {
        Some(name) => named(evidence, name),
        None => number(evidence),
    }
}

/// Whether a text stands for a number that the compiler knows: no variable, no size of a type, no moment.
fn is_constant(text: &str) -> bool {
    let moment = |word: &str| matches!(word, "jiffies" | "sizeof" | "offsetof" | "ARRAY_SIZE");
    !text.contains(['[', '&', '.']) && !text.contains("->") && !super::parse::names(text).any(moment)
}

/// Uses that say that the value is a part of the program's meaning.
fn excluded(evidence: &Evidence<'_>) -> bool {
    let told = evidence.name.is_some_and(|name| words::leaning(name).strong > 0);
    evidence.contexts.iter().any(|context| match context.role {
        Role::Case | Role::Mask | Role::Dimension | Role::Index | Role::Register => true,
        // Amounts of work are rounded up to batches.
        Role::Align => !told,
        _ => false,
    })
}

/// A value with a name: every use counts, and so do the words of the name.
fn named(evidence: &Evidence<'_>, name: &str) -> Option<Verdict> {
    let own = words::leaning(name);
    let hex = evidence.text.contains("0x") || evidence.text.contains("0X");
    if !is_constant(evidence.text)
        || own.never && own.strong < 2
        || evidence.value.is_some_and(|value| value < 1)
        || hex && own.strong == 0
    {
        return None;
    }
    let mut reasons = reasons(evidence, Some(&own));
    if reasons.iter().all(|r| r.kind != Kind::Interval) && is_time(evidence.text) {
        reasons.push(Reason {
            kind: Kind::Interval,
            because: format!("written as {}", super::context::shorten(evidence.text)),
        });
    }
    // A name that says what it is for, stored where nothing else does.
    if reasons.is_empty() && own.strong + own.deadline > 0 && own.foreign == 0 && evidence.uses > 0 {
        reasons.extend(by_name(name, evidence));
    }
    if reasons.is_empty() {
        return None;
    }
    let mut score = strength(&reasons) + words_score(&own) + common(evidence);
    let role = |wanted: Role| evidence.contexts.iter().filter(|c| c.role == wanted).count() as i32;
    score -= 8 * role(Role::Equal).min(2) + 6 * role(Role::Size).min(3) + 8 * role(Role::Preprocessor).min(2);
    score -= if role(Role::Delay) > 0 { 15 } else { 0 };
    // Limits of what may be asked for are compared once, when it is asked for.
    let limit = words::words(name).any(|word| matches!(word.as_str(), "max" | "min"));
    let only_compared = reasons.iter().all(|reason| reason.because.starts_with("compared"));
    score -= if limit && own.strong == 0 && only_compared && place(evidence.file) < CORE { 12 } else { 0 };
    score -= if evidence.text.contains("_MAX") { 10 } else { 0 };
    score -= if hex { 15 } else { 0 } + if evidence.value == Some(1) { 10 } else { 0 };
    score += if (1..=6).contains(&evidence.uses) { 5 } else { 0 } - if evidence.uses > 30 { 10 } else { 0 };
    Some((reasons, score.clamp(0, BEST as i32) as u32))
}

/// A number without a name: only what it meets can speak for it, so that must speak clearly.
fn number(evidence: &Evidence<'_>) -> Option<Verdict> {
    let context = evidence.contexts.first()?;
    let value = evidence.value?;
    let other = words::leaning(&context.with);
    if other.never || is_conversion(value, context) || is_limit_of_type(value) {
        return None;
    }
    let clear = match context.role {
        Role::Interval => true,
        Role::Bound => other.strong + other.weak > 0 && other.foreign == 0,
        Role::Threshold | Role::Loop | Role::Batch | Role::Scale => other.strong > 0 && other.foreign == 0,
        _ => false,
    };
    if !clear {
        return None;
    }
    let reasons = reasons(evidence, None);
    let score = strength(&reasons) + 8 * i32::from(other.strong.min(2)) + common(evidence);
    (!reasons.is_empty()).then(|| (reasons, score.clamp(0, BEST as i32) as u32))
}

/// One reason of each kind, from the first use that gives it.
fn reasons(evidence: &Evidence<'_>, own: Option<&Leaning>) -> Vec<Reason> {
    let mut found: Vec<Reason> = Vec::new();
    for context in &evidence.contexts {
        let Some(reason) = reason(context, own) else { continue };
        if found.iter().all(|known| known.kind != reason.kind) {
            found.push(reason);
        }
    }
    found.sort_by_key(|reason| reason.kind);
    found
}

fn reason(context: &Context, own: Option<&Leaning>) -> Option<Reason> {
    let with = &context.with;
    let other = words::leaning(with);
    // Without a word that names a quantity on either side a comparison says nothing.
    let quantity = speaks(&other) > other.foreign || own.is_some_and(|own| speaks(own) > own.foreign);
    let told = |kind, because: String| Some(Reason { kind, because });
    match context.role {
        Role::Interval => told(Kind::Interval, format!("a time: {with}")),
        Role::Threshold if quantity || own.is_some_and(|own| own.foreign + other.foreign == 0) => {
            told(Kind::Threshold, format!("compared with {with}"))
        }
        Role::Bound if quantity => told(Kind::Threshold, format!("bounds {with}")),
        Role::Loop if quantity => told(Kind::Batch, format!("bounds a loop over {with}")),
        Role::Batch if quantity => told(Kind::Batch, format!("sets {with}")),
        Role::Scale if quantity => told(Kind::Scale, format!("scales {with}")),
        Role::Delay if own.is_some() => told(Kind::Interval, format!("waited in {with}")),
        _ => None,
    }
}

/// Words for a constant of performance, whichever they are.
fn speaks(leaning: &Leaning) -> u8 {
    leaning.strong + leaning.deadline + leaning.weak
}

/// The kind that a name speaks of by itself.
fn by_name(name: &str, evidence: &Evidence<'_>) -> Option<Reason> {
    let has = |list: &[&str]| words::words(name).any(|word| list.contains(&word.as_str()));
    let kind = if has(&[
        "interval", "delay", "timeout", "timeo", "period", "age", "pause", "holdoff", "expire", "expires", "latency",
        "slack", "jiffies", "wait", "idle",
    ]) {
        Kind::Interval
    } else if has(&[
        "batch",
        "budget",
        "quantum",
        "quota",
        "bulk",
        "burst",
        "retries",
        "retry",
        "tries",
        "loops",
        "scan",
        "readahead",
        "depth",
        "prealloc",
    ]) {
        Kind::Batch
    } else if has(&["thresh", "threshold", "watermark", "wmark", "trigger"]) {
        Kind::Threshold
    } else if has(&["ratio", "percent", "pct", "weight", "margin", "factor", "scale", "shift"]) {
        Kind::Scale
    } else {
        return None;
    };
    let passed = evidence.contexts.iter().find(|context| context.role == Role::Passed);
    if passed.is_some_and(|context| words::leaning(&context.with).foreign > 0) {
        return None;
    }
    let because =
        passed.map_or_else(|| "by its name".to_owned(), |context| format!("by its name; goes to {}", context.with));
    Some(Reason { kind, because })
}

fn strength(reasons: &[Reason]) -> i32 {
    let best = reasons.iter().map(|reason| match reason.kind {
        _ if reason.because.starts_with("by its name") => 15,
        _ if reason.because.starts_with("waited") => 5,
        Kind::Interval => 28,
        Kind::Batch => 28,
        Kind::Threshold => 25,
        Kind::Scale => 20,
    });
    best.max().unwrap_or(0) + 5 * (reasons.len() as i32 - 1).min(2)
}

fn words_score(own: &Leaning) -> i32 {
    (18 * i32::from(own.strong.min(2)) + 9 * i32::from(own.deadline.min(1)) + 6 * i32::from(own.weak.min(2))).min(36)
        - 12 * i32::from(own.foreign.min(3))
}

/// What place and comment say.
fn common(evidence: &Evidence<'_>) -> i32 {
    let comment = evidence.comment.map_or(0, words::comment_signs) as i32;
    6 * comment + place(evidence.file)
}

/// Parts of the kernel that every workload passes through, and drivers whose constants mostly belong to their device.
fn place(file: &str) -> i32 {
    const HEART: &[&str] = &[
        "kernel/",
        "mm/",
        "block/",
        "io_uring/",
        "net/core/",
        "net/ipv4/",
        "net/ipv6/",
        "net/sched/",
        "net/unix/",
        "net/xdp/",
        "net/sunrpc/",
        "lib/",
        "fs/",
        "ipc/",
        "virt/",
        "include/linux/",
        "include/net/",
        "arch/x86/mm/",
        "arch/x86/kvm/",
        "arch/x86/include/asm/",
    ];
    const SOFTWARE: &[&str] = &[
        "drivers/md/",
        "drivers/nvme/",
        "drivers/block/",
        "drivers/virtio/",
        "drivers/vhost/",
        "drivers/cpufreq/",
        "drivers/cpuidle/",
        "drivers/idle/",
        "drivers/base/",
        "drivers/iommu/",
        "drivers/xen/",
        "drivers/target/",
        "drivers/char/random",
        "drivers/net/virtio_net",
        "drivers/net/tun",
        "drivers/net/veth",
        "net/",
        "crypto/",
        "security/",
        "arch/x86/kernel/",
        "drivers/dma-buf/",
        "drivers/scsi/scsi",
    ];
    const WITHIN_HEADERS: &[&str] =
        &["sched", "sunrpc", "tcp", "netfilter", "atomic", "page_pool", "ceph", "lockd", "cgroup"];
    const FORMATS: &[&str] = &[
        "_format.h",
        "_fs.h",
        "_ondisk.h",
        "_disk.h",
        "/libxfs/",
        "lib/zstd/",
        "lib/lz",
        "lib/zlib",
        "lib/xz",
        "_raw.h",
        "/crypto/",
        "pdu.h",
    ];
    let within = |list: &[&str]| list.iter().any(|start| file.starts_with(start));
    let parts: Vec<&str> = file.split('/').collect();
    if FORMATS.iter().any(|part| file.contains(part)) {
        return -15;
    }
    if let ["include", "linux" | "net", part, _, ..] = parts.as_slice()
        && !WITHIN_HEADERS.contains(part)
    {
        return -10;
    }
    if within(HEART) {
        CORE
    } else if within(SOFTWARE) {
        8
    } else {
        -18
    }
}

/// Numbers that convert one unit into another.
fn is_conversion(value: i128, context: &Context) -> bool {
    let unit = matches!(value, 10 | 60 | 100 | 1000 | 1024 | 1_000_000 | 1_000_000_000 | 3600);
    match context.role {
        Role::Scale if context.shifted => value > 7,
        Role::Scale => unit || matches!(value, 2 | 8 | 16 | 32 | 64 | 512 | 4096),
        Role::Interval => context.scaled && matches!(value, 1000 | 1_000_000 | 1_000_000_000),
        Role::Threshold | Role::Bound | Role::Batch | Role::Loop => context.scaled && unit,
        _ => false,
    }
}

/// The largest numbers of types.
fn is_limit_of_type(value: i128) -> bool {
    matches!(value, 127 | 255 | 65535 | 32767 | 2_147_483_647 | 4_294_967_295)
}
