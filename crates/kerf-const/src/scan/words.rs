//! The words of names and comments: what speaks for a constant of performance, and what speaks against it.

use std::collections::HashSet;
use std::sync::LazyLock;

/// In a name or on the other side of a comparison: a quantity that grows and shrinks while the kernel works, or how it is handled.
const STRONG: &str = "\
    age attempts background backlog backoff batch batched boost budget bulk burst busy coalesce credit credits cwnd defer \
    deferred delay delayed delays depth drain elapsed expire expires expiry flush gc holdoff idle inflight interval intv \
    jiffies latency linger load loops margin migrate nodelay pacing pause pct pending percent period poll polls prealloc \
    prefetch qlen quantum quota rate ratelimit ratio readahead reap reclaim resched retransmit retries retry rtt scan \
    scanned slack spin spins steal stall thresh threshold thresholds throttle tries trigger util wakeup watermark wait wb \
    weight wmark writeback";

/// Words for a time after which something has failed, as often as for one that only passes.
const DEADLINES: &str = "\
    timeo timeout timeouts";

/// Words of quantities that as often say what something is as how much of it is taken at a time.
const WEAK: &str = "\
    avail avg bytes cache cached ceiling chunk chunks count cnt decay def default delta entries factor frags free freed \
    freq frequency high hiwat init items len level limit loop low lowat max min ms msec msecs nr ns nsec num nums order \
    packets pages pkts queued queue samples scale sec secs segs shift slice slots step time total target us usec usecs \
    used usage window work";

/// Words of names whose values are agreed with hardware, with other machines or with programs.
const FOREIGN: &str = "\
    addr address align alignment array bar base bit bits bpp ch channel channels chip class clk clock cmd code command cs \
    desc descs dev device dma err error errno family field flag flags fmt format fw gpio hdr header hw id idx index ioctl \
    irq lane lanes len length magic major mask minor mode model mtu name namelen offset off opcode path phy pin pll port \
    ports proto protocol reg regs register registers ret rev revision ring sector sectors size start state status stepping \
    str string tag type uuid vector vendor ver version voltage volt width height temp";

/// Of these one in a name is enough to leave it out.
const NEVER: &str = "\
    addr align alignment errno field flag flags ioctl irq magic mask msk namelen offset offs opcode reg regs register rev \
    revision uuid vendor version ver vid pid guid minor major";

/// What comments of such constants say.
const COMMENTS: &[&str] = &[
    "amorti",
    "arbitrar",
    "at a time",
    "at most",
    "avoid",
    "aggressive",
    "background",
    "batch",
    "contention",
    "default",
    "delay",
    "empirical",
    "experiment",
    "fair",
    "frequen",
    "guess",
    "heuristic",
    "how long",
    "how many",
    "how much",
    "how often",
    "interval",
    "jiffies",
    "latenc",
    "magic number",
    "max number",
    "maximum number",
    "millisecond",
    "minimum time",
    "msec",
    "optimi",
    "overhead",
    "per second",
    "percent",
    "perform",
    "period",
    "polling",
    "ratio",
    "retries",
    "retry",
    "scalab",
    "second",
    "starv",
    "thrash",
    "threshold",
    "throttl",
    "throughput",
    "timeout",
    "tunable",
    "tune",
    "tuning",
    "usec",
    "wait ",
    "workload",
];

/// The words of one of the lists.
fn set(words: &'static str) -> HashSet<&'static str> {
    words.split_whitespace().collect()
}

/// How many words of a name say what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaning {
    /// Words that speak for a constant of performance.
    pub strong: u8,
    /// Words for a time that ends something.
    pub deadline: u8,
    /// Weak ones.
    pub weak: u8,
    /// Words that speak against it.
    pub foreign: u8,
    /// Whether a word is among them that rules it out.
    pub never: bool,
}

/// Weighs the words of a name, written in any of the ways of C.
pub fn leaning(name: &str) -> Leaning {
    static SETS: LazyLock<[HashSet<&str>; 5]> = LazyLock::new(|| [STRONG, DEADLINES, WEAK, FOREIGN, NEVER].map(set));
    let [strong, deadlines, weak, foreign, never] = &*SETS;
    let mut found = Leaning::default();
    for word in words(name) {
        let word = word.as_str();
        found.strong += u8::from(strong.contains(word));
        found.deadline += u8::from(deadlines.contains(word));
        found.weak += u8::from(weak.contains(word));
        found.foreign += u8::from(foreign.contains(word));
        found.never |= never.contains(word);
    }
    found
}

/// How many turns of speech in a comment speak for it, three at most.
pub fn comment_signs(comment: &str) -> u32 {
    let text = comment.to_ascii_lowercase();
    COMMENTS.iter().filter(|sign| text.contains(**sign)).take(3).count() as u32
}

/// The words of an expression's names, in lower case.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()).map(str::to_ascii_lowercase)
}

/// Whether a name is written as macros are.
pub fn is_capital(name: &str) -> bool {
    name.len() > 2
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        && name.bytes().any(|b| b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lean_one_way_or_the_other() {
        assert_eq!(leaning("SHRINK_BATCH"), Leaning { strong: 1, ..Leaning::default() });
        assert_eq!(leaning("plug->rq_count"), Leaning { weak: 1, ..Leaning::default() });
        assert!(leaning("PHY_REG_MASK").never);
        assert_eq!(leaning("dev->chip_id").foreign, 3);
    }

    #[test]
    fn comments_are_read_for_their_turns_of_speech() {
        assert_eq!(comment_signs("/* Scan at most this many, to avoid latency */"), 3);
        assert_eq!(comment_signs("/* the other end */"), 0);
    }

    #[test]
    fn capitals_are_those_of_macros() {
        assert!(
            is_capital("TCP_RTO_MIN")
                && is_capital("_Q2X")
                && !is_capital("HZ")
                && !is_capital("Max_A")
                && !is_capital("_1_")
        );
    }
}
