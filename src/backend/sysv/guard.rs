//! The roles of a System V pipe: claims in the semaphore set.

use super::LOOKING;
use super::memory::{Memory, Status};
use super::semaphores::Semaphores;
use super::unlink::remove;
use crate::address::{Address, Key, Place};
use crate::error::{Loss, SetupError};
use crate::options::{Existing, Options};
use crate::protocol::peer::Role;
use crate::segment::{Guard, GuardError, Segment};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often a claim looks at least whether everybody attached is accounted for, before it says that somebody is not.
const LOOKS: u32 = 150;

/// The set that guards a segment, as one open handle uses it.
#[derive(Debug)]
pub(super) struct SetGuard {
    set: Semaphores,
    memory: Memory,
    /// The key under which both were found.
    key: Option<Key>,
    /// Whether a role that is held is taken over, since the kernel does not free it when its holder dies.
    takes_over: bool,
    /// Whether a thread of this process holds the producer's and the consumer's role through this handle, or is about
    /// to.
    claimed: [AtomicBool; 2],
}

impl SetGuard {
    pub(super) fn new(set: Semaphores, memory: Memory, key: Option<Key>, takes_over: bool) -> Self {
        SetGuard { set, memory, key, takes_over, claimed: Default::default() }
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
        if self.takes_over || self.memory.status().is_ok_and(|status| status.attached == 1) {
            self.set.free_stale(role)?;
        }
        self.set.claim(role)
    }

    /// The status of the segment, as long as it is there.
    fn status(&self) -> Result<Status, GuardError> {
        match self.memory.status() {
            Ok(status) if status.is_removed() => Err(GuardError::Gone),
            Ok(status) => Ok(status),
            Err(source) => match source.raw_os_error() {
                Some(libc::EIDRM | libc::EINVAL) => Err(GuardError::Gone),
                _ => Err(GuardError::Os { call: "shmctl(IPC_STAT)", source }),
            },
        }
    }

    /// Makes sure that everybody who has the segment mapped has entered it through this set: somebody who has not may use a
    /// role whose claim the kernel has taken back, as it does when its holder leaves the IPC namespace. Who only takes a look
    /// is given a moment to go.
    fn account(&self) -> Result<(), GuardError> {
        let deadline = Instant::now() + LOOKING;
        let mut pause = Duration::from_micros(20);
        let mut looks = 0;
        loop {
            looks += 1;
            let guests = self.set.guests()?;
            let others = self.status()?.attached.saturating_sub(guests as u64);
            // Nobody came or went between the two looks.
            if others == 0 && self.set.guests()? == guests {
                return Ok(());
            }
            // A second is short on a machine that is so busy that we looked a few times.
            if looks >= LOOKS && Instant::now() >= deadline {
                return Err(GuardError::Unaccounted(others.max(1)));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
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
        let accounted = claimed.and_then(|()| {
            self.account().inspect_err(|_| {
                // It fails only if the set was removed, and the claim with it.
                let _ = self.set.release(role);
            })
        });
        if accounted.is_err() {
            self.unclaimed(role);
        }
        accounted
    }

    fn release(&self, role: Role) -> Result<(), GuardError> {
        let released = self.set.release(role);
        self.unclaimed(role);
        released
    }

    fn forget(&self, role: Role) {
        if self.set.holder(role) == Some(std::process::id()) {
            // Nobody has claimed it since: whoever wrote that we have a successor was no successor.
            let _ = self.set.release(role);
        }
        self.unclaimed(role);
    }

    fn is_free(&self, role: Role) -> Result<bool, GuardError> {
        let free = self.set.is_free(role)?;
        match self.status() {
            Err(GuardError::Gone) => Err(GuardError::Gone),
            // Who may no longer read the segment's status still has it mapped.
            _ => Ok(free),
        }
    }

    fn loss(&self) -> Loss {
        if let Ok(status) = self.status() {
            return Loss::Claims { attached: status.attached.saturating_sub(1) };
        }
        match self.key.map(Memory::find) {
            Some(Ok(Some(found))) if found != self.memory => Loss::Replaced,
            _ => Loss::Removed,
        }
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
                }
                // It is there still if it is not ours to remove.
                let _ = self.set.leave();
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
