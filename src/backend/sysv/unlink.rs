//! Removing.

use super::memory::{Memory, Status};
use super::semaphores::{COUNT, Semaphores, SetStatus, Stage};
use super::settled;
use super::target::Target;
use crate::address::{Address, Key, Place};
use crate::error::SetupError;
use crate::protocol::peer::Role;
use crate::segment::identity::{Identity, READY, Ready};
use crate::segment::{GuardError, Trouble, persist};

/// Removes the pipe at `address`; with `force` also while a role is held.
pub(crate) fn unlink(address: &Address, force: bool) -> Result<(), SetupError> {
    let target = Target::new(address, &[])?;
    persist(address, || match (&address.0, target.key) {
        (Place::Private, _) => Err(target.asked.cannot_make().into()),
        (Place::Id(id), _) => unlink_segment(&target, Memory::from_id(*id), force),
        (_, Some(key)) => unlink_key(&target, key, force),
        (_, None) => unreachable!("every other place has a key"),
    })
}

fn unlink_key(target: &Target<'_>, key: Key, force: bool) -> Result<(), Trouble> {
    let memory = Memory::find(key).map_err(|source| target.memory_error("shmget", source))?;
    if let Some(memory) = memory {
        return unlink_segment(target, memory, force);
    }
    // A set without a segment: whoever was removing the pipe died half-way.
    let failed = |error| target.set_error(None, error);
    let Some(set) = Semaphores::find(key).map_err(failed)? else {
        return Err(target.asked.not_found().into());
    };
    let SetStatus { count, .. } = set.status().map_err(failed)?;
    if count != COUNT || !matches!(set.stage().map_err(failed)?, Stage::Making | Stage::Made) {
        return Err(target.asked.not_found().into());
    }
    let _lock = set.lock_patiently().map_err(|error| target.set_error(Some(set), error))?;
    match Memory::find(key) {
        Ok(None) => set.remove().map_err(failed),
        _ => Err(Trouble::Again),
    }
}

fn unlink_segment(target: &Target<'_>, memory: Memory, force: bool) -> Result<(), Trouble> {
    let status = target.status(memory)?;
    let set = set_beside(target, memory, &status)?;
    let _lock = match set {
        Some(set) => Some(set.lock_patiently().map_err(|error| target.set_error(Some(set), error))?),
        None => None,
    };
    // From here on nobody who knows the lock makes or removes it.
    let status = target.status(memory)?;
    check(target, memory, &status, set, force)?;
    // A set that does not guard the segment says nothing about who holds what.
    let guard = set.filter(|set| set.guards(memory.id()).unwrap_or(false) && !force);
    match guard {
        _ if force => {}
        Some(set) => match set.claim_both() {
            Ok(()) => {}
            Err(GuardError::Taken) => {
                let role = match set.is_free(Role::Producer) {
                    Ok(true) => Role::Consumer,
                    _ => Role::Producer,
                };
                return Err(SetupError::RoleTaken { role, pid: set.holder(role) }.into());
            }
            Err(error) => return Err(target.set_error(Some(set), error)),
        },
        None => {
            let attached = settled(memory, 0);
            if attached > 0 {
                return Err(target.claims_lost(attached).into());
            }
        }
    }
    let removed = memory.remove().map_err(|source| target.memory_error("shmctl(IPC_RMID)", source));
    if removed.is_err() || set.is_some_and(|set| set.remove().is_err()) {
        // A set that is not ours to remove stays for who makes the pipe anew.
        if let Some(set) = guard {
            let _ = set.release(Role::Producer);
            let _ = set.release(Role::Consumer);
        }
    }
    Ok(removed?)
}

/// The set of a pipe's kind that stands beside a segment.
fn set_beside(target: &Target<'_>, memory: Memory, status: &Status) -> Result<Option<Semaphores>, Trouble> {
    if let Some(key) = Key::new(status.key) {
        let found = Semaphores::find(key).map_err(|error| target.set_error(None, error))?;
        return Ok(found.filter(|&set| is_ours(target, set, status)));
    }
    let (ready, seen) = target.peek(memory, status)?;
    let identity = (ready == Ready::Yes).then(|| Identity::read(seen.header()));
    Ok(identity.and_then(|identity| target.named_set(&identity, status, memory)))
}

/// Refuses to remove what is none of ours. What is damaged, or of another version, goes if one insists.
fn check(
    target: &Target<'_>,
    memory: Memory,
    status: &Status,
    set: Option<Semaphores>,
    force: bool,
) -> Result<(), Trouble> {
    let (ready, seen) = match target.peek(memory, status) {
        Err(SetupError::ByteOrder) if force => return Ok(()),
        peeked => peeked?,
    };
    if ready == Ready::Yes {
        return match target.asked.identify(&seen, status.size) {
            Err(error @ SetupError::OtherName { .. }) => Err(error.into()),
            Err(error) if !force => Err(error.into()),
            _ => Ok(()),
        };
    }
    if target.is_half_made(&ready, status, set) {
        return Ok(());
    }
    Err(target.asked.foreign("the first word", 0, READY).into())
}

/// Whether a set under a pipe's key is a pipe's set, made by whom we trust or by who made the segment: a stranger's could be
/// locked for ever.
fn is_ours(target: &Target<'_>, set: Semaphores, segment: &Status) -> bool {
    set.status().is_ok_and(|status| status.count == COUNT && target.is_known(segment, status.creator))
        && !set.stage().is_ok_and(|stage| matches!(stage, Stage::Foreign(_)))
}

/// Removes a pipe, under its lock: the segment first, so that nobody finds one without its set; killed in between, the
/// set is used by the next creator.
pub(super) fn remove(memory: Memory, set: Semaphores) {
    let _ = memory.remove();
    let _ = set.remove();
}
