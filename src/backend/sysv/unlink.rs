//! Removing.

use super::other_attachments;
use super::semaphores::{COUNT, Semaphores, SetStatus, Stage};
use super::sysv_request::SysvRequest;
use super::sysv_segment::{Status, SysvSegment};
use crate::address::{Address, AddressForm, Key};
use crate::error::{Mismatch, SetupError};
use crate::protocol::liveness::Role;
use crate::segment::identity::{Identity, READY, Ready};
use crate::segment::{AttemptError, RoleLockError, retry};

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
    let _lock = set.lock().map_err(|error| request.set_error(Some(set), error))?;
    match SysvSegment::find(key) {
        Ok(None) => set.remove().map_err(failed),
        _ => Err(AttemptError::Retry),
    }
}

fn unlink_segment(request: &SysvRequest<'_>, segment: SysvSegment, force: bool) -> Result<(), AttemptError> {
    let status = request.status(segment)?;
    let set = set_of(request, segment, &status)?;
    let _lock = match set {
        Some(set) => Some(set.lock().map_err(|error| request.set_error(Some(set), error))?),
        None => None,
    };
    // From here on no process that uses the lock creates or removes it.
    let status = request.status(segment)?;
    check(request, segment, &status, set, force)?;
    // A set that does not belong to the segment says nothing about its roles.
    let guard = set.filter(|set| set.guards(segment.id()).unwrap_or(false) && !force);
    match guard {
        _ if force => {}
        Some(set) => match set.claim_both() {
            Ok(()) => {}
            Err(RoleLockError::Taken) => {
                let role = match set.is_free(Role::Producer) {
                    Ok(true) => Role::Consumer,
                    _ => Role::Producer,
                };
                return Err(SetupError::RoleTaken { role, pid: set.holder(role) }.into());
            }
            Err(error) => return Err(request.set_error(Some(set), error)),
        },
        None => {
            let attached = other_attachments(segment, 0);
            if attached > 0 {
                return Err(request.unaccounted(attached).into());
            }
        }
    }
    let removed = segment.remove().map_err(|source| request.segment_error("shmctl(IPC_RMID)", source));
    if removed.is_err() || set.is_some_and(|set| set.remove().is_err()) {
        // A set that we may not remove stays, for the process that recreates the pipe.
        if let Some(set) = guard {
            let _ = set.release(Role::Producer);
            let _ = set.release(Role::Consumer);
        }
    }
    Ok(removed?)
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

/// Checks that a segment is a pipe. With `force`, a damaged one or one of another version passes too.
fn check(
    request: &SysvRequest<'_>,
    segment: SysvSegment,
    status: &Status,
    set: Option<Semaphores>,
    force: bool,
) -> Result<(), AttemptError> {
    let (ready, seen) = match request.peek(segment, status) {
        Err(SetupError::Incompatible(Mismatch::ByteOrder)) if force => return Ok(()),
        peeked => peeked?,
    };
    if ready == Ready::Yes {
        return match request.common.identify(&seen, status.size) {
            Err(error @ SetupError::Incompatible(Mismatch::Name { .. })) => Err(error.into()),
            Err(error) if !force => Err(error.into()),
            _ => Ok(()),
        };
    }
    if request.is_incomplete(&ready, status, set) {
        return Ok(());
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
