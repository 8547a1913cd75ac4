//! What the two halves of the ring have in common: a peer that attaches and detaches, sleeping, and closing.

use crate::protocol::layout::SideState;
use crate::protocol::liveness::{self, End, PeerMonitor, State, TakeoverError};
use crate::protocol::sleep::{Sleep, Until};
use crate::protocol::sync::{Futex, Ordering};
use crate::protocol::wakeup::{self, WakeMode};

/// One side of a pipe: [`Writer`](crate::protocol::writer::Writer) or [`Reader`](crate::protocol::reader::Reader).
pub(crate) trait Half {
    /// Our own words.
    fn own_side(&self) -> &SideState;

    /// The peer's words.
    fn peer_side(&self) -> &SideState;

    fn wake_mode(&self) -> WakeMode;

    fn monitor(&self) -> &PeerMonitor;

    /// Our state, as this holder of the role has stored it.
    fn state(&self) -> State;

    fn set_state(&mut self, state: State);

    /// Whether a peer in this state may have left something to receive, at least its end, even if it is gone now.
    fn is_unreported(&self, state: State) -> bool;

    /// Announces a sleep until what it waits for is there, or the peer's state is no longer `state`: see [`Sleep`].
    fn announce(&self, until: Until, state: State) -> Sleep;

    /// The epoch of the claim after the last one.
    fn next_epoch(&self) -> Result<u64, TakeoverError> {
        liveness::next_epoch(self.own_side())
    }

    /// Opens our side, with the epoch of our claim, and wakes the peer.
    fn open(&mut self, epoch: u64) {
        self.set_state(liveness::open(self.own_side(), epoch));
        self.wake_peer();
    }

    /// Closes or aborts our side. The role remains claimed.
    fn end(&mut self, end: End) {
        liveness::end(self.own_side(), self.state(), end);
        self.wake_peer();
    }

    /// Wakes the peer, if it sleeps, for a reason other than a message or space.
    fn wake_peer(&self) {
        wakeup::wake_up(self.own_side(), self.peer_side(), self.wake_mode());
    }

    /// The peer's state.
    fn peer_state(&self) -> State {
        State::of(self.peer_side())
    }

    /// Whether a peer in this state may die, which would be reported.
    fn may_die(&self, state: State) -> bool {
        self.monitor().may_die(self.own_side(), state)
    }

    /// Whether another process has claimed our role since: our state word changed, which only the holder of the role writes.
    fn is_succeeded(&self) -> bool {
        // Relaxed: the value is only compared.
        self.own_side().state.load(Ordering::Relaxed) != self.state().0
    }

    /// The event count that we sleep on.
    fn event_count(&self) -> &Futex {
        &self.peer_side().event_count
    }

    /// Withdraws an announcement. The peer may still answer it.
    fn withdraw(&self) {
        wakeup::clear_waiter(self.own_side());
    }

    /// Prepares a sleep while the peer's state is `seen`, which ends when the peer attaches, closes or aborts: see [`Sleep::of_one`].
    fn prepare_sleep_for_peer(&self, seen: State) -> Option<u32> {
        self.announce(Until::Change, seen).of_one(self.wake_mode())
    }
}
