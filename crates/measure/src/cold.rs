//! Slices that start with the memory of their messages outside the near caches.

use std::fs;
use std::hint::black_box;

/// Bytes of a cache line; on machines whose lines are longer some are read twice.
const LINE: usize = 64;
/// Reads this many times the memory that the caches hold, since they do not evict exactly the least recently used lines.
const TIMES: usize = 4;
/// The most bytes of a record besides its message: header, padding and its share of an unused end.
const OVERHEAD: usize = 24;
/// The size of the caches where the system does not provide it.
const UNKNOWN: usize = 2 << 20;

/// Memory to read, so that nothing else stays in the level 1 and level 2 caches of the reading processor.
///
/// Evicted lines go to the last-level cache, if there is one, or to memory, depending on its size and other users. So "cold"
/// means that each line of the ring comes from there, not from the other processor's private cache. A slice never laps the
/// ring, which would make it warm.
pub(crate) struct Flood {
    memory: Vec<[u64; LINE / 8]>,
}

impl Flood {
    /// Allocates no memory until it is needed.
    pub(crate) const fn new() -> Flood {
        Flood { memory: Vec::new() }
    }

    /// Reads it all.
    pub(crate) fn run(&mut self) {
        if self.memory.is_empty() {
            // not zero, or all pages could be the kernel's zero page
            self.memory = vec![[1; LINE / 8]; TIMES * near_caches() / LINE];
        }
        let sum = self.memory.iter().fold(0_u64, |sum, line| sum.wrapping_add(line[0]));
        black_box(sum);
    }
}

/// How many messages of `size` bytes fit one lap of a ring of `capacity` bytes, at least one.
pub(crate) fn lap(capacity: usize, size: usize) -> u64 {
    (capacity / (size + OVERHEAD)).max(1) as u64
}

/// Bytes of the largest cache that the processor's core does not share with other cores.
fn near_caches() -> usize {
    // SAFETY: no pointers. Returns -1 if the system does not know.
    let cpu = unsafe { libc::sched_getcpu() };
    let caches = (0..8).filter_map(|index| {
        let read = |file: &str| {
            fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/cache/index{index}/{file}")).ok()
        };
        let level: u32 = read("level")?.trim().parse().ok()?;
        (level <= 2).then(|| bytes(read("size")?.trim())).flatten()
    });
    caches.max().unwrap_or(UNKNOWN)
}

/// A size such as `1024K`.
fn bytes(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(['K', 'M']);
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        _ => return None,
    };
    Some(digits.parse::<usize>().ok()? * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_sizes_are_parsed() {
        assert_eq!(bytes("1024K"), Some(1 << 20));
        assert_eq!(bytes("2M"), Some(2 << 20));
        assert_eq!(bytes("512"), Some(512));
        assert_eq!(bytes("12KK"), None);
        assert_eq!(bytes("x"), None);
    }

    #[test]
    fn more_memory_is_read_than_the_caches_hold() {
        let mut flood = Flood::new();
        flood.run();
        assert!(flood.memory.len() * LINE >= TIMES * (16 << 10), "{} lines", flood.memory.len());
    }

    #[test]
    fn lap_fits_the_ring() {
        assert_eq!(lap(1 << 20, 65536 - OVERHEAD), 16);
        assert_eq!(lap(4096, 1 << 20), 1);
        assert!(lap(4096, 8) * (8 + 16) <= 4096);
    }
}
