//! What LAYOUT.md says about the bytes of a segment, written a second time over a plain slice.

use shmpipe_testing::layout::{READY, RING, WRAP, identity, ready};

/// The bytes of a segment at one moment.
#[derive(Clone, Default)]
pub struct Image(pub Vec<u8>);

impl Image {
    pub fn word(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.0[offset..offset + 8].try_into().expect("8 bytes"))
    }

    pub fn half(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.0[offset..offset + 4].try_into().expect("4 bytes"))
    }

    /// Writes as much of `bytes` as fits.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = self.0.len().min(offset + bytes.len());
        self.0[offset..end].copy_from_slice(&bytes[..end - offset]);
    }

    /// All bytes behind the header. The ring itself may be shorter.
    pub fn ring(&self) -> &[u8] {
        &self.0[RING..]
    }

    /// Whether the state of a side has the last epoch, so that no claim can follow.
    pub fn is_out_of_epochs(&self, side: usize) -> bool {
        self.word(side) >> 2 == u64::MAX >> 2
    }

    /// Whether a pipe with this header has two directions: a second header and ring behind the first.
    pub fn is_duplex(&self) -> bool {
        self.word(identity::FEATURES) == 1
    }

    /// Whether the header is that of a complete pipe of this version.
    pub fn is_pipe(&self) -> bool {
        let capacity = self.word(identity::CAPACITY);
        let name = self.half(identity::NAME_LENGTH) as usize;
        self.word(READY) == ready::COMPLETE
            && self.half(identity::LAYOUT_VERSION) == 2
            && self.half(identity::BYTE_ORDER) == identity::NATIVE_ORDER
            && self.word(identity::HEADER_SIZE) == RING as u64
            && capacity.is_power_of_two()
            && (4096..=1 << 40).contains(&capacity)
            && self.word(identity::FEATURES) <= 1
            && (RING as u64 + capacity) * if self.is_duplex() { 2 } else { 1 } <= self.0.len() as u64
            && (1..=3).contains(&self.half(identity::WAKE_MODE))
            && name <= 64
            && is_name(&self.0[identity::NAME..identity::NAME + name])
    }
}

/// Whether a pipe may have this name, which is empty for a pipe without a name.
fn is_name(name: &[u8]) -> bool {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || "/:".contains(c);
    std::str::from_utf8(name).is_ok_and(|name| !name.contains(is_bad) && !name.starts_with('-'))
}

/// What a peek finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Record { start: u64, end: u64, length: usize, tag: u32 },
    Corrupt,
}

/// The length of the longest message.
pub fn longest(capacity: u64) -> u64 {
    capacity / 2 - 8
}

/// The size of a record.
pub fn size(length: u64) -> u64 {
    8 + length.div_ceil(8) * 8
}

/// The word of the ring at a position.
pub fn word_at(ring: &[u8], position: u64) -> u64 {
    let index = (position % ring.len() as u64) as usize;
    u64::from_ne_bytes(ring[index..index + 8].try_into().expect("8 bytes"))
}

/// Peeks at `at`. No record may end after `limit`, which is one lap after the head.
pub fn look(ring: &[u8], at: u64, limit: u64) -> Found {
    let capacity = ring.len() as u64;
    let mut word = word_at(ring, at);
    let mut start = at;
    if word == 0 {
        return Found::Nothing;
    }
    if word == WRAP {
        let skipped = capacity - at % capacity;
        if skipped >= capacity / 2 {
            return Found::Corrupt;
        }
        start = at.wrapping_add(skipped);
        word = word_at(ring, start);
    }
    let length = u64::from((word as u32).wrapping_sub(1));
    let end = start.wrapping_add(size(length));
    if length > longest(capacity) || start % capacity + size(length) > capacity {
        return Found::Corrupt;
    }
    // The word behind a record counts as part of it until the next record exists.
    if limit.wrapping_sub(end) as i64 - 8 < 0 {
        return Found::Corrupt;
    }
    Found::Record { start, end, length: length as usize, tag: (word >> 32) as u32 }
}

/// The bytes of the message in the record at `start`.
pub fn payload(ring: &[u8], start: u64, length: usize) -> &[u8] {
    let index = (start % ring.len() as u64) as usize + 8;
    &ring[index..index + length]
}

/// The recovered tail. None if header or ring is corrupt.
pub fn last_commit(ring: &[u8], head: u64, tail: u64) -> Option<u64> {
    let capacity = ring.len() as u64;
    if head % 8 != 0 || tail % 8 != 0 || !are_near(head, tail, capacity) {
        return None;
    }
    let mut at = if tail.wrapping_sub(head) as i64 > 0 { tail } else { head };
    loop {
        match look(ring, at, head.wrapping_add(capacity)) {
            Found::Nothing => return Some(at),
            Found::Record { end, .. } => at = end,
            Found::Corrupt => return None,
        }
    }
}

/// Whether the tail has a valid distance from the head: at most a lap behind (a producer died before it stored the tail, and a quick
/// consumer has released its records), and at most a lap less one word ahead.
pub fn are_near(head: u64, tail: u64, capacity: u64) -> bool {
    let ahead = tail.wrapping_sub(head) as i64;
    -(capacity as i64) <= ahead && ahead <= capacity as i64 - 8
}
