//! A claimed role, and what can be known through it: whether it still stands, and whether the peer is there.

use crate::endpoint::stop::Stopper;
use crate::endpoint::wait::{Ended, Patience, Step, Waiting};
use crate::error::{Loss, SetupError};
use crate::pipe::Pipe;
use crate::protocol::peer::{Peer, Role, State};
use crate::segment::GuardError;
use std::time::Duration;

/// A claimed role: given back when dropped, or by the kernel when we die.
#[derive(Debug)]
pub(crate) struct Claim {
    pipe: Pipe,
    role: Role,
    held: bool,
}

/// Why a wait for the peer ended without it.
#[derive(Debug)]
pub(crate) enum NoPeer {
    Ended(Ended),
    Lost(Loss),
}

impl Claim {
    pub(crate) fn take(pipe: &Pipe, role: Role) -> Result<Self, SetupError> {
        pipe.segment().claim(role)?;
        Ok(Claim { pipe: pipe.clone(), role, held: true })
    }

    pub(crate) fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    /// Whether this process holds the claim; a forked child does not, nor does it have the mapping.
    pub(crate) fn is_ours(&self) -> bool {
        self.held && self.pipe.segment().mapping.is_ours()
    }

    /// Gives the role back.
    pub(crate) fn release(&mut self) -> Result<(), SetupError> {
        self.held = false;
        self.pipe.segment().release(self.role)
    }

    /// Leaves the role to whoever has claimed it behind us. To give it back would be to give theirs back.
    pub(crate) fn forget(&mut self) -> SetupError {
        self.held = false;
        self.pipe.segment().forget(self.role)
    }

    fn is_free(&self, role: Role) -> Result<bool, Loss> {
        let guard = &self.pipe.segment().guard;
        match guard.is_free(role) {
            Ok(free) => Ok(free),
            Err(GuardError::Gone) => Err(guard.loss()),
            // No answer is no news.
            Err(GuardError::Taken | GuardError::Unaccounted(_) | GuardError::Os { .. }) => Ok(false),
        }
    }

    /// Makes sure that our own claim still stands, and that nobody has claimed the role since: whoever may write to a semaphore
    /// set can free a role, and the next one to come then holds it too.
    pub(crate) fn check(&self, is_succeeded: bool) -> Result<(), Loss> {
        let is_lost = self.is_free(self.role)? || is_succeeded;
        if is_lost { Err(Loss::Claims { attached: 1 }) } else { Ok(()) }
    }

    /// Whether the kernel says that nobody holds the peer's role.
    pub(crate) fn peer_is_gone(&self) -> Result<bool, Loss> {
        self.is_free(self.role.peer())
    }

    /// What the peer's state word and the kernel say about it together.
    pub(crate) fn peer(&self, state: State) -> Peer {
        Peer::of(state, self.pipe.segment().guard.is_free(self.role.peer()).ok())
    }

    /// Waits until there is a peer, or one that came and went and `is_news`. `state` loads its state word, `sleep` sleeps
    /// while that stays what it was; `is_succeeded` says whether somebody else has our role.
    pub(crate) fn wait_for_peer(
        &self,
        patience: Patience,
        stopper: &Stopper,
        state: impl Fn() -> State,
        is_news: impl Fn(State) -> bool,
        is_succeeded: impl Fn() -> bool,
        sleep: impl Fn(State, Duration),
    ) -> Result<(), NoPeer> {
        let mut waiting = Waiting::new(self.pipe.wait(), patience, stopper);
        let mut seen = None;
        loop {
            let now = state();
            // The kernel is asked once for each change.
            if seen != Some(now) && (is_news(now) || self.peer(now) == Peer::Open) {
                return Ok(());
            }
            seen = Some(now);
            match waiting.next().map_err(NoPeer::Ended)? {
                Step::Look => crate::protocol::sync::spin_loop(),
                Step::Yield => std::thread::yield_now(),
                Step::Sleep(slice) => sleep(now, slice),
                Step::Check => {
                    self.check(is_succeeded()).map_err(NoPeer::Lost)?;
                    // The kernel may have had no answer the last time.
                    seen = None;
                }
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_ours() {
            // It fails only if the pipe was removed, and the claim with it.
            let _ = self.release();
        }
    }
}
