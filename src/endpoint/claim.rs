//! A claimed role: whether we still hold it, and whether the peer is attached.
//!
//! The two halves of a duplex endpoint share the role of their side, which is given back with the second of them.

use crate::endpoint::cancel::CancelHandle;
use crate::endpoint::pace::Pace;
use crate::endpoint::wait::{Awaited, wait_for};
use crate::error::{CloseError, Lost, SetupError, WaitError};
use crate::pipe::Pipe;
use crate::protocol::half::Half;
use crate::protocol::liveness::{End, PANICKED, Peer, Role, State};
use crate::segment::RoleLockError;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A claimed role, or a share in it: released when all shares are dropped, or by the kernel when we die.
#[derive(Debug)]
pub(crate) struct Claim {
    pipe: Pipe,
    role: Role,
    /// Our share in the role, until we give it back.
    share: Option<Arc<Share>>,
    /// Whether the thread that claimed it was panicking.
    claimed_in_panic: bool,
    /// How many questions in a row the kernel has refused to answer.
    refusals: Cell<u32>,
}

/// What all shares in a role know about it. Relaxed throughout: nothing is read through it.
#[derive(Debug, Default)]
struct Share {
    /// The role was found to be another process's.
    forgotten: AtomicBool,
    /// The pipe was found to be gone.
    pipe_is_gone: AtomicBool,
}

/// How many refusals in a row are taken for a passing shortage: those of one check.
const MAX_REFUSALS: u32 = 2;

impl Claim {
    pub(crate) fn take(pipe: &Pipe, role: Role) -> Result<Self, SetupError> {
        pipe.segment().claim(role)?;
        let share = Some(Arc::default());
        let claimed_in_panic = thread::panicking();
        Ok(Claim { pipe: pipe.clone(), role, share, claimed_in_panic, refusals: Cell::new(0) })
    }

    /// A share in the role, for the other half of a duplex endpoint.
    pub(crate) fn share(&self) -> Self {
        let Claim { role, claimed_in_panic, .. } = *self;
        let (pipe, share) = (self.pipe.clone(), self.share.clone());
        Claim { pipe, role, share, claimed_in_panic, refusals: Cell::new(0) }
    }

    pub(crate) fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// Whether this process holds the claim; a forked child does not, nor does it have the mapping.
    pub(crate) fn is_ours(&self) -> bool {
        self.share.is_some() && self.pipe.segment().mapping.is_ours()
    }

    /// Gives our share back, and releases the role if it is the last.
    pub(crate) fn release(&mut self) -> Result<(), CloseError> {
        // The last share is dropped after all that was done with the others.
        match self.share.take().and_then(Arc::into_inner).map(|share| share.forgotten.into_inner()) {
            None => Ok(()),
            Some(false) => self.pipe.segment().release(self.role),
            Some(true) => Err(CloseError::Lost(Lost::Role)),
        }
    }

    /// Abandons the role to a process that has claimed it too. Releasing it would release that process's claim.
    pub(crate) fn forget(&mut self) -> CloseError {
        match self.share.take().is_some_and(|share| !share.forgotten.swap(true, Ordering::Relaxed)) {
            true => self.pipe.segment().forget(self.role),
            false => CloseError::Lost(Lost::Role),
        }
    }

    /// The kernel's answer about a role; `otherwise` if it gave none this time.
    fn answer(&self, answer: Result<bool, RoleLockError>, otherwise: bool) -> Result<bool, Lost> {
        let refusals = match answer {
            Err(ref why @ (RoleLockError::Gone | RoleLockError::Elsewhere | RoleLockError::Taken)) => {
                if let (RoleLockError::Gone, Some(share)) = (why, &self.share) {
                    share.pipe_is_gone.store(true, Ordering::Relaxed);
                }
                return Err(self.pipe.segment().roles.loss());
            }
            Ok(_) => 0,
            Err(RoleLockError::Os { .. }) => self.refusals.get() + 1,
        };
        self.refusals.set(refusals);
        match answer {
            Err(RoleLockError::Os { call, source }) if refusals > MAX_REFUSALS => {
                Err(Lost::Refused { call, errno: source.raw_os_error().unwrap_or(0) })
            }
            answer => Ok(answer.unwrap_or(otherwise)),
        }
    }

    /// Checks that we still hold the role, and that no other process has claimed it since. Any process that may write to the
    /// segment can overwrite a claim; the next claim then succeeds too.
    pub(crate) fn check(&self, is_succeeded: bool) -> Result<(), Lost> {
        let segment = self.pipe.segment();
        let holds = self.answer(segment.roles.holds(segment.mapping.header(), self.role), true)?;
        if holds && !is_succeeded { Ok(()) } else { Err(Lost::Role) }
    }

    fn is_peer_free(&self) -> Result<bool, RoleLockError> {
        let segment = self.pipe.segment();
        segment.roles.is_free(segment.mapping.header(), self.role.peer())
    }

    /// Whether the kernel says that the peer's role is free.
    pub(crate) fn peer_is_gone(&self) -> Result<bool, Lost> {
        self.answer(self.is_peer_free(), false)
    }

    /// The state of the peer, by its state word and by the kernel.
    pub(crate) fn peer(&self, half: &(impl Half + ?Sized), state: State) -> Peer {
        Peer::of(half.peer_side(), state, self.is_peer_free().ok())
    }

    /// Whether a peer in this state is there, or has attached and ended, and its end is not reported yet.
    pub(crate) fn has_peer(&self, half: &(impl Half + ?Sized), state: State) -> bool {
        half.is_unreported(state) || self.peer(half, state) == Peer::Open
    }

    /// Blocks until a peer attaches. Also returns if one has attached and ended meanwhile, and its end is not reported yet.
    pub(crate) fn wait_for_peer(
        &self,
        half: &impl Half,
        deadline: Option<Instant>,
        cancel: &CancelHandle,
    ) -> Result<(), WaitError> {
        let arrival = Arrival { claim: self, half, seen: half.peer_state(), kernel_queried_for: None };
        wait_for(arrival, self.pipe.wait(), deadline, cancel, &mut Pace::of_waits())
    }

    /// Ends an endpoint that is dropped. One that a panic drops aborts, unless it was claimed during that panic.
    pub(crate) fn end_dropped(&mut self, half: &mut impl Half) {
        let by_panic = thread::panicking() && !self.claimed_in_panic;
        // It fails only if the pipe was removed, and the claim with it.
        let _ = self.end(half, if by_panic { End::Aborted { code: PANICKED } } else { End::Closed });
    }

    /// Closes or aborts, unless it has ended already or another process ends it. In a pipe that was found to be gone it leaves the
    /// state open: the peer finds that too, and shall not take it for the end of the stream.
    pub(crate) fn end(&mut self, half: &mut impl Half, end: End) -> Result<(), CloseError> {
        if !self.is_ours() {
            return Ok(());
        }
        if half.is_succeeded() {
            // The successor ends it.
            return Err(self.forget());
        }
        if !self.share.as_ref().is_some_and(|share| share.pipe_is_gone.load(Ordering::Relaxed)) {
            half.end(end);
        }
        self.release()
    }
}

/// Waiting for a peer to attach.
struct Arrival<'a, H> {
    claim: &'a Claim,
    half: &'a H,
    /// Its state at the last poll.
    seen: State,
    /// The state for which the kernel was last queried: once per change.
    kernel_queried_for: Option<State>,
}

impl<H: Half> Awaited for Arrival<'_, H> {
    type Output = ();
    type Error = WaitError;

    fn poll(&mut self) -> Result<Option<()>, WaitError> {
        self.seen = self.half.peer_state();
        if self.kernel_queried_for.replace(self.seen) == Some(self.seen) {
            return Ok(None);
        }
        Ok(self.claim.has_peer(self.half, self.seen).then_some(()))
    }

    fn sleep(&mut self, slice: Duration, cancel: &CancelHandle) {
        if let Some(seen) = self.half.prepare_sleep_for_peer(self.seen) {
            cancel.sleep(self.half.event_count(), seen, slice);
        }
    }

    fn nap(&mut self, nap: Duration, cancel: &CancelHandle) {
        cancel.nap(self.half.event_count(), nap);
    }

    fn check(&mut self) -> Result<Option<()>, WaitError> {
        self.claim.check(self.half.is_succeeded())?;
        // The last query may have failed.
        self.kernel_queried_for = None;
        Ok(None)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_ours() {
            // Fails only if the pipe was removed, and the claim with it.
            let _ = self.release();
        }
    }
}
