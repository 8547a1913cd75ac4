//! Sleeping and waking without a fence on the fast path.
//!
//! Publish, then look for a sleeper, is a store followed by a load of another word, and so is what the sleeper does.
//! Without a full fence between the two on both sides, both may miss each other:
//!
//! ```text
//!   publisher                              sleeper
//!   store the record (or the head)         store own.waiting = a new odd ticket
//!   ---- barrier ----                      ---- barrier ----
//!   load peer.waiting                      look at the ring once more
//!   new odd ticket? advance own.bell,      still nothing? FUTEX_WAIT(peer.bell, the count
//!                   FUTEX_WAKE                            read before the ticket was stored)
//! ```
//!
//! With [`WakeMode::Membarrier`] the publisher's barrier is a compiler fence and the sleeper's is a system call that
//! makes every processor which runs a registered process execute a full fence; with [`WakeMode::Fence`] both are
//! full fences.
//!
//! Tickets: each sleep stores a ticket that was never used before, so that the publisher, which remembers the last
//! one it has seen, rings once per sleep and otherwise pays for one load of a line that does not change. A claim
//! stores an even ticket: nobody sleeps, and what a predecessor left behind is void.

use crate::protocol::layout::Quiet;
use crate::protocol::sync::{Ordering, compiler_fence, fence, fence_everywhere};
use std::fmt;
use std::time::Duration;

/// How a sleeper is woken. It is fixed when a segment is made, since a running producer cannot be told to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WakeMode {
    /// The side that goes to sleep makes the kernel run a memory barrier on every processor that runs a registered
    /// process (`membarrier`, about half a microsecond once per sleep); the hot path needs none. The default.
    Membarrier,
    /// Each message sent and received pays for a full fence. Where `membarrier` is missing or forbidden.
    Fence,
    /// Nobody ever sleeps: no fence and no barrier. Both sides wait by [`Wait::Spin`](crate::Wait::Spin) or
    /// [`Wait::Yield`](crate::Wait::Yield).
    Never,
}

impl WakeMode {
    pub(crate) fn code(self) -> u32 {
        match self {
            WakeMode::Membarrier => 1,
            WakeMode::Fence => 2,
            WakeMode::Never => 3,
        }
    }

    pub(crate) fn from_code(code: u32) -> Option<Self> {
        [WakeMode::Membarrier, WakeMode::Fence, WakeMode::Never].into_iter().find(|mode| mode.code() == code)
    }
}

impl fmt::Display for WakeMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WakeMode::Membarrier => "membarrier",
            WakeMode::Fence => "fence",
            WakeMode::Never => "never",
        })
    }
}

/// What a side has written on its quiet line about its latest sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u32);

impl Ticket {
    /// The ticket on the peer's line. The caller has put the barrier between its publication and this load.
    #[inline(always)]
    pub(crate) fn of(side: &Quiet) -> Self {
        // Relaxed: the barrier orders it after the publication; nothing is read through it, see `wanted`.
        Ticket(side.waiting.load(Ordering::Relaxed))
    }

    pub(crate) fn is_asleep(self) -> bool {
        self.0 & 1 == 1
    }
}

/// The publisher's half: what it knows of the sleeps of the other side.
#[derive(Debug)]
pub(crate) struct Rung {
    mode: WakeMode,
    /// The ticket that asks for nothing any more. A first one of 0 says that nobody sleeps.
    last: Ticket,
    /// The same, which the hot path compares with and goes on; with [`WakeMode::Fence`] something that no ticket
    /// equals, so that a full fence comes before the ticket that counts is read.
    usual: u64,
}

impl Rung {
    const UNUSUAL: u64 = u64::MAX;

    /// For a newcomer, which has rung for nobody yet.
    pub(crate) fn new(mode: WakeMode) -> Self {
        let usual = if mode == WakeMode::Fence { Self::UNUSUAL } else { 0 };
        Rung { mode, last: Ticket(0), usual }
    }

    /// After a publication: whether nobody has gone to sleep since the last ticket, as mostly nobody has.
    #[inline(always)]
    pub(crate) fn is_last(&self, side: &Quiet) -> bool {
        // ORDERING: partner of `before_sleeping`. With membarrier the sleeper supplies the processor's fence on our
        // behalf, so that keeping the compiler from swapping publication and load is all that is left to do.
        compiler_fence(Ordering::SeqCst);
        u64::from(Ticket::of(side).0) == self.usual
    }

    /// The ticket, if it is another one than the last.
    pub(crate) fn look(&self, side: &Quiet) -> Option<Ticket> {
        after_publishing(self.mode);
        let ticket = Ticket::of(side);
        (ticket != self.last).then_some(ticket)
    }

    /// What the ticket asks for has been done.
    pub(crate) fn done(&mut self, ticket: Ticket) {
        self.last = ticket;
        if self.usual != Self::UNUSUAL {
            self.usual = ticket.0.into();
        }
    }
}

/// The publisher's half of the barrier, between its publication and its look at `waiting`.
fn after_publishing(mode: WakeMode) {
    // ORDERING: partner of `before_sleeping`, as in `Rung::is_last`.
    compiler_fence(Ordering::SeqCst);
    if mode == WakeMode::Fence {
        // ORDERING: SeqCst fence, pairs with the one in `before_sleeping`: of the two loads that follow the two fences
        // at least one sees the other side's store.
        fence(Ordering::SeqCst);
    }
}

/// Wakes the peer, if it sleeps, because of something other than a message or space.
pub(crate) fn wake_up(own: &Quiet, peer: &Quiet, mode: WakeMode) {
    if mode != WakeMode::Never {
        after_publishing(mode);
        if Ticket::of(peer).is_asleep() {
            ring(own);
        }
    }
}

/// The sleeper's half, between its ticket and its last look.
fn before_sleeping(mode: WakeMode) {
    match mode {
        WakeMode::Membarrier => fence_everywhere(),
        // ORDERING: SeqCst fence, pairs with the one in `after_publishing`.
        _ => fence(Ordering::SeqCst),
    }
}

/// Sleeps on the peer's bell until it rings, a signal comes or `timeout` is over, unless `nothing_yet` finds what is
/// waited for. May return for no reason.
pub(crate) fn sleep(
    own: &Quiet,
    peer: &Quiet,
    mode: WakeMode,
    timeout: Duration,
    nothing_yet: impl FnOnce() -> bool,
) {
    let seen = peer.bell.count();
    // Relaxed: only this side writes the word.
    let ticket = own.waiting.load(Ordering::Relaxed).wrapping_add(1) | 1;
    // ORDERING: Release, pairs with the Acquire fence in `wanted`: whoever sees the ticket sees what we wait for.
    own.waiting.store(ticket, Ordering::Release);
    before_sleeping(mode);
    if nothing_yet() {
        peer.bell.wait(seen, timeout);
    }
}

/// The read position that a sleeping producer waits for.
pub(crate) fn wanted(sleeper: &Quiet) -> u64 {
    // ORDERING: Acquire fence after the load of the ticket in `Ticket::of`, pairs with the Release store of the
    // ticket in `sleep`: the position read is that ticket's, or a later one's.
    fence(Ordering::Acquire);
    // Relaxed: the fence orders it.
    sleeper.wanted.load(Ordering::Relaxed)
}

/// Wakes the peer, which sleeps on our bell.
pub(crate) fn ring(own: &Quiet) {
    own.bell.advance();
    own.bell.wake();
}

/// Voids the ticket that a predecessor in our role left behind.
pub(crate) fn nobody_sleeps(own: &Quiet) {
    // Relaxed: only this side writes the word, and an outdated odd ticket costs one needless wake-up.
    let last = own.waiting.load(Ordering::Relaxed);
    own.waiting.store((last | 1).wrapping_add(1), Ordering::Relaxed);
}
