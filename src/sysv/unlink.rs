//! Removing.

use super::memory::Memory;
use super::semaphores::{COUNT, Semaphores, SetError, SetStatus, Stage};
use super::target::Target;
use super::{Trouble, header, named_set, persist, settled};
use crate::address::{Address, Key, Place};
use crate::error::SetupError;
use crate::identity::{MAKING, READY, Ready};
use crate::layout::Header;
use crate::peer::Role;
use crate::sync::Ordering;

/// Removes the pipe at `address`; with `force` also while a role is held.
pub(crate) fn unlink(address: &Address, force: bool) -> Result<(), SetupError> {
    let target = Target::new(address);
    let key = target.key()?;
    persist(address, || match (&address.0, key) {
        (Place::Private, _) => Err(SetupError::CannotMake { address: address.clone() }.into()),
        (Place::Id(id), _) => unlink_segment(&target, Memory::from_id(*id), force),
        (_, Some(key)) => unlink_key(&target, key, force),
        (_, None) => unreachable!("every other place has a key"),
    })
}

fn unlink_key(target: &Target<'_>, key: Key, force: bool) -> Result<(), Trouble> {
    let memory = Memory::find(key).map_err(|source| target.memory_error(key.get(), "shmget", source))?;
    if let Some(memory) = memory {
        return unlink_segment(target, memory, force);
    }
    // A set without a segment: whoever was removing the pipe died half-way.
    let failed = |error| target.set_error(key.get(), None, error);
    let Some(set) = Semaphores::find(key).map_err(failed)? else { return Err(target.not_found().into()) };
    let SetStatus { count, .. } = set.status().map_err(failed)?;
    if count != COUNT || !matches!(set.stage().map_err(failed)?, Stage::Making | Stage::Made) {
        return Err(target.not_found().into());
    }
    let _lock = set.lock_patiently().map_err(|error| target.set_error(key.get(), Some(set), error))?;
    match Memory::find(key) {
        Ok(None) => set.remove().map_err(failed),
        _ => Err(Trouble::Again),
    }
}

fn unlink_segment(target: &Target<'_>, memory: Memory, force: bool) -> Result<(), Trouble> {
    let status = target.status(0, memory)?;
    let failed = |error| target.set_error(status.key, None, error);
    let (ready, seen) = target.peek(memory, &status)?;
    let identity = match ready {
        Ready::Yes => match target.identify(&seen) {
            Ok(identity) => Some(identity),
            // Damaged, or of another version: whoever insists may remove it. That of another name is not ours at all.
            Err(error @ SetupError::OtherName { .. }) => return Err(error.into()),
            Err(_) if force => None,
            Err(error) => return Err(error.into()),
        },
        _ => None,
    };
    drop(seen);
    let set = match (Key::new(status.key), &identity) {
        (Some(key), _) => Semaphores::find(key).map_err(failed)?.filter(|&set| is_ours(set)),
        (None, Some(identity)) => named_set(identity, &status, memory),
        (None, None) => None,
    };
    let lock = match set {
        Some(set) => {
            Some(set.lock_patiently().map_err(|error| target.set_error(status.key, Some(set), error))?)
        }
        None => None,
    };
    // Half-made: ours if its maker has said that it was going to make it.
    let half_made = |set: Semaphores| {
        set.stage().is_ok_and(|stage| stage == Stage::Making) && set.stager() == Some(status.creator_pid)
    };
    if ready == (Ready::NotYet { marked: false }) && !set.is_some_and(half_made) {
        return Err(target.foreign("the first word", 0, READY).into());
    }
    let guarded = |set: &Semaphores| set.segment().is_ok_and(|id| id == memory.id());
    match set.filter(guarded) {
        _ if force => {}
        Some(set) => match set.claim_both() {
            Ok(()) => {}
            Err(SetError::Taken) => {
                let role = match set.is_free(Role::Producer) {
                    Ok(true) => Role::Consumer,
                    _ => Role::Producer,
                };
                return Err(SetupError::RoleTaken { role, pid: set.holder(role) }.into());
            }
            Err(error) => return Err(target.set_error(status.key, Some(set), error)),
        },
        // Nothing says that those who are attached hold no role.
        None => {
            let attached = settled(memory);
            if attached > 0 {
                return Err(target.claims_lost(attached).into());
            }
        }
    }
    let mapping = memory.attach(status.size, false).ok();
    let mark = |word| {
        if let Some(mapping) = &mapping {
            // ORDERING: Release, pairs with the Acquire load in `Ready::of`.
            header(mapping).ready.store(word, Ordering::Release);
        }
    };
    mark(0);
    if let Err(source) = memory.remove() {
        // Not ours to remove: it stays what it was.
        mark(if ready == Ready::Yes { READY } else { MAKING });
        if let (Some(set), false) = (set, force) {
            let _ = set.release(Role::Producer);
            let _ = set.release(Role::Consumer);
        }
        return Err(target.memory_error(status.key, "shmctl(IPC_RMID)", source).into());
    }
    if let Some(set) = set {
        let _ = set.remove();
    }
    drop(lock);
    Ok(())
}

/// Whether a set under a pipe's key is a pipe's set.
fn is_ours(set: Semaphores) -> bool {
    set.status().is_ok_and(|status| status.count == COUNT)
        && !set.stage().is_ok_and(|stage| matches!(stage, Stage::Foreign(_)))
}

/// Removes a pipe, under its lock, in the order that leaves nothing half-removed that could be opened.
pub(super) fn remove(header: &Header, memory: Memory, set: Semaphores) {
    // ORDERING: Release, pairs with the Acquire load in `Ready::of`, so that nothing we did before comes after it.
    header.ready.store(0, Ordering::Release);
    let _ = memory.remove();
    let _ = set.remove();
}
