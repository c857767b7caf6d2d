//! Places in the code that the kernel patches by itself.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// Why the kernel patches a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PatchKind {
    /// A branch that a static key switches: a jump or a NOP, of 2 or 5 bytes.
    StaticKey,
    /// A direct call, or tail call, whose target is replaced.
    StaticCall,
    /// The trampoline of a static call (`__SCT__…`), for callers that are not patched.
    StaticCallTrampoline,
    /// Instructions that are replaced when the processor has a feature.
    Alternative,
    /// A paravirtual operation that is replaced by the platform's.
    Paravirt,
    /// An indirect branch through a retpoline.
    Retpoline,
    /// A return through the return thunk.
    Return,
    /// A direct call that call-depth tracking redirects.
    Call,
    /// A `lock` prefix that one processor does without.
    LockPrefix,
    /// The call of the function tracer at a function's entry.
    Fentry,
    /// An `endbr64` that is removed because nobody takes the function's address.
    EndbrSeal,
    /// An operand that is written once at boot, such as a hash table's address.
    RuntimeConst,
}

impl fmt::Display for PatchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PatchKind::StaticKey => "static key",
            PatchKind::StaticCall => "static call",
            PatchKind::StaticCallTrampoline => "static call trampoline",
            PatchKind::Alternative => "alternative",
            PatchKind::Paravirt => "paravirt",
            PatchKind::Retpoline => "retpoline",
            PatchKind::Return => "return thunk",
            PatchKind::Call => "call thunk",
            PatchKind::LockPrefix => "lock prefix",
            PatchKind::Fentry => "fentry",
            PatchKind::EndbrSeal => "sealed endbr",
            PatchKind::RuntimeConst => "runtime constant",
        })
    }
}

/// One place that the kernel patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatchSite {
    /// The address of the first byte.
    pub address: u64,
    /// How many bytes may change.
    pub len: u32,
    /// Why.
    pub kind: PatchKind,
}

impl PatchSite {
    /// The addresses of the bytes that may change.
    pub fn range(&self) -> Range<u64> {
        self.address..self.address.saturating_add(u64::from(self.len))
    }

    fn overlaps(&self, range: &Range<u64>) -> bool {
        self.address < range.end && range.start < self.range().end
    }
}

/// A table that the image should have and that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnavailableTable {
    /// The name of the table's section.
    pub name: &'static str,
    /// What it lists.
    pub kind: PatchKind,
    /// Why it cannot be read.
    pub reason: String,
}

/// All places that the kernel patches, sorted by address. They may overlap: a lock prefix can lie in an alternative.
/// Records that say the same (an alternative with several replacements) count once.
#[derive(Clone, Debug, Default)]
pub struct PatchSites {
    sites: Vec<PatchSite>,
    /// For each site, the highest end of it and all before.
    reach: Vec<u64>,
    unavailable: Vec<UnavailableTable>,
}

impl PatchSites {
    pub(crate) fn new(mut sites: Vec<PatchSite>, unavailable: Vec<UnavailableTable>) -> PatchSites {
        sites.sort_unstable();
        sites.dedup();
        let mut reach = 0;
        let reach = sites
            .iter()
            .map(|site| {
                reach = reach.max(site.range().end);
                reach
            })
            .collect();
        PatchSites { sites, reach, unavailable }
    }

    /// All sites.
    pub fn all(&self) -> &[PatchSite] {
        &self.sites
    }

    /// The sites of one kind.
    pub fn of_kind(&self, kind: PatchKind) -> impl Iterator<Item = &PatchSite> {
        self.sites.iter().filter(move |site| site.kind == kind)
    }

    /// Exactly the sites that share a byte with `range`, sorted by address. Borrowed, unless a long site reaches over a
    /// short one that ends before the range.
    pub fn overlapping(&self, range: Range<u64>) -> Cow<'_, [PatchSite]> {
        if range.is_empty() {
            return Cow::Borrowed(&[]);
        }
        let start = self.reach.partition_point(|&reach| reach <= range.start);
        let end = self.sites.partition_point(|site| site.address < range.end);
        let slice = self.sites.get(start..end).unwrap_or_default();
        if slice.iter().all(|site| site.overlaps(&range)) {
            Cow::Borrowed(slice)
        } else {
            Cow::Owned(slice.iter().filter(|site| site.overlaps(&range)).copied().collect())
        }
    }

    /// The tables that this image has, or had, and that cannot be read; their places are not among the sites.
    pub fn unavailable(&self) -> &[UnavailableTable] {
        &self.unavailable
    }
}
