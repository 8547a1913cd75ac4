//! Sleeping and waking, as with an event count, without a fence on the fast path.
//!
//! Publishing and then checking for a sleeper is a store followed by a load of another word. The sleeper does the mirror image.
//! Without a full fence between the two on both sides, each may miss the other:
//!
//! ```text
//!   publisher                              sleeper
//!   store the record (or the head)         store own.waiter_epoch = a new odd number
//!   ---- barrier ----                      ---- barrier ----
//!   load peer.waiter_epoch                 poll the ring once more
//!   new and odd? advance own.event_count,  still nothing? FUTEX_WAIT(peer.event_count,
//!                FUTEX_WAKE                the count read before the announcement)
//! ```
//!
//! With [`WakeMode::Membarrier`] the publisher's barrier is a compiler fence and the sleeper's is a system call, which runs a full
//! fence on every processor that runs a registered process. With [`WakeMode::Fence`] both are full fences.
//!
//! Every sleep stores a waiter epoch that was never used before. The publisher remembers the last one it has seen, so it notifies
//! once per sleep and otherwise pays for one load of a line that does not change. A new holder of a role stores an even epoch: it
//! is awake, and its predecessor's announcement is void.

use crate::protocol::layout::SideState;
use crate::protocol::sync::{Ordering, compiler_fence, fence, fence_everywhere};
use std::fmt;

/// How a sleeper is woken.
///
/// The creator of a segment fixes it, since a running producer cannot change its barrier.
///
/// ```
/// use shmpipe::{Options, Wait, WakeMode};
///
/// // Both sides poll: nothing on the way of a message but the message.
/// let pipe = Options::new().wake_mode(WakeMode::Never).wait(Wait::Spin).create("memfd")?;
/// assert_eq!(pipe.wake_mode(), WakeMode::Never);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WakeMode {
    /// The side that goes to sleep has the kernel run a memory barrier on every processor that runs a registered process
    /// (`membarrier`, about half a microsecond per sleep). The hot path needs none. The default.
    Membarrier,
    /// Each message sent and each received costs a full fence. Where `membarrier` is missing or forbidden.
    Fence,
    /// Neither side sleeps: no fence and no barrier. Both wait by [`Wait::Spin`](crate::Wait::Spin) or
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

/// A side's word about its latest sleep: odd from the announcement on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaiterEpoch(u32);

impl WaiterEpoch {
    /// The peer's epoch. The caller has put the barrier between its publication and this load.
    #[inline(always)]
    pub(crate) fn of(side: &SideState) -> Self {
        // Relaxed: the barrier orders it after the publication. Nothing is read through it, see `wake_threshold`.
        WaiterEpoch(side.waiter_epoch.load(Ordering::Relaxed))
    }

    pub(crate) fn is_asleep(self) -> bool {
        self.0 & 1 == 1
    }
}

/// What the publisher knows of the other side's sleeps.
#[derive(Debug)]
pub(crate) struct WaiterCache {
    mode: WakeMode,
    /// The last epoch that was answered; 0 at first, which means awake.
    last: WaiterEpoch,
    /// The same, for the hot path to compare with. With [`WakeMode::Fence`] a number that no epoch equals, so that the slow path
    /// runs a full fence before it reads the epoch that counts.
    usual: u64,
}

impl WaiterCache {
    const UNUSUAL: u64 = u64::MAX;

    pub(crate) fn new(mode: WakeMode) -> Self {
        let usual = if mode == WakeMode::Fence { Self::UNUSUAL } else { 0 };
        WaiterCache { mode, last: WaiterEpoch(0), usual }
    }

    /// After a publication: whether the other side has announced no new sleep, as is usual.
    #[inline(always)]
    pub(crate) fn is_last(&self, side: &SideState) -> bool {
        // ORDERING: partner of `before_sleeping`. With membarrier the sleeper supplies the processor's fence on our
        // behalf. What is left to do is to keep the compiler from swapping publication and load.
        compiler_fence(Ordering::SeqCst);
        u64::from(WaiterEpoch::of(side).0) == self.usual
    }

    /// The other side's epoch, if it is a new one.
    pub(crate) fn peek(&self, side: &SideState) -> Option<WaiterEpoch> {
        after_publishing(self.mode);
        let epoch = WaiterEpoch::of(side);
        (epoch != self.last).then_some(epoch)
    }

    /// This epoch needs nothing more.
    pub(crate) fn answered(&mut self, epoch: WaiterEpoch) {
        self.last = epoch;
        if self.usual != Self::UNUSUAL {
            self.usual = epoch.0.into();
        }
    }
}

/// The publisher's side of the barrier, between its publication and its load of `waiter_epoch`.
fn after_publishing(mode: WakeMode) {
    // ORDERING: partner of `before_sleeping`, as in `WaiterCache::is_last`.
    compiler_fence(Ordering::SeqCst);
    if mode == WakeMode::Fence {
        // ORDERING: SeqCst fence, pairs with the one in `before_sleeping`: of the two loads that follow the two fences
        // at least one sees the other side's store.
        fence(Ordering::SeqCst);
    }
}

/// Wakes the peer, if it sleeps, because of something other than a message or space.
pub(crate) fn wake_up(own: &SideState, peer: &SideState, mode: WakeMode) {
    if mode != WakeMode::Never {
        after_publishing(mode);
        if WaiterEpoch::of(peer).is_asleep() {
            notify(own);
        }
    }
}

/// The sleeper's side of the barrier, between its announcement, or several, and its last poll.
pub(crate) fn before_sleeping(mode: WakeMode) {
    match mode {
        WakeMode::Membarrier => fence_everywhere(),
        // ORDERING: SeqCst fence, pairs with the one in `after_publishing`.
        _ => fence(Ordering::SeqCst),
    }
}

/// Announces a sleep. Returns the peer's event count, to sleep on.
pub(super) fn announce(own: &SideState, peer: &SideState) -> u32 {
    let seen = peer.event_count.count();
    // Relaxed: only this side writes the word.
    let epoch = own.waiter_epoch.load(Ordering::Relaxed).wrapping_add(1) | 1;
    // ORDERING: Release, pairs with the Acquire fence in `wake_threshold`: a publisher that sees the epoch sees what we wait for.
    own.waiter_epoch.store(epoch, Ordering::Release);
    seen
}

/// The read position that a sleeping producer waits for.
pub(crate) fn wake_threshold(sleeper: &SideState) -> u64 {
    // ORDERING: Acquire fence after the load of the epoch in `WaiterEpoch::of`, pairs with the Release store of the
    // epoch in `announce`: the position read is that epoch's, or a later one's.
    fence(Ordering::Acquire);
    // Relaxed: the fence orders it.
    sleeper.wake_threshold.load(Ordering::Relaxed)
}

/// Wakes the peer, which sleeps on our event count.
pub(crate) fn notify(own: &SideState) {
    own.event_count.advance();
    own.event_count.wake();
}

/// Voids an announcement: ours, or one that a predecessor in our role left behind.
pub(crate) fn clear_waiter(own: &SideState) {
    // Relaxed: only this side writes the word, and an outdated odd epoch costs one needless wake-up.
    let last = own.waiter_epoch.load(Ordering::Relaxed);
    own.waiter_epoch.store((last | 1).wrapping_add(1), Ordering::Relaxed);
}
