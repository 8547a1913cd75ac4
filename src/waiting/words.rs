//! The words that others sleep on for an endpoint, and sleeping on many, where the kernel can.

use crate::endpoint::watched::Watched;
use crate::protocol::liveness::Role;
use crate::protocol::ring::Ring;
use crate::protocol::sync::{Futex, SeenWord, can_wait_for_any, wait_any};
use crate::segment::Segment;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The event count that an endpoint sleeps on. It stays mapped.
pub(super) struct EndpointWord {
    pub(super) segment: Arc<Segment>,
    ring: Ring,
    role: Role,
}

impl EndpointWord {
    pub(super) fn of(endpoint: &dyn Watched) -> Self {
        EndpointWord {
            segment: endpoint.pipe().segment().clone(),
            ring: *endpoint.ring(),
            role: endpoint.role(),
        }
    }

    pub(super) fn word(&self) -> &Futex {
        &self.ring.header().side(self.role.peer()).event_count
    }
}

/// How often to look at words on which this process cannot sleep.
pub(super) const TIMER: Duration = Duration::from_millis(1);

/// Whether this process can sleep on more than one word.
pub(super) fn can_sleep_on_many() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| can_wait_for_any().is_ok())
}

/// Sleeps until one of the words is woken or changed, or for `timeout` at most. Where the kernel cannot, sleeps on the first alone, and
/// for a short time if there are others.
pub(super) fn wait_for_words(words: &[SeenWord], timeout: Duration) {
    match words {
        [word] => word.wait(timeout),
        words if can_sleep_on_many() => wait_any(words, timeout),
        [word, ..] => word.wait(timeout.min(TIMER)),
        [] => unreachable!("nothing to sleep on"),
    }
}
