//! Removing.

use super::presence::{self, Presence};
use super::role_lock::SysvRoleLock;
use super::semaphores::{COUNT, InitLock, Semaphores, SetStatus, Stage};
use super::sysv_request::SysvRequest;
use super::sysv_segment::{Status, SysvSegment};
use crate::address::{Address, AddressForm, Key};
use crate::error::{Mismatch, SetupError};
use crate::protocol::liveness::Role;
use crate::segment::identity::{Identity, READY, Ready};
use crate::segment::{self, Access, AttemptError, Mapping, RoleLock, retry};

/// Removes the pipe at `address`; with `force` also while a role is held.
pub(crate) fn unlink(address: &Address, force: bool) -> Result<(), SetupError> {
    let request = SysvRequest::new(address, &[])?;
    retry(address, || match (&address.0, request.key) {
        (AddressForm::Private, _) => Err(request.common.cannot_remove().into()),
        (AddressForm::Id(id), _) => unlink_segment(&request, SysvSegment::from_id(*id), force),
        (_, Some(key)) => unlink_key(&request, key, force),
        (_, None) => unreachable!("every other place has a key"),
    })
}

fn unlink_key(request: &SysvRequest<'_>, key: Key, force: bool) -> Result<(), AttemptError> {
    let segment = SysvSegment::find(key).map_err(|source| request.segment_error("shmget", source))?;
    if let Some(segment) = segment {
        return unlink_segment(request, segment, force);
    }
    // A set without a segment: the process that was creating or removing the pipe died half-way.
    let failed = |error| request.set_error(None, error);
    let Some(set) = Semaphores::find(key).map_err(failed)? else {
        return Err(request.common.not_found().into());
    };
    let SetStatus { count, .. } = set.status().map_err(failed)?;
    if count != COUNT || !matches!(set.stage().map_err(failed)?, Stage::Creating | Stage::Created) {
        return Err(request.common.not_found().into());
    }
    let lock = set.lock().map_err(|error| request.set_error(Some(set), error))?;
    presence::clear_up(&lock);
    match SysvSegment::find(key) {
        Ok(None) => set.remove().map_err(failed),
        _ => Err(AttemptError::Retry),
    }
}

fn unlink_segment(request: &SysvRequest<'_>, segment: SysvSegment, force: bool) -> Result<(), AttemptError> {
    let status = request.status(segment)?;
    let set = set_of(request, segment, &status)?;
    let lock = match set {
        Some(set) => Some(set.lock().map_err(|error| request.set_error(Some(set), error))?),
        None => None,
    };
    lock.as_ref().into_iter().for_each(presence::clear_up);
    // From here on no process that uses the lock creates or removes it.
    let status = request.status(segment)?;
    let is_complete = check(request, segment, &status, set, force)?;
    let roles = match (is_complete, force) {
        (true, false) => Some(BothRoles::claim(request, segment, &status, set, lock.as_ref())?),
        _ => None,
    };
    let removed = segment.remove().map_err(|source| request.segment_error("shmctl(IPC_RMID)", source));
    if let (Ok(()), Some(set)) = (&removed, set) {
        // A set that we may not remove stays, for the process that recreates the pipe.
        let _ = set.remove();
    }
    drop(roles);
    Ok(removed?)
}

/// Both roles of a pipe, so that no process can claim one while we remove it. A later claim finds the segment removed.
struct BothRoles {
    mapping: Mapping,
    roles: SysvRoleLock,
}

impl BothRoles {
    fn claim(
        request: &SysvRequest<'_>,
        segment: SysvSegment,
        status: &Status,
        set: Option<Semaphores>,
        lock: Option<&InitLock>,
    ) -> Result<Self, AttemptError> {
        let mapping = Mapping::of_segment(segment.id(), status.size, Access::ReadWrite, None)
            .map_err(|source| request.mapping_error(source, status.size))?;
        let presence = Presence::of_this_process(lock)?;
        let roles = SysvRoleLock::new(segment, Key::new(status.key), set, presence);
        let both = BothRoles { mapping, roles };
        let header = both.mapping.header();
        let identity = Identity::read(header);
        let check = |role, is_free: Result<bool, _>| match is_free {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(segment::role_taken(&identity, role, segment::holder(&both.roles, header, role)).into())
            }
            Err(error) => Err(request.set_error(set, error)),
        };
        // Query both before claiming either: a process that claims the free role must not fail because of a removal that fails
        // anyway.
        for role in [Role::Producer, Role::Consumer] {
            check(role, segment::with_patience(header, role, || both.roles.is_free(header, role)))?;
        }
        for role in [Role::Producer, Role::Consumer] {
            check(role, segment::claim(&both.roles, header, role))?;
        }
        Ok(both)
    }
}

impl Drop for BothRoles {
    fn drop(&mut self) {
        for role in [Role::Producer, Role::Consumer] {
            // Fails if we did not claim it, or if the pipe is removed by now.
            let _ = self.roles.release(self.mapping.header(), role);
        }
    }
}

/// The set that belongs to a segment, if that set is trusted.
fn set_of(
    request: &SysvRequest<'_>,
    segment: SysvSegment,
    status: &Status,
) -> Result<Option<Semaphores>, AttemptError> {
    if let Some(key) = Key::new(status.key) {
        let found = Semaphores::find(key).map_err(|error| request.set_error(None, error))?;
        return Ok(found.filter(|&set| is_trusted_set(request, set, status)));
    }
    let (ready, seen) = request.peek(segment, status)?;
    let identity = (ready == Ready::Yes).then(|| Identity::read(seen.header()));
    Ok(identity.and_then(|identity| request.named_set(&identity, status, segment)))
}

/// Checks that a segment is a pipe, and returns whether it is complete. With `force`, a damaged one or one of another version
/// passes too.
fn check(
    request: &SysvRequest<'_>,
    segment: SysvSegment,
    status: &Status,
    set: Option<Semaphores>,
    force: bool,
) -> Result<bool, AttemptError> {
    let (ready, seen) = match request.peek(segment, status) {
        Err(SetupError::Incompatible(Mismatch::ByteOrder)) if force => return Ok(true),
        peeked => peeked?,
    };
    if ready == Ready::Yes {
        return match request.common.identify(&seen, status.size) {
            Err(error @ SetupError::Incompatible(Mismatch::Name { .. })) => Err(error.into()),
            Err(error) if !force => Err(error.into()),
            _ => Ok(true),
        };
    }
    if request.is_incomplete(&ready, status, set) {
        return Ok(false);
    }
    Err(request.common.foreign("the first word", 0, READY).into())
}

/// Whether a set under a pipe's key is a pipe's set, created by a trusted user or by the creator of the segment. Another user
/// could hold its lock forever.
fn is_trusted_set(request: &SysvRequest<'_>, set: Semaphores, segment: &Status) -> bool {
    set.status()
        .is_ok_and(|status| status.count == COUNT && request.is_trusted_creator(segment, status.creator))
        && !set.stage().is_ok_and(|stage| matches!(stage, Stage::Foreign(_)))
}

/// Removes a pipe, under its lock. The segment goes first, so that no process finds one without a set. If we are killed in
/// between, the next creator uses the set.
pub(super) fn remove(segment: SysvSegment, set: Semaphores) {
    let _ = segment.remove();
    let _ = set.remove();
}
