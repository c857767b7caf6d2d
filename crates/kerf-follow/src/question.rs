//! What is asked of an execution: where the value comes in, and who may use what follows from it.

use std::collections::BTreeSet;
use std::ops::Range;

use kerf_const::Entry;

/// More instructions than this are not stepped in one execution.
const MOST_STEPS: usize = 20_000;

/// The question, in addresses of the running kernel.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The instructions whose results are followed.
    pub sources: BTreeSet<u64>,
    /// Code that may use them: whoever runs in it, or was called from it.
    pub inside: Vec<Range<u64>>,
    /// Code around the sources, which may use them too.
    pub own: Vec<Range<u64>>,
    /// The function that switches to another task, where an execution can be followed no further.
    pub switch: Option<u64>,
    /// Give up after this many instructions.
    pub most_steps: usize,
}

impl Question {
    /// What an entry of the core image claims: all uses of its constant's value are in its safe spans. The kernel runs where it
    /// was linked.
    pub fn of(entry: &Entry) -> Question {
        let base = entry.image.text;
        let numbers = |s| move |iv: &kerf_const::entry::Iv| base + s + iv.offset;
        let sources = entry.spans.iter().flat_map(|s| s.iv.iter().map(numbers(s.function_offset)));
        let own = entry.spans.iter().map(|s| (base + s.function_offset, s)).map(|(f, s)| f + s.start..f + s.end);
        let inside = entry.safe_spans.iter().flat_map(|s| &s.ranges);
        Question {
            sources: sources.collect(),
            inside: inside.map(|(start, end)| base + start..base + end).collect(),
            own: own.collect(),
            switch: None,
            most_steps: MOST_STEPS,
        }
    }

    /// Whether the instruction at an address may use the value, with these callers.
    pub fn allows(&self, address: u64, callers: impl Iterator<Item = u64>) -> bool {
        let among = |ranges: &[Range<u64>], address: u64| ranges.iter().any(|range| range.contains(&address));
        among(&self.own, address) || self.counts(address) || callers.into_iter().any(|caller| self.counts(caller))
    }

    pub(crate) fn counts(&self, address: u64) -> bool {
        self.inside.iter().any(|range| range.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_count_and_the_own_code_without_them() {
        let question = Question { inside: vec![10..20, 30..40], own: vec![50..52, 60..62], ..Question::default() };
        let allows = |address, callers: &[u64]| question.allows(address, callers.iter().copied());
        assert!(allows(10, &[]) && allows(39, &[]) && allows(51, &[]) && allows(99, &[1, 19]));
        assert!(!allows(20, &[]) && !allows(9, &[9, 20]));
        // The own code is no function: what it calls is called from around it.
        assert!(!allows(99, &[51]));
    }
}
