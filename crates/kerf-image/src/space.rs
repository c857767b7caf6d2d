//! Which section holds an address.

use crate::model::Section;

/// The sections that take up memory, in order of their addresses.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Start, end and index.
    ranges: Vec<(u64, u64, usize)>,
}

impl Space {
    pub(crate) fn new(sections: &[Section]) -> Space {
        let mut ranges: Vec<_> = sections
            .iter()
            .enumerate()
            .filter(|(_, section)| section.alloc && section.size > 0)
            .map(|(index, section)| (section.address, section.end(), index))
            .collect();
        ranges.sort_unstable();
        Space { ranges }
    }

    /// The index of the section that holds `address`.
    pub(crate) fn section_at(&self, address: u64) -> Option<usize> {
        let after = self.ranges.partition_point(|&(start, _, _)| start <= address);
        let &(_, end, index) = self.ranges.get(after.checked_sub(1)?)?;
        (address < end).then_some(index)
    }
}
