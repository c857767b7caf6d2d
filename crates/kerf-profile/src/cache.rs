//! A cache as arithmetic: sets, ways, and which line goes when one more comes.

use std::fmt;
use std::str::FromStr;

/// The most ways, and the largest cache in lines, that are modelled.
const MOST_WAYS: u32 = 1024;
const MOST_LINES: u64 = 1 << 24;

/// The size of a cache: lines and ways. Reads as `SIZE/WAYS` with a size in bytes, which may end in K or M, of lines of 64 bytes;
/// of a TLB as `ENTRIES/WAYS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    sets: u64,
    ways: u32,
}

/// Why something is no cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no cache: {reason}")]
pub struct GeometryError {
    text: String,
    reason: &'static str,
}

impl Geometry {
    /// Bytes of a line.
    pub const LINE: u64 = 64;

    /// So many lines or entries, in so many ways.
    ///
    /// # Errors
    /// When the lines do not fill a number of sets that is a power of two.
    pub fn new(lines: u64, ways: u32) -> Result<Geometry, &'static str> {
        if ways == 0 || ways > MOST_WAYS {
            return Err("it needs between 1 and 1024 ways");
        }
        if lines > MOST_LINES {
            return Err("it is too large to be modelled");
        }
        let sets = lines / u64::from(ways);
        if !sets.is_power_of_two() || sets * u64::from(ways) != lines {
            return Err("the number of its sets must be a power of two: choose other ways, or another size");
        }
        Ok(Geometry { sets, ways })
    }

    /// Reads `SIZE/WAYS`, in units of so many bytes.
    fn read(text: &str, unit: u64) -> Result<Geometry, GeometryError> {
        let fail = |reason| GeometryError { text: text.to_owned(), reason };
        let shape = if unit == 1 { "write ENTRIES/WAYS, as 128/8" } else { "write SIZE/WAYS, as 32K/8" };
        let (size, ways) = text.split_once('/').ok_or_else(|| fail(shape))?;
        let (digits, factor) = match size.strip_suffix(['K', 'k']) {
            Some(digits) => (digits, 1 << 10),
            None => size.strip_suffix(['M', 'm']).map_or((size, 1), |digits| (digits, 1 << 20)),
        };
        let number: u64 = digits.parse().map_err(|_| fail(shape))?;
        let bytes = number.checked_mul(factor).ok_or_else(|| fail(shape))?;
        if !bytes.is_multiple_of(unit) {
            return Err(fail("its size is no multiple of a line's 64 bytes"));
        }
        Geometry::new(bytes / unit, ways.parse().map_err(|_| fail(shape))?).map_err(fail)
    }

    /// Reads the size of a TLB, `ENTRIES/WAYS`.
    ///
    /// # Errors
    /// When it is none, or the number of sets is no power of two.
    pub fn entries(text: &str) -> Result<Geometry, GeometryError> {
        Geometry::read(text, 1)
    }

    /// Lines or entries in all.
    pub fn lines(self) -> u64 {
        self.sets * u64::from(self.ways)
    }

    /// Lines that compete for a set.
    pub fn ways(self) -> u32 {
        self.ways
    }
}

impl FromStr for Geometry {
    type Err = GeometryError;

    fn from_str(text: &str) -> Result<Geometry, GeometryError> {
        Geometry::read(text, Geometry::LINE)
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.lines(), self.ways)
    }
}

/// A set-associative cache of numbered lines that throws out the one that was used least recently.
#[derive(Debug, Clone)]
pub struct Cache {
    mask: u64,
    ways: usize,
    /// The lines of one set after the other; within a set the one used last comes first.
    lines: Vec<u64>,
}

/// No line has this number.
const EMPTY: u64 = u64::MAX;

impl Cache {
    /// An empty one.
    pub fn new(geometry: Geometry) -> Cache {
        let lines = usize::try_from(geometry.lines()).unwrap_or(0);
        Cache { mask: geometry.sets - 1, ways: geometry.ways as usize, lines: vec![EMPTY; lines] }
    }

    /// Uses a line: tells whether it was there, and brings it in if it was not. The set is in the number's lowest bits.
    #[inline]
    pub fn hit(&mut self, line: u64) -> bool {
        self.hit_in(line, line)
    }

    /// As [`Cache::hit`] for a line whose set is chosen by another number than the one that it is known by.
    #[inline]
    pub fn hit_in(&mut self, index: u64, line: u64) -> bool {
        let start = (index & self.mask) as usize * self.ways;
        let Some(set) = self.lines.get_mut(start..start + self.ways) else { return false };
        // Everything in front of the line, or everything if it is not there, makes room by one place.
        let mut moved = line;
        for place in set {
            std::mem::swap(place, &mut moved);
            if moved == line {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn misses(cache: &mut Cache, lines: impl IntoIterator<Item = u64>) -> usize {
        lines.into_iter().filter(|line| !cache.hit(*line)).count()
    }

    /// 32 KiB in 8 ways: 64 sets.
    fn l1() -> Cache {
        Cache::new("32K/8".parse().unwrap())
    }

    #[test]
    fn sizes_are_read() {
        let read = |text: &str| text.parse::<Geometry>().map(|g| (g.lines(), g.ways()));
        assert_eq!(read("32K/8"), Ok((512, 8)));
        assert_eq!(read("48K/12"), Ok((768, 12)));
        assert_eq!(read("2M/16"), Ok((32768, 16)));
        assert_eq!(read("64/1"), Ok((1, 1)));
        assert_eq!(Geometry::entries("128/8").map(|g| (g.lines(), g.ways())), Ok((128, 8)));
        for bad in [
            "",
            "32K",
            "32K/",
            "/8",
            "0/8",
            "32K/0",
            "33K/8",
            "100/1",
            "32K/9",
            "1G/8",
            "999999999999M/8",
            "-1/1",
            "64M/4096",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let said = "32K/9".parse::<Geometry>().unwrap_err().to_string();
        assert!(said.contains("power of two"), "{said}");
    }

    #[test]
    fn what_fits_is_missed_once() {
        let mut cache = l1();
        assert_eq!(misses(&mut cache, 0..512), 512);
        assert_eq!(misses(&mut cache, (0..512).chain(0..512)), 0);
    }

    #[test]
    fn one_line_more_than_fits_misses_in_its_set_alone() {
        let mut cache = l1();
        misses(&mut cache, 0..513);
        // Line 512 has thrown 0 out of set 0; going round, each of the nine throws out the next one.
        assert_eq!(misses(&mut cache, 0..513), 9);
    }

    #[test]
    fn the_least_recently_used_line_goes() {
        let mut cache = Cache::new(Geometry::new(2, 2).unwrap());
        assert_eq!(misses(&mut cache, [1, 2, 1, 3]), 3, "3 takes the place of 2");
        assert!(cache.hit(1));
        assert!(!cache.hit(2));
        assert!(!cache.hit(3));
    }

    #[test]
    fn a_stride_of_the_sets_uses_one_set() {
        let mut cache = l1();
        let stride = |count: u64| (0..count).map(|n| n * 64);
        misses(&mut cache, stride(8));
        assert_eq!(misses(&mut cache, stride(8)), 0);
        misses(&mut cache, stride(9));
        assert_eq!(misses(&mut cache, stride(9)), 9);
    }

    /// The same as slow and plain as can be: each line with the time of its last use.
    struct Reference {
        sets: u64,
        ways: usize,
        there: Vec<(u64, usize)>,
    }

    impl Reference {
        fn hit(&mut self, line: u64, now: usize) -> bool {
            if let Some((_, used)) = self.there.iter_mut().find(|(there, _)| *there == line) {
                *used = now;
                return true;
            }
            let rivals = || self.there.iter().filter(|(there, _)| there % self.sets == line % self.sets);
            if rivals().count() == self.ways {
                let oldest = rivals().min_by_key(|(_, used)| *used).map(|(there, _)| *there);
                self.there.retain(|(there, _)| Some(*there) != oldest);
            }
            self.there.push((line, now));
            false
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_one(
            bits in 0u32..5,
            ways in 1u32..7,
            lines in proptest::collection::vec(0u64..200, 0..400),
        ) {
            let sets = 1u64 << bits;
            let mut cache = Cache::new(Geometry::new(sets * u64::from(ways), ways).unwrap());
            let mut reference = Reference { sets, ways: ways as usize, there: Vec::new() };
            for (now, line) in lines.into_iter().enumerate() {
                prop_assert_eq!(cache.hit(line), reference.hit(line, now), "access {} to {}", now, line);
            }
        }
    }
}
