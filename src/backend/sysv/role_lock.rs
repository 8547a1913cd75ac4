//! The roles of a System V pipe: claims in the semaphore set.

use super::INSPECTION_TIME;
use super::semaphores::Semaphores;
use super::sysv_segment::{Status, SysvSegment};
use super::unlink::remove;
use crate::address::{Address, AddressForm, Key};
use crate::error::{Loss, Lost, SetupError};
use crate::options::{Existing, Options};
use crate::protocol::liveness::Role;
use crate::segment::{RoleLock, RoleLockError, Segment};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often a claim checks, at least, whether every attachment is counted before it fails with `Unaccounted`.
const MIN_CHECKS: u32 = 150;

/// The roles of a segment, as claimed through one open handle.
#[derive(Debug)]
pub(super) struct SemaphoreRoleLock {
    set: Semaphores,
    segment: SysvSegment,
    /// The key of both.
    key: Option<Key>,
    /// Whether to take over a role that is held, since the kernel does not free it when its holder dies.
    takes_over: bool,
    /// Whether a thread of this process holds the producer and the consumer role through this handle, or is claiming it.
    claimed: [AtomicBool; 2],
}

impl SemaphoreRoleLock {
    pub(super) fn new(set: Semaphores, segment: SysvSegment, key: Option<Key>, takes_over: bool) -> Self {
        SemaphoreRoleLock { set, segment, key, takes_over, claimed: Default::default() }
    }

    fn claimed(&self, role: Role) -> &AtomicBool {
        &self.claimed[role as usize]
    }

    fn clear_claimed(&self, role: Role) {
        // ORDERING: Release, pairs with the Acquire swap in `claim`.
        self.claimed(role).store(false, Ordering::Release);
    }

    /// Claims a role that is held, if that claim is void. A holder is attached for as long as it can use its role. So if only we
    /// are attached, the holder has called `exec`, which unmaps the segment but does not undo the claim.
    fn claim_stale(&self, role: Role) -> Result<(), RoleLockError> {
        // Held until we have claimed, so that no other process can attach and claim meanwhile.
        let _lock = self.set.lock()?;
        if self.takes_over || self.segment.status().is_ok_and(|status| status.attached == 1) {
            self.set.force_free(role)?;
        }
        self.set.claim(role)
    }

    /// The status of the segment; `Gone` if it was removed.
    fn status(&self) -> Result<Status, RoleLockError> {
        match self.segment.status() {
            Ok(status) if status.is_removed() => Err(RoleLockError::Gone),
            Ok(status) => Ok(status),
            Err(source) => match source.raw_os_error() {
                Some(libc::EIDRM | libc::EINVAL) => Err(RoleLockError::Gone),
                _ => Err(RoleLockError::Os { call: "shmctl(IPC_STAT)", source }),
            },
        }
    }

    /// Checks that this set counts every process that has the segment mapped. One that it does not count may use a role whose
    /// claim the kernel has undone, as it does when the holder leaves the IPC namespace. Waits a moment for processes that only
    /// inspect the segment to detach.
    fn check_accounted(&self) -> Result<(), RoleLockError> {
        let deadline = Instant::now() + INSPECTION_TIME;
        let mut pause = Duration::from_micros(20);
        let mut checks = 0;
        loop {
            checks += 1;
            let attachments = self.set.attachments()?;
            let others = self.status()?.attached.saturating_sub(attachments as u64);
            // No process attached or detached between the two readings.
            if others == 0 && self.set.attachments()? == attachments {
                return Ok(());
            }
            // Time alone is not enough: a busy machine may have let us check only a few times.
            if checks >= MIN_CHECKS && Instant::now() >= deadline {
                return Err(RoleLockError::Unaccounted(others.max(1)));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }
}

impl RoleLock for SemaphoreRoleLock {
    fn claim(&self, role: Role) -> Result<(), RoleLockError> {
        // Threads that share this handle exclude each other here: `claim_stale` cannot tell them apart.
        // ORDERING: Acquire, pairs with the Release store in `clear_claimed`: the last claim was released before.
        if self.claimed(role).swap(true, Ordering::Acquire) {
            return Err(RoleLockError::Taken);
        }
        let claimed = match self.set.claim(role) {
            Err(RoleLockError::Taken) => self.claim_stale(role),
            claimed => claimed,
        };
        let accounted = claimed.and_then(|()| {
            self.check_accounted().inspect_err(|_| {
                // Fails only if the set was removed, and the claim with it.
                let _ = self.set.release(role);
            })
        });
        if accounted.is_err() {
            self.clear_claimed(role);
        }
        accounted
    }

    fn release(&self, role: Role) -> Result<(), RoleLockError> {
        let released = self.set.release(role);
        self.clear_claimed(role);
        released
    }

    fn forget(&self, role: Role) {
        if self.set.holder(role) == Some(std::process::id()) {
            // No process has claimed it since, so the successor recorded in the header does not exist.
            let _ = self.set.release(role);
        }
        self.clear_claimed(role);
    }

    fn is_free(&self, role: Role) -> Result<bool, RoleLockError> {
        let free = self.set.is_free(role)?;
        match self.status() {
            Err(RoleLockError::Gone) => Err(RoleLockError::Gone),
            // If we may no longer read the segment's status, we still have it mapped.
            _ => Ok(free),
        }
    }

    fn loss(&self) -> Loss {
        if let Ok(status) = self.status() {
            return Loss::Role { attached: status.attached.saturating_sub(1) };
        }
        match self.key.map(SysvSegment::find) {
            Some(Ok(Some(found))) if found != self.segment => Loss::Replaced,
            _ => Loss::Removed,
        }
    }

    fn holder(&self, role: Role) -> Option<u32> {
        self.set.holder(role)
    }

    fn detach(&self, is_over: Option<&dyn Fn() -> bool>) {
        if let Some(is_over) = is_over {
            // Under the lock: of two processes that detach at the same moment, neither may still count the other.
            if let Ok(_lock) = self.set.lock_within(Duration::from_millis(100)) {
                if self.set.attachments().is_ok_and(|attachments| attachments == 1) && is_over() {
                    remove(self.segment, self.set);
                }
                // The set still exists if we were not allowed to remove it.
                let _ = self.set.remove_attachment();
                return;
            }
        }
        let _ = self.set.remove_attachment();
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
