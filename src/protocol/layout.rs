//! Where the words of a segment live: the header, byte for byte. LAYOUT.md is its specification.

use crate::protocol::sync::{AtomicU32, AtomicU64, Futex, Ordering};

/// Version of the layout, and of what the words mean.
pub(crate) const VERSION: u32 = 1;

/// Bytes from the start of the segment to the ring.
pub(crate) const HEADER: u64 = 4096;

/// Words of the identity, from byte 8 on.
pub(crate) const IDENTITY_WORDS: usize = 63;

/// The smallest and the largest ring.
pub(crate) const MIN_CAPACITY: u64 = 4096;
pub(crate) const MAX_CAPACITY: u64 = 1 << 40;

/// A word or a few with a pair of cache lines of their own.
///
/// 128 bytes on every target, because the segment is shared by differently built programs
/// (`crossbeam_utils::CachePadded`, whose size follows the target, is for private memory only), and because
/// processors fetch lines in pairs.
#[repr(C, align(128))]
pub(crate) struct Line<T>(pub(crate) T);

/// The words of one side that change only when it sleeps, wakes, claims or closes: the only line of a side that
/// the other one loads for every message, so that the load stays a cache hit.
#[repr(C)]
pub(crate) struct Quiet {
    /// Epoch and phase of the side; see `peer.rs`.
    pub(crate) state: AtomicU64,
    /// The event counter that the *other* side sleeps on: `written` on the producer's line, `freed` on the
    /// consumer's.
    pub(crate) bell: Futex,
    /// The ticket of this side's latest sleep; odd while it may be asleep. See `bell.rs`.
    pub(crate) waiting: AtomicU32,
    /// The read position that a sleeping producer waits for; unused on the consumer's line.
    pub(crate) wanted: AtomicU64,
    /// The epoch of the latest peer whose end this side has reported to its caller.
    pub(crate) reported: AtomicU64,
}

/// What a side has done so far, for whoever watches. The other side never loads this line.
#[repr(C)]
pub(crate) struct Counters {
    /// Messages committed, or released.
    pub(crate) messages: AtomicU64,
    /// Payload bytes of those.
    pub(crate) bytes: AtomicU64,
    /// Calls that had to wait: the producer's for space, the consumer's for data.
    pub(crate) waits: AtomicU64,
    /// Wake-ups given to the other side.
    pub(crate) wakeups: AtomicU64,
    /// Who has claimed the role last, see `process::hint`.
    pub(crate) holder: AtomicU64,
}

impl Counters {
    /// Messages committed, or released.
    pub(crate) fn messages(&self) -> u64 {
        // Relaxed: asked by the only side that writes it, or by watchers.
        self.messages.load(Ordering::Relaxed)
    }
}

/// Adds to a counter that only this side writes.
#[inline(always)]
pub(super) fn count(counter: &AtomicU64, more: u64) {
    // Relaxed: one writer, and nothing is read through it.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// Adds one wait to a side's counters.
pub(crate) fn count_wait(counters: &Counters) {
    count(&counters.waits, 1);
}

/// The header of a segment. Each side's words are written by that side alone.
///
/// ```text
///     0  ready, identity       written once by the creator
///   512  tail                  producer  hot: changes with every message
///   640  state, written, ...   producer  quiet
///   768  counters              producer
///   896  head                  consumer  hot
///  1024  state, freed, ...     consumer  quiet
///  1152  counters              consumer
///  1280  zero
///  4096  the ring, `capacity` bytes
/// ```
#[repr(C)]
pub(crate) struct Header {
    /// Says that the segment is complete: written last.
    #[cfg(not(shmpipe_loom))]
    pub(crate) ready: AtomicU64,
    /// Who the segment is: see `identity.rs`.
    #[cfg(not(shmpipe_loom))]
    pub(crate) identity: [AtomicU64; IDENTITY_WORDS],
    /// The write position: where the next record goes, or where it went a moment ago. A hint for recovery and for
    /// watchers; the consumer does not poll it.
    pub(crate) tail: Line<AtomicU64>,
    pub(crate) producer: Line<Quiet>,
    pub(crate) produced: Line<Counters>,
    /// The read position: everything before it has been released.
    pub(crate) head: Line<AtomicU64>,
    pub(crate) consumer: Line<Quiet>,
    pub(crate) consumed: Line<Counters>,
}

#[cfg(not(shmpipe_loom))]
const _: () = {
    use memoffset::offset_of;

    assert!(size_of::<Line<Quiet>>() == 128 && size_of::<Line<Counters>>() == 128);
    assert!(size_of::<Header>() <= HEADER as usize);

    assert!(offset_of!(Header, ready) == 0);
    assert!(offset_of!(Header, identity) == 8);
    assert!(offset_of!(Header, tail) == 512);
    assert!(offset_of!(Header, producer) == 640);
    assert!(offset_of!(Header, produced) == 768);
    assert!(offset_of!(Header, head) == 896);
    assert!(offset_of!(Header, consumer) == 1024);
    assert!(offset_of!(Header, consumed) == 1152);

    assert!(offset_of!(Quiet, state) == 0);
    assert!(offset_of!(Quiet, bell) == 8);
    assert!(offset_of!(Quiet, waiting) == 12);
    assert!(offset_of!(Quiet, wanted) == 16);
    assert!(offset_of!(Quiet, reported) == 24);

    assert!(offset_of!(Counters, messages) == 0);
    assert!(offset_of!(Counters, bytes) == 8);
    assert!(offset_of!(Counters, waits) == 16);
    assert!(offset_of!(Counters, wakeups) == 24);
    assert!(offset_of!(Counters, holder) == 32);
};

#[cfg(shmpipe_loom)]
impl Header {
    /// A fresh header in private memory, as the creator of a segment leaves it.
    pub(crate) fn new() -> Self {
        fn quiet() -> Line<Quiet> {
            Line(Quiet {
                state: AtomicU64::new(0),
                bell: Futex::new(),
                waiting: AtomicU32::new(0),
                wanted: AtomicU64::new(0),
                reported: AtomicU64::new(0),
            })
        }
        fn counters() -> Line<Counters> {
            let zero = || AtomicU64::new(0);
            Line(Counters { messages: zero(), bytes: zero(), waits: zero(), wakeups: zero(), holder: zero() })
        }
        Header {
            tail: Line(AtomicU64::new(0)),
            producer: quiet(),
            produced: counters(),
            head: Line(AtomicU64::new(0)),
            consumer: quiet(),
            consumed: counters(),
        }
    }
}

#[cfg(all(test, not(shmpipe_loom)))]
mod tests {
    use super::*;
    use memoffset::span_of;

    #[test]
    fn no_two_owners_share_a_pair_of_cache_lines() {
        // Nor do the words of one owner that change with every message, seldom, and for watchers only.
        let spans = [
            span_of!(Header, ready..tail),
            span_of!(Header, tail),
            span_of!(Header, producer),
            span_of!(Header, produced),
            span_of!(Header, head),
            span_of!(Header, consumer),
            span_of!(Header, consumed),
            HEADER as usize..usize::MAX,
        ];
        for pair in spans.windows(2) {
            assert!(pair[0].end.next_multiple_of(128) <= pair[1].start, "{pair:?}");
        }
    }
}
