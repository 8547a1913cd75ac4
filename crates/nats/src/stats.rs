//! What a bridge has counted, for its metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The counters of one bridge. Relaxed throughout: numbers to look at.
#[derive(Clone, Debug, Default)]
pub struct Stats(Arc<Counters>);

#[derive(Debug, Default)]
pub struct Counters {
    pub frames: AtomicU64,
    pub messages: AtomicU64,
    pub bytes: AtomicU64,
    pub reconnects: AtomicU64,
    pub unknown: AtomicU64,
    pub connected: AtomicBool,
    /// The stream's sequence up to which this bridge is done.
    pub sequence: AtomicU64,
    /// The position in the pipe of the source up to which it is done.
    pub position: AtomicU64,
    /// Messages of the stream that the subscriber has yet to receive, as the server says.
    pub pending: AtomicU64,
    /// Nanoseconds from the making of the last frame to its acknowledgement, or to its arrival in the pipe.
    pub latest_ns: AtomicU64,
}

impl Stats {
    pub fn counters(&self) -> &Counters {
        &self.0
    }

    pub fn frame(&self, messages: u64, bytes: u64) {
        self.0.frames.fetch_add(1, Ordering::Relaxed);
        self.0.messages.fetch_add(messages, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn done(&self, sequence: u64, position: u64, latest_ns: u64) {
        self.0.sequence.store(sequence, Ordering::Relaxed);
        self.0.position.store(position, Ordering::Relaxed);
        self.0.latest_ns.store(latest_ns, Ordering::Relaxed);
    }

    pub fn pending(&self, pending: u64) {
        self.0.pending.store(pending, Ordering::Relaxed);
    }

    pub fn reconnected(&self) {
        self.0.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    pub fn unknown(&self) {
        self.0.unknown.fetch_add(1, Ordering::Relaxed);
    }

    pub fn connected(&self, connected: bool) {
        self.0.connected.store(connected, Ordering::Relaxed);
    }
}
