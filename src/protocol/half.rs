//! What the two halves of the ring have in common: their ends, and a peer that comes and goes.

use crate::protocol::peer::State;
use crate::protocol::sync::Futex;
use std::time::Duration;

/// One side of a pipe.
pub(crate) trait Half {
    /// The peer's state.
    fn peer_state(&self) -> State;

    /// Whether a peer in this state is worth a call although it has gone: there may be something to receive from it, be it its end.
    fn is_news(&self, state: State) -> bool;

    /// Whether another process has claimed our role since: only the holder of a role writes its state.
    fn is_succeeded(&self) -> bool;

    /// What we sleep on.
    fn bell(&self) -> &Futex;

    /// Sleeps until the peer's state is no longer `seen`.
    fn sleep_for_peer(&self, seen: State, timeout: Duration);

    /// Announces an orderly end. The role is still ours.
    fn close(&mut self);
}
