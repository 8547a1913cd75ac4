//! What the two halves of the ring have in common: a peer that attaches and detaches, sleeping, and closing.

use crate::protocol::layout::SideState;
use crate::protocol::liveness::{End, State, TakeoverError};
use crate::protocol::sleep::{Sleep, Until};
use crate::protocol::sync::Futex;
use crate::protocol::wakeup::WakeMode;

/// One side of a pipe: [`Writer`](crate::protocol::writer::Writer) or [`Reader`](crate::protocol::reader::Reader).
pub(crate) trait Half {
    /// The epoch of the claim after the last one.
    fn next_epoch(&self) -> Result<u64, TakeoverError>;

    /// Opens our side, with the epoch of our claim, and wakes the peer.
    fn open(&mut self, epoch: u64);

    /// The peer's words.
    fn peer_side(&self) -> &SideState;

    /// The peer's state.
    fn peer_state(&self) -> State;

    /// Whether a peer in this state may have left something to receive, at least its end, even if it is gone now.
    fn is_unreported(&self, state: State) -> bool;

    /// Whether a peer in this state may die, which would be reported.
    fn may_die(&self, state: State) -> bool;

    /// Whether another process has claimed our role since: our state word changed, which only the holder of the role writes.
    fn is_succeeded(&self) -> bool;

    /// The event count that we sleep on.
    fn event_count(&self) -> &Futex;

    fn wake_mode(&self) -> WakeMode;

    /// Announces a sleep until what it waits for is there, or the peer's state is no longer `state`: see [`Sleep`].
    fn announce(&self, until: Until, state: State) -> Sleep;

    /// Withdraws an announcement. The peer may still answer it.
    fn withdraw(&self);

    /// Prepares a sleep while the peer's state is `seen`, which ends when the peer attaches, closes or aborts: see [`Sleep::of_one`].
    fn prepare_sleep_for_peer(&self, seen: State) -> Option<u32> {
        self.announce(Until::Change, seen).of_one(self.wake_mode())
    }

    /// Closes or aborts our side. The role remains claimed.
    fn end(&mut self, end: End);
}
