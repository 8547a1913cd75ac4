//! Slices that begin with their messages' memory out of the near caches.

use std::fs;
use std::hint::black_box;

/// Bytes of a cache line; on machines whose lines are longer some are read twice.
const LINE: usize = 64;
/// So many times as much memory as the caches hold is read, since what they keep is not exactly what was used last.
const TIMES: usize = 4;
/// What a record may have beside its message: header, padding and its share of an unused end.
const OVERHEAD: usize = 24;
/// Where the system does not tell how large the caches are.
const UNKNOWN: usize = 2 << 20;

/// Memory to be read through, so that nothing else stays in the level 1 and level 2 caches of the processor that reads.
///
/// What goes out of them goes into the last-level cache, if there is one, or to memory; which of the two depends on how large
/// that is and on who else uses it. So "cold" means that each line of the ring comes from there and not from the other
/// processor's own cache, for as long as the slice has not come around the ring: a slice never does.
pub(crate) struct Flood {
    memory: Vec<[u64; LINE / 8]>,
}

impl Flood {
    /// Takes no memory until it is needed.
    pub(crate) const fn new() -> Flood {
        Flood { memory: Vec::new() }
    }

    /// Reads it all.
    pub(crate) fn run(&mut self) {
        if self.memory.is_empty() {
            // not zero, or all pages might be the one page of zeros
            self.memory = vec![[1; LINE / 8]; TIMES * near_caches() / LINE];
        }
        let sum = self.memory.iter().fold(0_u64, |sum, line| sum.wrapping_add(line[0]));
        black_box(sum);
    }
}

/// Messages of `size` bytes that go through a ring of `capacity` without lapping it; one at least.
pub(crate) fn lap(capacity: usize, size: usize) -> u64 {
    (capacity / (size + OVERHEAD)).max(1) as u64
}

/// Bytes of the largest cache that the processor, or the core that it is part of, does not share with other cores.
fn near_caches() -> usize {
    // SAFETY: takes nothing; -1 if the system does not know.
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
    fn sizes_are_read_as_the_kernel_writes_them() {
        assert_eq!(bytes("1024K"), Some(1 << 20));
        assert_eq!(bytes("2M"), Some(2 << 20));
        assert_eq!(bytes("512"), Some(512));
        assert_eq!(bytes("12KK"), None);
        assert_eq!(bytes("x"), None);
    }

    #[test]
    fn more_is_read_than_the_caches_hold() {
        let mut flood = Flood::new();
        flood.run();
        assert!(flood.memory.len() * LINE >= TIMES * (16 << 10), "{} lines", flood.memory.len());
    }

    #[test]
    fn a_lap_fits_the_ring() {
        assert_eq!(lap(1 << 20, 65536 - OVERHEAD), 16);
        assert_eq!(lap(4096, 1 << 20), 1);
        assert!(lap(4096, 8) * (8 + 16) <= 4096);
    }
}
