//! Counts of a run: what the plugin gathers, and the JSON file in which it hands that over.

use crate::error::ProfileError;
use crate::model::Misses;
use serde::{Deserialize, Serialize};
use std::ops::{AddAssign, Sub};
use std::path::Path;

/// A number of the kernel and one of everything else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Of the kernel: at addresses in the upper half.
    pub kernel: u64,
    /// Of everything else.
    pub user: u64,
}

impl Counts {
    /// The kernel's number, or the other one.
    pub fn of_mut(&mut self, kernel: bool) -> &mut u64 {
        if kernel { &mut self.kernel } else { &mut self.user }
    }

    /// Both together.
    pub fn sum(self) -> u64 {
        self.kernel.saturating_add(self.user)
    }
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(self, earlier: Counts) -> Counts {
        Counts { kernel: self.kernel.wrapping_sub(earlier.kernel), user: self.user.wrapping_sub(earlier.user) }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Counts) {
        self.kernel = self.kernel.wrapping_add(more.kernel);
        self.user = self.user.wrapping_add(more.user);
    }
}

/// What happened between two marks. All processes and interrupts count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// What its mark calls it; empty for one without a name.
    pub name: String,
    /// Executed instructions.
    pub instructions: Counts,
    /// Executed instructions that end a straight run: branches, calls, returns, system calls and the like, taken or not.
    pub blocks: Counts,
    /// Block by block, where the plugin was told to keep blocks apart; in the order of [`Profile::blocks`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Row>,
    /// Where control went, where the plugin was told to follow it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<Edge>,
}

/// What a block did in an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 8]", into = "[u64; 8]")]
pub struct Row {
    /// Position in [`Profile::blocks`].
    pub block: u64,
    /// Executed instructions.
    pub instructions: u64,
    /// How often it came to its end; 0 if it does not end with a branch.
    pub ends: u64,
    /// How often that went elsewhere than to what follows.
    pub taken: u64,
    /// Misses of the modelled caches.
    pub misses: Misses,
}

impl From<[u64; 8]> for Row {
    fn from([block, instructions, ends, taken, l1i, l1d, l2, itlb]: [u64; 8]) -> Row {
        Row { block, instructions, ends, taken, misses: Misses { l1i, l1d, l2, itlb } }
    }
}

impl From<Row> for [u64; 8] {
    fn from(Row { block, instructions, ends, taken, misses }: Row) -> [u64; 8] {
        [block, instructions, ends, taken, misses.l1i, misses.l1d, misses.l2, misses.itlb]
    }
}

/// Control went from the end of one block to the start of another so many times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 3]", into = "[u64; 3]")]
pub struct Edge {
    /// Position of the first in [`Profile::blocks`].
    pub from: u64,
    /// Position of the second.
    pub to: u64,
    /// How often.
    pub count: u64,
}

impl From<[u64; 3]> for Edge {
    fn from([from, to, count]: [u64; 3]) -> Edge {
        Edge { from, to, count }
    }
}

impl From<Edge> for [u64; 3] {
    fn from(edge: Edge) -> [u64; 3] {
        [edge.from, edge.to, edge.count]
    }
}

/// A block of code that was executed. Code that was patched is another block at the same address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its first instruction.
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Where its bytes lie, as ranges that say nothing but whether two blocks share a line or a page.
    pub ranges: Vec<(u64, u64)>,
}

impl Place {
    /// Whether it is the kernel's: in the upper half of the addresses.
    pub fn is_kernel(&self) -> bool {
        self.address >> 63 != 0
    }
}

/// What the plugin has counted in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Between each pair of marks, in the order in which they were passed.
    pub intervals: Vec<Interval>,
    /// Between the marks around the whole run, if they were passed.
    #[serde(default)]
    pub whole: Option<Interval>,
    /// Instructions from the machine's start to its end, without the marks.
    pub total: Counts,
    /// Marks that begin an interval while one is open or end one while none is.
    pub stray: u64,
    /// The code that rows and edges are about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<Place>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        let row =
            Row { block: 0, instructions: 60, ends: 20, taken: 19, misses: Misses { l1d: 1, ..Misses::default() } };
        Profile {
            intervals: vec![Interval {
                name: "a".into(),
                instructions: Counts { kernel: 60, user: 3 },
                blocks: Counts { kernel: 20, user: 1 },
                rows: vec![row],
                edges: vec![Edge { from: 0, to: 0, count: 19 }],
            }],
            total: Counts { kernel: 300, user: 30 },
            blocks: vec![Place { address: 1 << 63, size: 8, ranges: vec![(4096, 4104)] }],
            ..Profile::default()
        }
    }

    #[test]
    fn a_profile_is_read_as_it_was_written() {
        let profile = profile();
        let json = profile.to_json();
        assert!(json.contains(r#""rows":[[0,60,20,19,0,1,0,0]],"edges":[[0,0,19]]"#), "{json}");
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
