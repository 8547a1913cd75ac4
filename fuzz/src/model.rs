//! What LAYOUT.md says about the bytes of a segment, written down a second time and with nothing but a slice.

/// Bytes before the ring.
pub const HEADER: usize = 4096;
pub const TAIL: usize = 512;
pub const PRODUCER: usize = 640;
pub const PRODUCED: usize = 768;
pub const HEAD: usize = 896;
pub const CONSUMER: usize = 1024;
pub const CONSUMED: usize = 1152;
/// Behind the last word of the header.
pub const END: usize = 1280;

pub const CAPACITY: usize = 24;
pub const SEGMENT_ID: usize = 48;
pub const SCHEMA: usize = 56;
pub const SEM_ID: usize = 88;

pub const READY: u64 = 0x0065_7069_706d_6873;
pub const MAKING: u64 = 0x0065_6b61_6d6d_6873;
pub const WRAP: u64 = 0xffff_ffff;

/// The bytes of a whole segment at one moment.
#[derive(Clone, Default)]
pub struct Image(pub Vec<u8>);

impl Image {
    pub fn word(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.0[offset..offset + 8].try_into().expect("8 bytes"))
    }

    pub fn half(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.0[offset..offset + 4].try_into().expect("4 bytes"))
    }

    /// Writes as much of `bytes` as there is room for.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = self.0.len().min(offset + bytes.len());
        self.0[offset..end].copy_from_slice(&bytes[..end - offset]);
    }

    /// All that lies behind the header; the ring itself may be shorter.
    pub fn ring(&self) -> &[u8] {
        &self.0[HEADER..]
    }

    /// Whether the header is that of a complete pipe which this version can take part in.
    pub fn is_pipe(&self) -> bool {
        let capacity = self.word(CAPACITY);
        let name = self.half(100) as usize;
        self.word(0) == READY
            && self.half(8) == 1
            && self.half(12) == 0x0102_0304
            && self.word(16) == HEADER as u64
            && capacity.is_power_of_two()
            && (4096..=1 << 40).contains(&capacity)
            && capacity <= self.ring().len() as u64
            && self.word(32) == 0
            && (1..=3).contains(&self.half(92))
            && name <= 64
            && is_name(&self.0[104..104 + name])
    }
}

/// Whether a pipe may have this name, or has none.
fn is_name(name: &[u8]) -> bool {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || "/:".contains(c);
    std::str::from_utf8(name).is_ok_and(|name| !name.contains(is_bad) && !name.starts_with('-'))
}

/// What is found where a record is looked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Record { start: u64, end: u64, length: usize, tag: u32 },
    Corrupt,
}

/// The longest message of a ring.
pub fn longest(capacity: u64) -> u64 {
    capacity / 2 - 8
}

/// Bytes that a record takes.
pub fn size(length: u64) -> u64 {
    8 + length.div_ceil(8) * 8
}

/// The word of the ring at a position.
pub fn word_at(ring: &[u8], position: u64) -> u64 {
    let index = (position % ring.len() as u64) as usize;
    u64::from_ne_bytes(ring[index..index + 8].try_into().expect("8 bytes"))
}

/// Looks for a record at `at`, of which none may reach beyond `limit`, the last position of the read position's lap.
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
    // The word behind a record belongs to it until the next one is there.
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

/// Where a new producer goes on; nothing if the header or the ring is corrupt.
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

/// Whether the write position is where it can be: at most a lap behind the read position (a producer died before it
/// noted what a quick consumer has already released), at most a lap less one word ahead.
pub fn are_near(head: u64, tail: u64, capacity: u64) -> bool {
    let ahead = tail.wrapping_sub(head) as i64;
    -(capacity as i64) <= ahead && ahead <= capacity as i64 - 8
}
