//! The header of a segment, byte for byte. LAYOUT.md is its specification.

use crate::protocol::sync::{AtomicU32, AtomicU64, Futex, IS_MODEL, Ordering};

/// Version of the layout and of the meaning of its words.
/// The version of the segment's layout, which both ends must have in common: LAYOUT.md.
///
/// ```
/// println!("shmpipe {}, layout {}", env!("CARGO_PKG_VERSION"), shmpipe::LAYOUT_VERSION);
/// ```
pub const VERSION: u32 = 2;

/// Bytes from the start of the segment to the ring.
pub(crate) const HEADER: u64 = 4096;

/// Words of the identity, which starts at byte 8.
pub(crate) const IDENTITY_WORDS: usize = 63;

/// Bytes of the smallest and the largest ring.
pub(crate) const MIN_CAPACITY: u64 = 4096;
pub(crate) const MAX_CAPACITY: u64 = 1 << 40;

/// Gives words a pair of cache lines of their own: processors fetch lines in pairs.
///
/// 128 bytes on every target, because differently built programs share the segment. `crossbeam_utils::CachePadded`, whose size
/// depends on the target, is for private memory only.
#[repr(C, align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// The words of one side that change only when it sleeps, wakes, claims or closes. Of a side's lines, the other side loads only
/// this one for every message, so the load stays a cache hit.
#[repr(C)]
pub(crate) struct SideState {
    /// Epoch and phase of the side; see `liveness.rs`.
    pub(crate) state: AtomicU64,
    /// The event count that the *other* side sleeps on. The producer advances its own after a message, the consumer after a release.
    pub(crate) event_count: Futex,
    /// The waiter epoch of this side's latest sleep; odd while it may be asleep. See `wakeup.rs`.
    pub(crate) waiter_epoch: AtomicU32,
    /// The read position that a sleeping producer waits for; unused by the consumer.
    pub(crate) wake_threshold: AtomicU64,
    /// The epoch of the latest peer whose end this side has reported to its caller.
    pub(crate) reported: AtomicU64,
    /// The code of this side's latest abort, in the low half. It belongs to the epoch of a state that says aborted.
    pub(crate) abort_code: AtomicU64,
    /// Who holds this role of a System V pipe; 0 if it is free. Written by every process that claims it; see `sysv/claim_word.rs`.
    pub(crate) claim: AtomicU64,
}

/// What a side has done so far, for observers. The other side never loads these words.
#[repr(C)]
pub(crate) struct Counters {
    /// Messages committed, or released.
    pub(crate) messages: AtomicU64,
    /// Payload bytes of these messages.
    pub(crate) bytes: AtomicU64,
    /// Calls that had to wait: the producer's for space, the consumer's for data.
    pub(crate) waits: AtomicU64,
    /// Wake-ups sent to the other side.
    pub(crate) wakeups: AtomicU64,
    /// The process that claimed the role last: see `process::hint`.
    pub(crate) holder: AtomicU64,
    /// Messages that the producer did not send and counted as dropped, if the identity says that they are counted; unused by the
    /// consumer.
    pub(crate) dropped: AtomicU64,
    /// No byte of the ring at or after this position has been written yet in its lap: see `Ring::announce_write`. Unused by the
    /// consumer.
    pub(crate) reach: AtomicU64,
}

/// Stamps of crossings. Loom's models have one.
pub(crate) const STAMPS: usize = if IS_MODEL { 1 } else { 16 };

/// When a message was committed.
#[repr(C)]
pub(crate) struct Stamp {
    /// The position that it belongs to.
    pub(crate) position: AtomicU64,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) time: AtomicU64,
}

/// The stamps of a pipe that measures latency: see `latency.rs`. Written by the producer.
#[repr(C)]
pub(crate) struct Stamps {
    pub(crate) crossings: [Stamp; STAMPS],
    /// That of the commit which ended the consumer's last sleep, at the position where it began.
    pub(crate) wake_up: Stamp,
}

/// Buckets of the histogram of latencies. Loom's models have one.
pub(crate) const BUCKETS: usize = if IS_MODEL { 1 } else { 272 };

/// How long the stamped messages were under way, in nanoseconds. Written by the consumer.
#[repr(C)]
pub(crate) struct Latencies {
    pub(crate) counts: [AtomicU64; BUCKETS],
    pub(crate) max: AtomicU64,
    pub(crate) sum: AtomicU64,
}

impl Counters {
    pub(crate) fn messages(&self) -> u64 {
        // Relaxed: read only by the side that writes it, or by observers.
        self.messages.load(Ordering::Relaxed)
    }
}

/// Adds to a counter that only this side writes.
#[inline(always)]
pub(super) fn count(counter: &AtomicU64, more: u64) {
    // Relaxed: one writer, and it orders no other access.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// Counts one wait.
pub(crate) fn count_wait(counters: &Counters) {
    count(&counters.waits, 1);
}

/// Counts messages that were not sent.
pub(crate) fn count_dropped(counters: &Counters, messages: u64) {
    count(&counters.dropped, messages);
}

/// The header of a segment. Only the side that owns a word writes it.
///
/// ```text
///     0  ready, identity       written once by the creator
///   512  tail                  producer  hot: changes with every message
///   640  state, event count... producer  quiet
///   768  counters              producer
///   896  head                  consumer  hot
///  1024  state, event count... consumer  quiet
///  1152  counters              consumer
///  1280  stamps                producer  of a few messages, if latency is measured
///  1664  latencies             consumer  the same
///  3968  zero
///  4096  the ring, `capacity` bytes
/// ```
#[repr(C)]
pub(crate) struct Header {
    /// Marks the segment complete: written last.
    pub(crate) ready: AtomicU64,
    /// The segment's identity: see `identity.rs`.
    pub(crate) identity: [AtomicU64; IDENTITY_WORDS],
    /// The write position. It may lag behind the records that were committed: a hint for recovery and for observers, which the
    /// consumer does not poll.
    pub(crate) tail: Padded<AtomicU64>,
    pub(crate) producer: Padded<SideState>,
    pub(crate) produced: Padded<Counters>,
    /// The read position: everything before it was released.
    pub(crate) head: Padded<AtomicU64>,
    pub(crate) consumer: Padded<SideState>,
    pub(crate) consumed: Padded<Counters>,
    pub(crate) stamps: Padded<Stamps>,
    pub(crate) latencies: Padded<Latencies>,
}

// Loom's words have other sizes.
const _: () = if !IS_MODEL {
    use memoffset::offset_of;

    assert!(size_of::<Padded<SideState>>() == 128 && size_of::<Padded<Counters>>() == 128);
    assert!(size_of::<Header>() <= HEADER as usize);

    assert!(offset_of!(Header, ready) == 0);
    assert!(offset_of!(Header, identity) == 8);
    assert!(offset_of!(Header, tail) == 512);
    assert!(offset_of!(Header, producer) == 640);
    assert!(offset_of!(Header, produced) == 768);
    assert!(offset_of!(Header, head) == 896);
    assert!(offset_of!(Header, consumer) == 1024);
    assert!(offset_of!(Header, consumed) == 1152);
    assert!(offset_of!(Header, stamps) == 1280);
    assert!(offset_of!(Header, latencies) == 1664);
    assert!(offset_of!(Stamps, wake_up) == 256 && size_of::<Stamp>() == 16);
    assert!(offset_of!(Latencies, max) == 2176 && offset_of!(Latencies, sum) == 2184);

    assert!(offset_of!(SideState, state) == 0);
    assert!(offset_of!(SideState, event_count) == 8);
    assert!(offset_of!(SideState, waiter_epoch) == 12);
    assert!(offset_of!(SideState, wake_threshold) == 16);
    assert!(offset_of!(SideState, reported) == 24);
    assert!(offset_of!(SideState, abort_code) == 32);
    assert!(offset_of!(SideState, claim) == 40);

    assert!(offset_of!(Counters, messages) == 0);
    assert!(offset_of!(Counters, bytes) == 8);
    assert!(offset_of!(Counters, waits) == 16);
    assert!(offset_of!(Counters, wakeups) == 24);
    assert!(offset_of!(Counters, holder) == 32);
    assert!(offset_of!(Counters, dropped) == 40);
    assert!(offset_of!(Counters, reach) == 48);
};

#[cfg(test)]
mod tests {
    use super::*;
    use memoffset::span_of;

    #[test]
    fn no_two_owners_share_a_pair_of_cache_lines() {
        // Nor do one owner's words share a pair if some change with every message, some rarely, and some only for observers.
        let spans = [
            span_of!(Header, ready..tail),
            span_of!(Header, tail),
            span_of!(Header, producer),
            span_of!(Header, produced),
            span_of!(Header, head),
            span_of!(Header, consumer),
            span_of!(Header, consumed),
            span_of!(Header, stamps),
            span_of!(Header, latencies),
            HEADER as usize..usize::MAX,
        ];
        for pair in spans.windows(2) {
            assert!(pair[0].end.next_multiple_of(128) <= pair[1].start, "{pair:?}");
        }
    }
}
