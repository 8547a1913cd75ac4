//! The roles of a System V pipe: claims in the semaphore set.

use super::memory::Memory;
use super::semaphores::Semaphores;
use super::unlink::remove;
use crate::address::{Address, Place};
use crate::error::SetupError;
use crate::options::{Existing, Options};
use crate::peer::Role;
use crate::segment::{Guard, GuardError, Segment};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The set that guards a segment, as one open handle uses it.
#[derive(Debug)]
pub(super) struct SetGuard {
    set: Semaphores,
    memory: Memory,
    /// Whether a thread of this process holds the producer's and the consumer's role through this handle, or is about
    /// to.
    claimed: [AtomicBool; 2],
}

impl SetGuard {
    pub(super) fn new(set: Semaphores, memory: Memory) -> Self {
        SetGuard { set, memory, claimed: Default::default() }
    }

    fn claimed(&self, role: Role) -> &AtomicBool {
        &self.claimed[role as usize]
    }

    fn unclaimed(&self, role: Role) {
        // ORDERING: Release, pairs with the Acquire swap in `claim`.
        self.claimed(role).store(false, Ordering::Release);
    }

    /// Claims a role that somebody else holds, if that claim is void: every holder is attached for as long as it can
    /// use its role, so that a claim while nobody but us is attached was kept across exec, which unmaps and does not
    /// undo.
    fn claim_stale(&self, role: Role) -> Result<(), GuardError> {
        // Held until we have claimed, so that nobody attaches meanwhile who might claim in between.
        let _lock = self.set.lock_patiently()?;
        if self.memory.status().is_ok_and(|status| status.attached == 1) {
            self.set.free_stale(role)?;
        }
        self.set.claim(role)
    }
}

impl Guard for SetGuard {
    fn claim(&self, role: Role) -> Result<(), GuardError> {
        // Threads that share this handle exclude each other here: `claim_stale` cannot tell them apart.
        // ORDERING: Acquire, pairs with the Release stores in `unclaimed`: the last claim was given back before.
        if self.claimed(role).swap(true, Ordering::Acquire) {
            return Err(GuardError::Taken);
        }
        let claimed = match self.set.claim(role) {
            Err(GuardError::Taken) => self.claim_stale(role),
            claimed => claimed,
        };
        if claimed.is_err() {
            self.unclaimed(role);
        }
        claimed
    }

    fn release(&self, role: Role) -> Result<(), GuardError> {
        let released = self.set.release(role);
        self.unclaimed(role);
        released
    }

    fn is_free(&self, role: Role) -> Result<bool, GuardError> {
        self.set.is_free(role)
    }

    fn holder(&self, role: Role) -> Option<u32> {
        self.set.holder(role)
    }

    fn leave(&self, is_over: Option<&dyn Fn() -> bool>) {
        if let Some(is_over) = is_over {
            // Two that leave at the same moment must not both think that the other one is still there.
            if let Ok(_lock) = self.set.lock(Duration::from_millis(100)) {
                if self.set.guests().is_ok_and(|guests| guests == 1) && is_over() {
                    remove(self.memory, self.set);
                } else {
                    let _ = self.set.leave();
                }
                return;
            }
        }
        let _ = self.set.leave();
    }

    fn again(&self, address: &Address, options: &Options) -> Result<Segment, SetupError> {
        let again = super::attach(&Address(Place::Id(self.memory.id())), options, Existing::Required);
        again.map_err(|error| match error {
            SetupError::NotFound { .. } => SetupError::Removed { address: address.clone() },
            error => error,
        })
    }
}
