//! A seeded generator of 64-bit words (splitmix64): the same seed gives both processes the same words.

/// The increment of the state: 2^64 divided by the golden ratio, made odd.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The splitmix64 generator.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator whose words are determined by `seed`.
    pub fn new(seed: u64) -> SplitMix64 {
        SplitMix64(seed)
    }

    /// The next word.
    pub fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number in `0..bound`, with a bias below `bound / 2^64`. A bound of 0 gives 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_word()) * u128::from(bound)) >> 64) as u64
    }

    /// Shuffles `items` (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_match_the_published_algorithm() {
        // first words of splitmix64 for the seed 1234567, as other implementations print them
        let mut words = SplitMix64::new(1234567);
        assert_eq!(words.next_word(), 6457827717110365317);
        assert_eq!(words.next_word(), 3203168211198807973);
        assert_eq!(words.next_word(), 9817491932198370423);
    }

    #[test]
    fn below_stays_below_and_reaches_every_number() {
        let mut words = SplitMix64::new(7);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[words.below(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(words.below(0), 0);
    }

    #[test]
    fn shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..50).collect();
        SplitMix64::new(3).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
