//! Counts of a run: what the plugin gathers, and the JSON file in which it hands that over.

use crate::error::ProfileError;
use crate::mark::Mark;
use serde::{Deserialize, Serialize};
use std::ops::Sub;
use std::path::Path;

/// Executed instructions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Of the kernel: at addresses in the upper half.
    pub kernel: u64,
    /// Of everything else.
    pub user: u64,
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(self, earlier: Counts) -> Counts {
        Counts { kernel: self.kernel.wrapping_sub(earlier.kernel), user: self.user.wrapping_sub(earlier.user) }
    }
}

/// What the plugin has counted in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Between each pair of marks, in the order in which they were passed. All processes and interrupts count.
    pub intervals: Vec<Counts>,
    /// From the machine's start to its end, without the marks.
    pub total: Counts,
    /// Marks that begin an interval while one is open or end one while none is.
    pub stray: u64,
}

impl Profile {
    /// Reads what the plugin has written.
    ///
    /// # Errors
    /// When the file is not there, holds something else, or the marks were not in pairs.
    pub fn read(path: &Path) -> Result<Profile, ProfileError> {
        let text = std::fs::read(path).map_err(|source| ProfileError::Read { path: path.to_owned(), source })?;
        let profile: Profile =
            serde_json::from_slice(&text).map_err(|source| ProfileError::Parse { path: path.to_owned(), source })?;
        match profile.stray {
            0 => Ok(profile),
            stray => Err(ProfileError::Stray { path: path.to_owned(), stray }),
        }
    }

    /// As the plugin writes it.
    pub fn to_json(&self) -> String {
        // A struct of numbers always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A profile while it is gathered.
#[derive(Debug, Default)]
pub struct Tally {
    open: Option<Counts>,
    intervals: Vec<Counts>,
    stray: u64,
}

impl Tally {
    /// Nothing yet.
    pub const fn new() -> Tally {
        Tally { open: None, intervals: Vec::new(), stray: 0 }
    }

    /// A mark is passed when so much has been counted.
    pub fn pass(&mut self, mark: Mark, now: Counts) {
        match (mark, self.open) {
            (Mark::Begin, None) => self.open = Some(now),
            (Mark::End, Some(start)) => {
                self.intervals.push(now - start);
                self.open = None;
            }
            (Mark::Begin, Some(_)) | (Mark::End, None) => self.stray += 1,
        }
    }

    /// The whole, at the end of the run.
    pub fn finish(&self, now: Counts) -> Profile {
        let stray = self.stray + u64::from(self.open.is_some());
        Profile { intervals: self.intervals.clone(), total: now, stray }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(kernel: u64, user: u64) -> Counts {
        Counts { kernel, user }
    }

    #[test]
    fn intervals_are_differences() {
        let mut tally = Tally::new();
        tally.pass(Mark::Begin, counts(100, 10));
        tally.pass(Mark::End, counts(160, 13));
        tally.pass(Mark::Begin, counts(200, 20));
        tally.pass(Mark::End, counts(200, 21));
        let profile = tally.finish(counts(300, 30));
        assert_eq!(profile.intervals, [counts(60, 3), counts(0, 1)]);
        assert_eq!((profile.total, profile.stray), (counts(300, 30), 0));
    }

    #[test]
    fn marks_without_a_partner_are_counted() {
        let mut tally = Tally::new();
        for mark in [Mark::End, Mark::Begin, Mark::Begin, Mark::End, Mark::Begin] {
            tally.pass(mark, Counts::default());
        }
        let profile = tally.finish(Counts::default());
        assert_eq!((profile.intervals.len(), profile.stray), (1, 3));
    }

    #[test]
    fn a_profile_is_read_as_it_was_written() {
        let profile = Profile { intervals: vec![counts(60, 3)], total: counts(300, 30), stray: 0 };
        let json = profile.to_json();
        assert_eq!(json, r#"{"intervals":[{"kernel":60,"user":3}],"total":{"kernel":300,"user":30},"stray":0}"#);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        std::fs::write(&path, json).unwrap();
        assert_eq!(Profile::read(&path).unwrap(), profile);
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        let refused = || Profile::read(&path).unwrap_err().to_string();
        assert!(refused().contains("ran without the plugin"), "{}", refused());
        std::fs::write(&path, r#"{"intervals":[{"kernel":-1}]}"#).unwrap();
        assert!(refused().contains("holds no counts"), "{}", refused());
        std::fs::write(&path, Profile { stray: 2, ..Profile::default() }.to_json()).unwrap();
        assert!(refused().contains("2 marks"), "{}", refused());
    }
}
