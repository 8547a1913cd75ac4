//! A claimed role, and what can be known through it: whether it still stands, and whether the peer is there.

use crate::endpoint::stop::Stopper;
use crate::endpoint::wait::{Awaited, Ended, Patience, wait_for};
use crate::error::{Loss, SetupError};
use crate::pipe::Pipe;
use crate::protocol::half::Half;
use crate::protocol::peer::{Peer, Role, State};
use crate::segment::GuardError;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// A claimed role: given back when dropped, or by the kernel when we die.
#[derive(Debug)]
pub(crate) struct Claim {
    pipe: Pipe,
    role: Role,
    held: bool,
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

    /// Blocks until a peer attaches, or until one has come and gone whose end was not reported yet.
    pub(crate) fn wait_for_peer<E: From<Ended> + From<Loss>>(
        &self,
        half: &impl Half,
        deadline: Option<Instant>,
        stopper: &Stopper,
    ) -> Result<(), E> {
        let patience = deadline.map_or(Patience::Forever, Patience::Until);
        let now = half.peer_state();
        let coming = Coming { claim: self, half, stopper, now, asked_about: None, error: PhantomData };
        wait_for(coming, self.pipe.wait(), patience, stopper)
    }

    /// Closes, if it is ours to close and not closed yet.
    pub(crate) fn end(&mut self, half: &mut impl Half) -> Result<(), SetupError> {
        if !self.is_ours() {
            return Ok(());
        }
        if half.is_succeeded() {
            // It is another one's to close.
            return Err(self.forget());
        }
        half.close();
        self.release()
    }
}

/// A peer that is to come.
struct Coming<'a, H, E> {
    claim: &'a Claim,
    half: &'a H,
    stopper: &'a Stopper,
    /// Its state at the last look.
    now: State,
    /// The state about which the kernel was asked last: once for each change.
    asked_about: Option<State>,
    error: PhantomData<E>,
}

impl<H: Half, E: From<Ended> + From<Loss>> Awaited for Coming<'_, H, E> {
    type Found = ();
    type Error = E;

    fn look(&mut self) -> Result<Option<()>, E> {
        self.now = self.half.peer_state();
        if self.asked_about.replace(self.now) == Some(self.now) {
            return Ok(None);
        }
        let is_there = self.half.is_news(self.now) || self.claim.peer(self.now) == Peer::Open;
        Ok(is_there.then_some(()))
    }

    fn sleep(&mut self, slice: Duration) {
        self.stopper.sleep(self.half.bell(), || self.half.sleep_for_peer(self.now, slice));
    }

    fn check(&mut self) -> Result<Option<()>, E> {
        self.claim.check(self.half.is_succeeded())?;
        // The kernel may have had no answer the last time.
        self.asked_about = None;
        Ok(None)
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
