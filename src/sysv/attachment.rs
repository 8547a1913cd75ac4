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
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
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
        let claimed = match self.set.claim(role) {
            Err(SetError::Taken) if self.is_stale(role) => {
                self.set.free_stale(role).and_then(|()| self.set.claim(role))
            }
            claimed => claimed,
        };
        claimed.map_err(|error| match error {
            SetError::Taken => SetupError::RoleTaken { role, pid: self.set.holder(role) },
            error => self.error(error),
        })?;
        self.claimed(role).store(true, Relaxed);
        Ok(())
    }

    /// Whether this handle holds a role. Relaxed throughout: a flag for ourselves, and nothing is read through it.
    fn claimed(&self, role: Role) -> &AtomicBool {
        &self.claimed[role as usize]
    }

    /// Whether a claim held by somebody else is void: every holder of a claim is attached for as long as it can use
    /// it, so that a claim while nobody but us is attached was kept across exec, which unmaps and does not undo.
    fn is_stale(&self, role: Role) -> bool {
        if self.claimed(role).load(Relaxed) {
            return false;
        }
        let Ok(_lock) = self.set.lock_patiently() else { return false };
        self.memory.status().is_ok_and(|status| status.attached == 1)
    }

    pub(crate) fn release(&self, role: Role) -> Result<(), SetupError> {
        self.claimed(role).store(false, Relaxed);
        self.set.release(role).map_err(|error| self.error(error))
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
                    remove(header(&self.mapping), self.memory, self.set);
                    return;
                }
                let _ = self.set.leave();
                return;
            }
        }
        let _ = self.set.leave();
    }
}
