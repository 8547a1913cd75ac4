//! The roles of a System V pipe, as claimed through one open handle.

use super::claim_word::ClaimWord;
use super::presence::{self, Presence};
use super::semaphores::Semaphores;
use super::sysv_segment::{Status, SysvSegment};
use super::unlink::remove;
use crate::address::{Address, AddressForm, Key};
use crate::error::{Lost, SetupError};
use crate::options::{Existing, Options};
use crate::protocol::layout::Header;
use crate::protocol::liveness::Role;
use crate::protocol::sync::AtomicU64;
use crate::segment::{RoleLock, RoleLockError, Segment};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The roles of a segment.
#[derive(Debug)]
pub(super) struct SysvRoleLock {
    segment: SysvSegment,
    /// The key of the segment and of its set.
    key: Option<Key>,
    handle: Option<Handle>,
}

/// What a participant has and a watcher does not.
#[derive(Debug)]
struct Handle {
    set: Option<Semaphores>,
    presence: Arc<Presence>,
    /// The claims made through this handle.
    claims: [Mutex<Option<ClaimWord>>; 2],
}

fn failed(source: io::Error) -> RoleLockError {
    RoleLockError::Os { call: "shmctl(IPC_STAT)", source }
}

fn word(header: &Header, role: Role) -> &AtomicU64 {
    &header.side(role).claim
}

impl Handle {
    fn claim(&self, role: Role) -> MutexGuard<'_, Option<ClaimWord>> {
        // Every change under the lock is a single assignment, so a panic cannot leave it half done.
        self.claims[role as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails with `Elsewhere` if this thread cannot see whether the holders of claims exist, since it is in another IPC namespace.
    fn check_namespace(&self) -> Result<(), RoleLockError> {
        if self.presence.is_visible().map_err(failed)? { Ok(()) } else { Err(RoleLockError::Elsewhere) }
    }
}

impl SysvRoleLock {
    /// The roles of an open handle.
    pub(super) fn new(
        segment: SysvSegment,
        key: Option<Key>,
        set: Option<Semaphores>,
        presence: Arc<Presence>,
    ) -> Self {
        let handle = Handle { set, presence, claims: Default::default() };
        SysvRoleLock { segment, key, handle: Some(handle) }
    }

    /// The roles as a watcher sees them, which cannot claim one.
    pub(super) fn watch(segment: SysvSegment, key: Option<Key>) -> Self {
        SysvRoleLock { segment, key, handle: None }
    }

    fn handle(&self) -> &Handle {
        self.handle.as_ref().expect("a watcher claims nothing")
    }

    /// Whether ours is the only handle. The set still counts those of a process that has called `exec`, and the segment counts
    /// watchers.
    fn is_last(&self, set: Semaphores) -> bool {
        set.attachments().is_ok_and(|handles| handles == 1)
            || self.status().is_ok_and(|status| status.attached == 1)
    }

    /// The status of the segment; `Gone` if it was removed.
    fn status(&self) -> Result<Status, RoleLockError> {
        match self.segment.public_status() {
            Ok(status) if status.is_removed() => Err(RoleLockError::Gone),
            Ok(status) => Ok(status),
            Err(source) => match source.raw_os_error() {
                Some(libc::EIDRM | libc::EINVAL) => Err(RoleLockError::Gone),
                _ => Err(failed(source)),
            },
        }
    }
}

impl RoleLock for SysvRoleLock {
    fn claim(&self, header: &Header, role: Role) -> Result<(), RoleLockError> {
        let handle = self.handle();
        // In the same thread as the questions about other claims, which mean nothing in another namespace.
        handle.check_namespace()?;
        let claim = ClaimWord::new(&handle.presence);
        if !claim.take(word(header, role), ClaimWord::stands).map_err(failed)? {
            return Err(RoleLockError::Taken);
        }
        // A process that removes the pipe holds both roles. So a claim that passes this check is on a pipe that still exists.
        self.status().inspect_err(|_| {
            claim.release(word(header, role));
        })?;
        *handle.claim(role) = Some(claim);
        Ok(())
    }

    fn release(&self, header: &Header, role: Role) -> Result<(), RoleLockError> {
        let claim = self.handle().claim(role).take();
        let released = claim.is_some_and(|claim| claim.release(word(header, role)));
        if let Err(error @ RoleLockError::Gone) = self.status() {
            return Err(error);
        }
        if released { Ok(()) } else { Err(RoleLockError::Taken) }
    }

    fn holds(&self, header: &Header, role: Role) -> Result<bool, RoleLockError> {
        let handle = self.handle();
        handle.check_namespace()?;
        self.status()?;
        Ok(*handle.claim(role) == ClaimWord::of(word(header, role)))
    }

    fn is_free(&self, header: &Header, role: Role) -> Result<bool, RoleLockError> {
        if let Some(handle) = &self.handle {
            handle.check_namespace()?;
        }
        let Some(claim) = ClaimWord::of(word(header, role)) else { return Ok(true) };
        Ok(!claim.stands().map_err(failed)?)
    }

    fn loss(&self) -> Lost {
        let visible = self.handle.as_ref().is_none_or(|handle| handle.check_namespace().is_ok());
        if visible && self.status().is_ok() {
            return Lost::Role;
        }
        match self.key.map(SysvSegment::find) {
            Some(Ok(Some(found))) if found != self.segment => Lost::Replaced,
            _ => Lost::Removed,
        }
    }

    fn holder(&self, header: &Header, role: Role) -> Option<u32> {
        let status = ClaimWord::of(word(header, role))?.presence().status().ok()??;
        Some(status.creator_pid).filter(|&pid| pid > 0)
    }

    fn detach(&self, is_over: Option<&dyn Fn() -> bool>) {
        let Some(set) = self.handle().set else { return };
        if let Some(is_over) = is_over {
            // Under the lock: of two processes that detach at the same moment, neither may still count the other.
            if let Ok(lock) = set.lock_within(Duration::from_millis(100)) {
                if self.is_last(set) && is_over() {
                    presence::clear_up(&lock);
                    remove(self.segment, set);
                }
                // The set still exists if we were not allowed to remove it.
                let _ = set.remove_attachment();
                return;
            }
        }
        let _ = set.remove_attachment();
    }

    fn reopen(&self, address: &Address, options: &Options) -> Result<Segment, SetupError> {
        let reopened =
            super::attach(&Address(AddressForm::Id(self.segment.id())), options, Existing::Required);
        reopened.map_err(|error| match error {
            SetupError::NotFound { .. } => SetupError::Lost { lost: Lost::Removed, address: address.clone() },
            error => error,
        })
    }
}
