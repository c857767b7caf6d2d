//! The modelled processor: caches for code, for data and for both, and a TLB for code, each CPU its own.

use crate::block::{Block, PAGE};
use crate::cache::{Cache, Geometry};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ops::Range;

/// Sizes of all that is modelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// The first-level cache for code.
    pub l1i: Geometry,
    /// The first-level cache for data.
    pub l1d: Geometry,
    /// The second-level cache.
    pub l2: Geometry,
    /// The TLB for code, of pages of 4 KiB.
    pub itlb: Geometry,
    /// The TLB for code of pages of 2 MiB, which hold the kernel's own text.
    pub itlb_large: Geometry,
}

impl Default for Model {
    /// As a server core of 2023 has them: 32 KiB in 8 ways, 48 KiB in 12, 2 MiB in 16, 128 entries in 8 and 16 in 16.
    fn default() -> Model {
        let geometry = |lines, ways| match Geometry::new(lines, ways) {
            Ok(geometry) => geometry,
            Err(reason) => unreachable!("{reason}"),
        };
        Model {
            l1i: geometry(512, 8),
            l1d: geometry(768, 12),
            l2: geometry(32768, 16),
            itlb: geometry(128, 8),
            itlb_large: geometry(16, 16),
        }
    }
}

/// What was not where it was looked for first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misses {
    /// Lines of code that were not in the first level.
    pub l1i: u64,
    /// Lines of data that were not.
    pub l1d: u64,
    /// Of both, those that were not in the second level either.
    pub l2: u64,
    /// Pages of code that the TLBs did not know.
    pub itlb: u64,
}

/// Where the kernel's own text is mapped with pages of 2 MiB; modules begin at its end.
const LARGE: Range<u64> = 0xffff_ffff_8000_0000..0xffff_ffff_c000_0000;
const LARGE_PAGE: u64 = 2 << 20;

/// No line and no page has this number.
const NOTHING: u64 = u64::MAX;

/// Pages of 2 MiB have numbers with this bit, others have not.
const LARGE_NUMBER: u64 = 1 << 63;

/// Pages that the data side remembers where they are.
const REMEMBERED: usize = 512;

/// In the second level, code has numbers of its own: the interface says where code lies in the host and where data lies in
/// the guest, and not how the two belong together.
const CODE: u64 = 1 << 63;

/// A page of code as the TLB knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Page {
    index: u64,
    identity: u64,
    large: bool,
}

/// A part of a block that lies in one page.
#[derive(Debug, Clone, Copy)]
struct Part {
    page: Page,
    /// The first line, and behind the last one.
    lines: (u64, u64),
}

/// What a block needs before it runs; the translator lets it lie in two pages at most.
#[derive(Debug, Clone, Copy, Default)]
pub struct Footprint {
    first: Option<Part>,
    second: Option<Part>,
}

/// Gives pages of code their numbers: the same address can be another page in another process.
#[derive(Debug, Default)]
pub struct Pages {
    numbers: HashMap<(u64, u64), u64>,
}

impl Pages {
    /// Lines and pages of a block.
    pub fn footprint(&mut self, block: &Block) -> Footprint {
        let mut address = block.address;
        let mut part = |(start, end): &(u64, u64)| {
            let page = self.page(address, start / PAGE);
            address = address.wrapping_add(end - start);
            Part { page, lines: (start / Geometry::LINE, end.div_ceil(Geometry::LINE)) }
        };
        let mut ranges = block.ranges.iter();
        Footprint { first: ranges.next().map(&mut part), second: ranges.next().map(&mut part) }
    }

    fn page(&mut self, address: u64, host: u64) -> Page {
        if LARGE.contains(&address) {
            let index = address / LARGE_PAGE;
            return Page { index, identity: index | LARGE_NUMBER, large: true };
        }
        let index = address / PAGE;
        let next = self.numbers.len() as u64;
        Page { index, identity: *self.numbers.entry((index, host)).or_insert(next), large: false }
    }
}

/// Numbers of the units of `size` bytes that a range of bytes touches.
pub fn units((start, end): (u64, u64), size: u64) -> impl Iterator<Item = u64> {
    start / size..end.div_ceil(size)
}

/// One CPU's caches.
#[derive(Debug)]
pub struct Core {
    l1i: Cache,
    l1d: Cache,
    l2: Cache,
    itlb: Cache,
    itlb_large: Cache,
    /// The page and the line of code, and the line of data by its address, that were used last: they are there.
    last_page: u64,
    last_code: u64,
    last_data: u64,
    /// Where pages of data are, by the lowest bits of their number.
    remembered: Vec<(u64, u64)>,
}

impl Core {
    /// Empty ones.
    pub fn new(model: &Model) -> Core {
        Core {
            l1i: Cache::new(model.l1i),
            l1d: Cache::new(model.l1d),
            l2: Cache::new(model.l2),
            itlb: Cache::new(model.itlb),
            itlb_large: Cache::new(model.itlb_large),
            last_page: NOTHING,
            last_code: NOTHING,
            last_data: NOTHING,
            remembered: vec![(NOTHING, 0); REMEMBERED],
        }
    }

    /// A block is fetched.
    #[inline]
    pub fn fetch(&mut self, footprint: &Footprint, misses: &mut Misses) {
        if let Some(part) = &footprint.first {
            self.part(part, misses);
        }
        if let Some(part) = &footprint.second {
            self.part(part, misses);
        }
    }

    #[inline]
    fn part(&mut self, Part { page, lines: (first, end) }: &Part, misses: &mut Misses) {
        if page.identity != self.last_page {
            self.last_page = page.identity;
            let tlb = if page.large { &mut self.itlb_large } else { &mut self.itlb };
            misses.itlb += u64::from(!tlb.hit_in(page.index, page.identity));
        }
        for line in *first..*end {
            if line != self.last_code {
                self.code(line, misses);
            }
        }
    }

    fn code(&mut self, line: u64, misses: &mut Misses) {
        self.last_code = line;
        if !self.l1i.hit(line) {
            misses.l1i += 1;
            misses.l2 += u64::from(!self.l2.hit_in(line, line | CODE));
        }
    }

    /// Data is read or written; `physical` says where a virtual address lies, and nothing for a device.
    pub fn access(&mut self, address: u64, size: u64, physical: impl FnOnce() -> Option<u64>, misses: &mut Misses) {
        let last = address.saturating_add(size.saturating_sub(1));
        let crosses = last / Geometry::LINE != address / Geometry::LINE;
        if !crosses && address / Geometry::LINE == self.last_data {
            return;
        }
        let Some(place) = self.place(address, physical) else { return };
        self.data(place / Geometry::LINE, misses);
        self.last_data = if crosses { NOTHING } else { address / Geometry::LINE };
        if !crosses {
            return;
        }
        let (start, line) = (last & !(Geometry::LINE - 1), last / Geometry::LINE);
        if start / PAGE == address / PAGE {
            self.data((place - place % PAGE + start % PAGE) / Geometry::LINE, misses);
        } else if let Some(there) = self.remembered(line * Geometry::LINE) {
            self.data(there / Geometry::LINE, misses);
        }
    }

    /// Addresses may be mapped otherwise from now on.
    pub fn remap(&mut self) {
        self.remembered.fill((NOTHING, 0));
        self.last_data = NOTHING;
    }

    fn data(&mut self, line: u64, misses: &mut Misses) {
        if !self.l1d.hit(line) {
            misses.l1d += 1;
            misses.l2 += u64::from(!self.l2.hit(line));
        }
    }

    fn place(&mut self, address: u64, physical: impl FnOnce() -> Option<u64>) -> Option<u64> {
        if let Some(place) = self.remembered(address) {
            return Some(place);
        }
        let place = physical()?;
        let page = address / PAGE;
        if let Some(slot) = self.remembered.get_mut(page as usize % REMEMBERED) {
            *slot = (page, place & !(PAGE - 1));
        }
        Some(place)
    }

    fn remembered(&self, address: u64) -> Option<u64> {
        let page = address / PAGE;
        let (there, place) = *self.remembered.get(page as usize % REMEMBERED)?;
        (there == page).then_some(place + address % PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core() -> Core {
        Core::new(&Model::default())
    }

    /// Reads eight bytes at each address, which lie where they are.
    fn read(core: &mut Core, addresses: impl IntoIterator<Item = u64>) -> Misses {
        let mut misses = Misses::default();
        for address in addresses {
            core.access(address, 8, || Some(address), &mut misses);
        }
        misses
    }

    #[test]
    fn a_walk_misses_once_a_line() {
        let mut core = core();
        let walk = || (0..16 << 10).step_by(8);
        assert_eq!(read(&mut core, walk()), Misses { l1d: 256, l2: 256, ..Misses::default() });
        assert_eq!(read(&mut core, walk()), Misses::default());
    }

    #[test]
    fn more_than_the_first_level_comes_from_the_second() {
        let mut core = core();
        let walk = || (0..1 << 20).step_by(64);
        assert_eq!(read(&mut core, walk()).l2, 16384);
        assert_eq!(read(&mut core, walk()), Misses { l1d: 16384, ..Misses::default() });
    }

    #[test]
    fn thirteen_lines_of_a_set_do_not_fit_twelve_ways() {
        let mut core = core();
        let round = |lines: u64| (0..lines).map(|n| n * 4096);
        read(&mut core, round(12));
        assert_eq!(read(&mut core, round(12)).l1d, 0);
        read(&mut core, round(13));
        assert_eq!(read(&mut core, round(13)), Misses { l1d: 13, ..Misses::default() });
    }

    #[test]
    fn an_access_across_lines_needs_both() {
        let mut core = core();
        assert_eq!(read(&mut core, [60]).l1d, 2);
        assert_eq!(read(&mut core, [56, 64]).l1d, 0);
        // Across pages: the second one's place is known only if it was used before.
        assert_eq!(read(&mut core, [8192, 8188]).l1d, 2);
    }

    #[test]
    fn the_place_counts_and_not_the_address() {
        let mut core = core();
        let mut misses = Misses::default();
        let at = |place: u64| move || Some(place);
        core.access(0x1000, 8, at(0x9000), &mut misses);
        core.access(0x5000, 8, at(0x9000), &mut misses);
        assert_eq!(misses.l1d, 1, "the same line by another address");
        core.access(0x1000, 8, at(0x7000), &mut misses);
        assert_eq!(misses.l1d, 1, "remembered");
        core.remap();
        core.access(0x1000, 8, at(0x7000), &mut misses);
        assert_eq!(misses.l1d, 2);
        core.access(0x2000, 8, || None, &mut misses);
        assert_eq!(misses.l1d, 2, "a device");
    }

    fn block(address: u64, host: u64, size: u64) -> Block {
        Block { address, end: address + size, ranges: vec![(host, host + size)], ..Block::default() }
    }

    #[test]
    fn code_is_fetched_by_lines_and_pages() {
        let (mut core, mut pages) = (core(), Pages::default());
        let mut fetch = |block: Block| {
            let mut misses = Misses::default();
            core.fetch(&pages.footprint(&block), &mut misses);
            (misses.l1i, misses.l2, misses.itlb)
        };
        assert_eq!(fetch(block(0x40_1030, 0x7000_1030, 100)), (3, 3, 1));
        assert_eq!(fetch(block(0x40_1080, 0x7000_1080, 100)), (1, 1, 0), "two of its three lines are there");
        assert_eq!(fetch(block(0x40_1080, 0x7000_5080, 8)), (1, 1, 1), "another process, the same address");
        assert_eq!(fetch(block(0xffff_ffff_8100_0000, 0x7100_0000, 8)), (1, 1, 1));
        assert_eq!(fetch(block(0xffff_ffff_811f_f000, 0x711f_f000, 8)), (1, 1, 0), "the same 2 MiB");
        assert_eq!(fetch(block(0xffff_ffff_c010_0000, 0x7200_0000, 8)), (1, 1, 1));
        assert_eq!(fetch(block(0xffff_ffff_c010_1000, 0x7200_1000, 8)), (1, 1, 1), "modules have small pages");
    }

    #[test]
    fn the_tlb_has_its_entries() {
        let (mut core, mut pages) = (core(), Pages::default());
        let mut round = |count: u64| {
            let mut misses = Misses::default();
            for page in 0..count {
                core.fetch(&pages.footprint(&block(page << 12, page << 12, 4)), &mut misses);
            }
            misses.itlb
        };
        assert_eq!((round(128), round(128)), (128, 0));
        // One page more than fits puts nine into the first set.
        round(129);
        assert_eq!(round(129), 9);
    }
}
