//! Which execution of a source a use belongs to, and whether that one has left the code in question meanwhile. A value may lie in a
//! register for long after its last use; when the source is executed again, what comes in then has not left with it.

use std::collections::BTreeSet;

use super::taint::Event;

/// For each event the executions of sources that it comes from, by their own events.
#[derive(Debug, Default)]
pub(super) struct Origins {
    of: Vec<BTreeSet<Event>>,
    latest: Option<Event>,
    /// What came in before this event has been outside since.
    left_before: Event,
}

impl Origins {
    /// The next event takes from others, or is a source.
    pub fn hand_on(&mut self, from: &[Event], source: bool) {
        let mut origins = self.joined(from);
        if source {
            origins.insert(self.of.len());
            self.latest = Some(self.of.len());
        }
        self.of.push(origins);
    }

    /// An instruction outside of the code in question is executed.
    pub fn leave(&mut self) {
        self.left_before = self.of.len();
    }

    /// Whether nothing that these events come from has left.
    pub fn inside(&self, from: &[Event]) -> bool {
        self.joined(from).iter().all(|origin| *origin >= self.left_before)
    }

    /// Whether everything that came in has left.
    pub fn all_left(&self) -> bool {
        self.latest.is_some_and(|latest| latest < self.left_before)
    }

    fn joined(&self, events: &[Event]) -> BTreeSet<Event> {
        events.iter().filter_map(|event| self.of.get(*event)).flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_is_executed_again_begins_anew() {
        let mut origins = Origins::default();
        origins.hand_on(&[], true); // 0
        origins.hand_on(&[0], false); // 1
        assert!(origins.inside(&[1]) && !origins.all_left());
        origins.leave();
        assert!(!origins.inside(&[1]) && origins.all_left());
        origins.hand_on(&[], true); // 2
        origins.hand_on(&[2], false); // 3
        assert!(origins.inside(&[2]) && origins.inside(&[3]) && !origins.all_left());
        // What takes from both is as far out as the first.
        origins.hand_on(&[1, 3], false); // 4
        assert!(!origins.inside(&[4]) && !origins.inside(&[0]));
        origins.leave();
        assert!(!origins.inside(&[3]));
    }
}
