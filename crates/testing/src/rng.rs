//! Reproducible random numbers: SplitMix64 (Sebastiano Vigna, public domain).

#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// A generator with a new seed, or with `SHMPIPE_SEED`. Prints the seed.
    pub fn of_this_run(what: &str) -> Self {
        let seed = std::env::var("SHMPIPE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            now.as_nanos() as u64 ^ (u64::from(std::process::id()) << 40)
        });
        eprintln!("{what}: SHMPIPE_SEED={seed}");
        Rng(seed)
    }

    /// The generator of part `number` of what `seed` gives.
    pub fn of_part(seed: u64, number: u64) -> Self {
        Rng(Rng(seed ^ Rng(number).word()).word())
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform from 0 to `end`, exclusive.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(end)) >> 64) as u64
    }

    /// From 0 to `max`, inclusive, with every binary order of magnitude equally likely.
    pub fn log_uniform(&mut self, max: u64) -> u64 {
        let bits = u64::from(64 - max.leading_zeros());
        let bits = self.below(bits + 1) as u32;
        let (low, high) = if bits == 0 { (0, 1) } else { (1 << (bits - 1), 1u64 << bits) };
        low + self.below(high.min(max + 1) - low)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.word().to_le_bytes()[..chunk.len()]);
        }
    }
}
