//! An endpoint as one of several that a thread waits for: the same steps as those of a call that blocks, taken one by one.

use crate::endpoint::claim::Claim;
use crate::error::{CheckError, Lost};
use crate::pipe::Pipe;
use crate::protocol::half::Half;
use crate::protocol::layout::{Counters, count_wait};
use crate::protocol::liveness::{Peer, Role, State};
use crate::protocol::ring::Ring;
use crate::protocol::sleep::{Interest, Sleep, Until};

/// An endpoint that another loop than its own waits for.
#[cfg_attr(not(feature = "async"), allow(dead_code, reason = "only futures wait for a peer"))]
pub(crate) trait Watched: Send {
    fn claim(&self) -> &Claim;

    fn half(&self) -> &dyn Half;

    fn role(&self) -> Role;

    /// The ring of its direction.
    fn ring(&self) -> &Ring;

    fn counters(&self) -> &Counters;

    /// Whether what is awaited seems to be there. A few loads.
    fn has(&self, interest: Interest) -> bool;

    /// Whether what is awaited is there; or the end of the peer. For a consumer, messages come before ends.
    fn poll(&mut self, interest: Interest) -> Result<bool, CheckError>;

    /// Asks the kernel whether our role still stands and whether the peer lives; otherwise as [`poll`](Self::poll).
    fn check(&mut self, interest: Interest) -> Result<bool, CheckError>;

    /// What a sleep waits for.
    fn until(&self, interest: Interest) -> Until;

    fn pipe(&self) -> &Pipe {
        self.claim().pipe()
    }

    /// The role that it has claimed: that of its side, in a duplex pipe.
    fn claimed_role(&self) -> Role {
        self.claim().role()
    }

    /// The state of the peer, to be loaded before [`poll`](Self::poll).
    fn peer_state(&self) -> State {
        self.half().peer_state()
    }

    /// Whether a peer in this state may die, which would be reported.
    fn may_die(&self, state: State) -> bool {
        self.half().may_die(state)
    }

    /// What is known of a peer in this state. Costs a system call.
    fn peer(&self, state: State) -> Peer {
        self.claim().peer(self.half(), state)
    }

    /// Whether a peer in this state is there, or has left something to receive. Costs a system call.
    fn has_peer(&self, state: State) -> bool {
        self.claim().has_peer(self.half(), state)
    }

    /// Announces a sleep until what is awaited is there, or the peer's state is no longer `state`. The caller runs the barrier, then
    /// looks again.
    fn announce(&self, interest: Interest, state: State) -> Sleep {
        count_wait(self.counters());
        self.half().announce(self.until(interest), state)
    }

    /// Withdraws an announcement. The peer may still answer it.
    fn withdraw(&self) {
        self.half().withdraw();
    }

    /// Asks the kernel whether our role still stands.
    fn check_role(&self) -> Result<(), Lost> {
        self.claim().check(self.half().is_succeeded())
    }
}
