//! The segment layout for test tools, copied from LAYOUT.md and independent of the library. `tests/layout.rs` checks the
//! library against a copy of its own.
//!
//! Offsets count bytes from the start of the segment, those in [`side`] and [`counters`] from the start of their line.

/// `ready`, the first word.
pub const READY: usize = 0;
/// The producer's position.
pub const TAIL: usize = 512;
/// The producer's [`side`] line.
pub const PRODUCER: usize = 640;
/// The producer's [`counters`].
pub const PRODUCED: usize = 768;
/// The consumer's position.
pub const HEAD: usize = 896;
/// The consumer's [`side`] line.
pub const CONSUMER: usize = 1024;
/// The consumer's [`counters`].
pub const CONSUMED: usize = 1152;
/// The end of the consumer's counters. Zeros follow up to [`RING`], unless latency is measured.
pub const END: usize = 1280;
/// The ring, and so the size of the header.
pub const RING: usize = 4096;

/// The record word that sends the reader to the start of the ring.
pub const WRAP: u64 = 0xffff_ffff;

/// Values of `ready`.
pub mod ready {
    /// `shmpipe\0`
    pub const COMPLETE: u64 = 0x0065_7069_706d_6873;
    /// `shmmake\0`
    pub const INCOMPLETE: u64 = 0x0065_6b61_6d6d_6873;
}

/// The words of the identity.
pub mod identity {
    pub const LAYOUT_VERSION: usize = 8;
    pub const BYTE_ORDER: usize = 12;
    pub const HEADER_SIZE: usize = 16;
    pub const CAPACITY: usize = 24;
    pub const FEATURES: usize = 32;
    pub const HINTS: usize = 40;
    pub const SEGMENT_ID: usize = 48;
    pub const SCHEMA: usize = 56;
    pub const BOOT_ID: usize = 72;
    pub const SEM_ID: usize = 88;
    pub const WAKE_MODE: usize = 92;
    pub const NAME_LENGTH: usize = 100;
    pub const NAME: usize = 104;

    /// The value of `byte_order`.
    pub const NATIVE_ORDER: u32 = 0x0102_0304;
}

/// The words of a side.
pub mod side {
    pub const STATE: usize = 0;
    pub const EVENT_COUNT: usize = 8;
    pub const WAITER_EPOCH: usize = 12;
    pub const WAKE_THRESHOLD: usize = 16;
    pub const REPORTED: usize = 24;
    pub const ABORT_CODE: usize = 32;
    pub const CLAIM: usize = 40;
    /// Bytes of all of them.
    pub const SIZE: usize = 48;
}

/// The counters of a side.
pub mod counters {
    pub const MESSAGES: usize = 0;
    pub const BYTES: usize = 8;
    pub const HOLDER: usize = 32;
    /// The producer's alone.
    pub const DROPPED: usize = 40;
    pub const REACH: usize = 48;
    /// Bytes of all of them.
    pub const SIZE: usize = 56;
}

/// Numbers of the semaphores of a set.
pub mod semaphore {
    pub const INIT: u16 = 0;
    pub const PRESENCE: u16 = 1;
    pub const STAGE: u16 = 3;
    /// The first of the three that hold the identifier of the segment.
    pub const SEGMENT: u16 = 4;
    pub const ATTACHMENTS: u16 = 7;
    /// How many there are.
    pub const COUNT: usize = 8;
}

/// Values of the semaphore `STAGE`.
pub mod stage {
    pub const CREATING: u16 = 0x5a4d;
    pub const CREATED: u16 = 0x5a52;
}

/// The bytes of a file whose locks are roles.
pub mod lock {
    pub const GUESTS: i64 = 1;
    pub const PRODUCER: i64 = 2;
    pub const CONSUMER: i64 = 3;
    pub const REMOVER: i64 = 4;
}
