//! Chooses words to change, and values.

use shmpipe::Role;
use shmpipe_testing::layout::{CONSUMED, CONSUMER, HEAD, PRODUCED, PRODUCER, RING, TAIL, WRAP};
use shmpipe_testing::raw::Attached;
use shmpipe_testing::rng::Rng;

/// A word and its new value.
pub struct Spot {
    pub offset: usize,
    pub word: u64,
}

impl Spot {
    /// Mostly chooses words that `victim` reads.
    pub fn choose(segment: &Attached, victim: Role, rng: &mut Rng) -> Spot {
        let size = segment.size() / 8 * 8;
        let capacity = (size - RING) as u64;
        let (head, tail) = (segment.get(HEAD), segment.get(TAIL));
        let in_ring = |position: u64| RING + (position % capacity) as usize / 8 * 8;
        let near = |position: u64, rng: &mut Rng| in_ring(position.wrapping_add(rng.below(6) * 8));
        let (positions, line, counters) = match victim {
            Role::Consumer => ([head, tail], [PRODUCER, CONSUMER], PRODUCED),
            Role::Producer => ([tail, head], [CONSUMER, PRODUCER], CONSUMED),
        };
        let offset = match rng.below(20) {
            0..7 => near(positions[0], rng),
            7..9 => near(positions[1], rng),
            9..11 => in_ring(rng.word()),
            11 => RING,
            12..15 if victim == Role::Producer => HEAD,
            12..15 => TAIL,
            15 => [HEAD, TAIL][rng.below(2) as usize],
            // The states less often: a peer that seems to have ended ends the round.
            16 => line[0] + 8 * rng.below(5) as usize,
            17 => line[1] + 8 + 8 * rng.below(4) as usize,
            18 => counters + 8 * rng.below(5) as usize,
            _ => 8 * rng.below(64) as usize,
        };
        let now = segment.get(offset);
        let length = rng.log_uniform(2 * capacity);
        let word = match rng.below(16) {
            0 => now.wrapping_add(8),
            1 => now.wrapping_sub(8),
            2 => now ^ 1 << rng.below(64),
            3 => 0,
            4 => u64::MAX,
            5 => [1 << 31, 1 << 32, 1 << 63, (1 << 31) - 1, (1 << 63) - 8][rng.below(5) as usize],
            6 => WRAP,
            7 => [head, tail][rng.below(2) as usize],
            8 => [head, tail][rng.below(2) as usize]
                .wrapping_add(rng.below(2 * capacity))
                .wrapping_sub(capacity),
            9 => now.wrapping_add(capacity),
            10 => now.wrapping_sub(capacity),
            11 => rng.word(),
            12 => capacity / 2 - 8 + rng.below(17),
            // A plausible record.
            _ => rng.word() << 32 | (length + 1),
        };
        Spot { offset, word }
    }
}

/// Lays a trap for an end that follows records without a limit: wraps that lead to wraps, or records all around the ring.
pub fn lay_trap(segment: &Attached, rng: &mut Rng) {
    let capacity = segment.size() - RING;
    if rng.below(4) == 0 {
        let record = rng.below(64) + 1;
        (RING..RING + capacity).step_by(8).for_each(|offset| segment.set(offset, record));
    } else {
        segment.set(RING, WRAP);
        segment.set(RING + segment.get(HEAD) as usize % capacity / 8 * 8, WRAP);
    }
}

/// Restores an empty pipe, at a position where arithmetic can overflow. No end may be attached.
pub fn restore(segment: &Attached, fresh: &[u8], rng: &mut Rng) {
    let mut bytes = fresh.to_vec();
    if rng.below(2) == 0 {
        bytes[RING..].fill(0xff);
    }
    let position = [0, 1 << 32, 1 << 63, 0u64][rng.below(4) as usize].wrapping_sub(8 * rng.below(2048));
    for offset in [HEAD, TAIL] {
        bytes[offset..offset + 8].copy_from_slice(&position.to_ne_bytes());
    }
    let index = RING + (position % (bytes.len() - RING) as u64) as usize;
    bytes[index..index + 8].fill(0);
    segment.copy_from(0, &bytes);
}
