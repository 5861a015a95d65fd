//! Random numbers that a seed says all of.

/// SplitMix64: the same numbers on every machine and with every version of every library.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// All that follows from this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of a range that is not empty.
    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.any() % (range.end - range.start)
    }

    /// True once in so many times.
    pub fn one_in(&mut self, many: u64) -> bool {
        self.any().is_multiple_of(many)
    }

    /// One of these; there must be some.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.within(0..from.len() as u64) as usize]
    }
}
