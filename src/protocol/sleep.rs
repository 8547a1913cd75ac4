//! An announced sleep: what it waits for, and whether that is still missing.
//!
//! A sleep takes four steps: announce it, run the barrier, look again, and sleep while the peer's event count is the one that was read
//! at the announcement, which misses no notification. [`Sleep::of_one`] does the first three for one pipe. A thread that waits for many
//! pipes announces all, runs one barrier, and looks again at each. Only the last step depends on how a process sleeps.

use crate::protocol::layout::{Header, SideState};
use crate::protocol::liveness::{Role, State};
use crate::protocol::record::EMPTY;
use crate::protocol::ring::{Ring, is_reached};
use crate::protocol::sync::{Ordering, SeenWord};
use crate::protocol::wakeup::{self, WaiterEpoch, WakeMode};

/// What to wait for at an endpoint, apart from the end of its peer and the loss of its pipe, which are always reported.
///
/// ```
/// use shmpipe::{Interest, WaitSet};
///
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let mut set = WaitSet::new();
/// set.add(pipe.consumer()?, Interest::Message)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Interest {
    /// A message. For a consumer.
    Message,
    /// Space for a message of this many bytes. For a producer.
    Space(usize),
    /// Nothing else. For a consumer whose messages cannot be handled now, and for a producer that has nothing to send.
    End,
}

/// What a sleeper waits for, apart from a change of its peer's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// A record at this position.
    Record(u64),
    /// A read position at or after this one.
    Head(u64),
    /// Nothing else.
    Change,
}

/// An announced sleep. It holds plain values and pointers to the shared words, so any thread can look while the pipe stays mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sleep {
    ring: Ring,
    role: Role,
    until: Until,
    /// The peer's state, as this side has dealt with it.
    state: State,
    /// The peer's event count at the announcement.
    count: u32,
}

impl Sleep {
    /// Announces a sleep of the side with this role. The caller runs [`wakeup::before_sleeping`] before it looks.
    pub(super) fn announce(ring: &Ring, role: Role, until: Until, state: State) -> Self {
        let header = ring.header();
        let count = wakeup::announce(header.side(role), header.side(role.peer()));
        Sleep { ring: *ring, role, until, state, count }
    }

    /// The event count to sleep on, if there is still nothing to do after the barrier.
    pub(super) fn of_one(self, mode: WakeMode) -> Option<u32> {
        wakeup::before_sleeping(mode);
        self.is_pending().then_some(self.count)
    }

    /// Whether there is still nothing to do.
    pub(crate) fn is_pending(&self) -> bool {
        let is_missing = match self.until {
            // ORDERING: Acquire, as in `Reader::peek_fast`, which loads the word again; here it only decides whether to sleep.
            Until::Record(at) => self.ring.word(at).load(Ordering::Acquire) == EMPTY,
            // ORDERING: Acquire, as in `Writer::refresh_head`, which checks the value; here it only decides whether to sleep.
            Until::Head(at) => !is_reached(self.ring.header().head.0.load(Ordering::Acquire), at),
            Until::Change => true,
        };
        is_missing && State::of(self.peer()) == self.state
    }

    /// Whether the peer has notified us since. If it has not, what was missing at the last look is still missing.
    pub(crate) fn is_answered(&self) -> bool {
        self.peer().event_count.count() != self.count
    }

    fn peer(&self) -> &SideState {
        self.ring.header().side(self.role.peer())
    }

    /// The event count to sleep on.
    pub(crate) fn word(&self) -> SeenWord {
        SeenWord::new(&self.peer().event_count, self.count)
    }
}

/// Whether the last wait of a side was a sleep, and what it would wait for is missing, as a watcher sees it: the look may be a moment
/// old, and `tail` may lag behind a commit.
pub(crate) fn may_be_asleep(header: &Header, role: Role) -> bool {
    let side = header.side(role);
    // Relaxed, here and below: numbers to look at; nothing is read through them.
    let head = header.head.0.load(Ordering::Relaxed);
    let is_there = match role {
        Role::Consumer => header.tail.0.load(Ordering::Relaxed) != head,
        Role::Producer => is_reached(head, side.wake_threshold.load(Ordering::Relaxed)),
    };
    WaiterEpoch::of(side).is_asleep() && !is_there
}
