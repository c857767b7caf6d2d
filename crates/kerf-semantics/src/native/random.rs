//! Seeded random numbers that favour the values at which arithmetic goes wrong.

/// The splitmix64 generator: small, seedable, the same everywhere.
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A register value: anything, something small, or an edge of some operand width.
    pub fn value(&mut self) -> u64 {
        match self.below(8) {
            0 | 1 => self.next(),
            2 => self.below(256),
            3 => self.below(64).wrapping_neg(),
            // Halves of different kinds, for what one operand width sees and the other does not.
            4 => (self.edge() << 32) | (self.edge() & 0xffff_ffff),
            5 => self.next() & self.edge(),
            _ => self.edge(),
        }
    }

    fn edge(&mut self) -> u64 {
        let power = 1u64 << self.below(64);
        match self.below(9) {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => power,
            4 => power - 1,
            5 => power.wrapping_neg(),
            6 => [0x80, 0x8000, 0x8000_0000, 1 << 63][self.below(4) as usize],
            7 => [0x7f, 0x7fff, 0x7fff_ffff, u64::MAX >> 1][self.below(4) as usize],
            _ => [0xff, 0xffff, 0xffff_ffff, 0xffff_ffff_0000_0000][self.below(4) as usize],
        }
    }
}
