//! An open handle of a segment.

use super::header;
use super::memory::{Mapping, Memory};
use super::semaphores::{Semaphores, SetError};
use super::unlink::remove;
use crate::address::Address;
use crate::error::{Permissions, SetupError};
use crate::identity::Identity;
use crate::layout::Header;
use crate::peer::{Phase, Role, State};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// An open handle: the mapped segment, what it is, and the set that guards it.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) mapping: Mapping,
    pub(crate) identity: Identity,
    pub(crate) set: Semaphores,
    pub(crate) address: Address,
    pub(crate) created: bool,
    pub(crate) permissions: Permissions,
    pub(super) memory: Memory,
    /// Whether this handle holds the producer's and the consumer's role.
    pub(super) claimed: [AtomicBool; 2],
}

impl Attachment {
    pub(crate) fn header(&self) -> NonNull<Header> {
        self.mapping.base().cast()
    }

    /// Claims a role.
    pub(crate) fn claim(&self, role: Role) -> Result<(), SetupError> {
        if !self.mapping.is_ours() {
            return Err(SetupError::Forked { address: self.address.clone() });
        }
        // Threads that share this handle exclude each other here: `claim_stale` cannot tell them apart.
        // ORDERING: Acquire, pairs with the Release stores in `unclaimed`: the last claim was given back before.
        if self.claimed(role).swap(true, Ordering::Acquire) {
            return Err(SetupError::RoleTaken { role, pid: self.set.holder(role) });
        }
        let claimed = match self.set.claim(role) {
            Err(SetError::Taken) => self.claim_stale(role),
            claimed => claimed,
        };
        claimed.map_err(|error| {
            self.unclaimed(role);
            match error {
                SetError::Taken => SetupError::RoleTaken { role, pid: self.set.holder(role) },
                error => self.error(error),
            }
        })
    }

    /// Whether a thread of this process holds a role through this handle, or is about to.
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
    fn claim_stale(&self, role: Role) -> Result<(), SetError> {
        // Held until we have claimed, so that nobody attaches meanwhile who might claim in between.
        let _lock = self.set.lock_patiently()?;
        if self.memory.status().is_ok_and(|status| status.attached == 1) {
            self.set.free_stale(role)?;
        }
        self.set.claim(role)
    }

    pub(crate) fn release(&self, role: Role) -> Result<(), SetupError> {
        let released = self.set.release(role);
        self.unclaimed(role);
        released.map_err(|error| match error {
            // There was no claim of ours left to give back.
            SetError::Taken => SetupError::Removed { address: self.address.clone() },
            error => self.error(error),
        })
    }

    /// The error of a call on the set of an open pipe.
    pub(crate) fn error(&self, error: SetError) -> SetupError {
        match error {
            SetError::Gone => SetupError::Removed { address: self.address.clone() },
            SetError::Taken => SetupError::Busy { address: self.address.clone(), pid: self.set.locker() },
            SetError::Os { call, source } => SetupError::Os { call, source },
        }
    }

    /// Whether a side has closed, and its role is free.
    fn has_closed(&self, role: Role) -> bool {
        let header = header(&self.mapping);
        let side = match role {
            Role::Producer => &header.producer.0,
            Role::Consumer => &header.consumer.0,
        };
        State::of(side).phase() == Some(Phase::Closed) && self.set.is_free(role).unwrap_or(false)
    }
}

impl Drop for Attachment {
    /// Leaves; the last one to leave a pipe that is to go when both sides have closed removes it. Everything here
    /// fails only if the pipe was removed already.
    fn drop(&mut self) {
        if !self.mapping.is_ours() {
            return;
        }
        if self.identity.remove_on_close() {
            // Two that leave at the same moment must not both think that the other one is still there.
            if let Ok(_lock) = self.set.lock(Duration::from_millis(100)) {
                let last = self.set.guests().is_ok_and(|guests| guests == 1);
                if last && self.has_closed(Role::Producer) && self.has_closed(Role::Consumer) {
                    remove(self.memory, self.set);
                    return;
                }
                let _ = self.set.leave();
                return;
            }
        }
        let _ = self.set.leave();
    }
}
