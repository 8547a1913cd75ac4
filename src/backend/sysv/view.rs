//! Inspecting: attaching a segment read-only, and finding the segments that are pipes.

use super::role_lock::SysvRoleLock;
use super::semaphores::{COUNT, Semaphores, Stage};
use super::sysv_request::SysvRequest;
use super::sysv_segment::SysvSegment;
use crate::address::{Address, AddressForm, Key};
use crate::error::SetupError;
use crate::segment::identity::{READY, Ready};
use crate::segment::{Object, RoleLockError, View};
use crate::sys::sysvipc::Row;
use std::thread;
use std::time::{Duration, Instant};

/// Attaches the pipe at `address` read-only, without a claim and without the lock. Waits up to `timeout` for a pipe that is being
/// created.
pub(crate) fn view(address: &Address, timeout: Duration) -> Result<View, SetupError> {
    let request = SysvRequest::new(address, &[])?;
    let segment = match (&address.0, request.key) {
        (AddressForm::Id(id), _) => SysvSegment::from_id(*id),
        (_, Some(key)) => SysvSegment::find(key)
            .map_err(|source| request.segment_error("shmget", source))?
            .ok_or_else(|| request.common.not_found())?,
        (_, None) => return Err(request.common.cannot_open()),
    };
    let deadline = Instant::now() + timeout;
    let mut before = None;
    let (status, mapping) = loop {
        let status = request.status(segment)?;
        let (ready, mapping) = request.peek(segment, &status)?;
        if ready == Ready::Yes {
            break (status, mapping);
        }
        // Its creator is at work, or died. Detach while waiting: our attachment would keep another process from recreating it.
        drop(mapping);
        let set = Key::new(status.key).and_then(|key| Semaphores::find(key).ok().flatten());
        // Foreign only if seen twice: the creator may have completed it between our readings of the word and of the set.
        if before.replace(request.is_incomplete(&ready, &status, set)) == Some(false) {
            return Err(request.common.foreign("the first word", 0, READY));
        }
        if Instant::now() >= deadline {
            return Err(request.incomplete(&status));
        }
        thread::sleep(Duration::from_millis(5));
    };
    let identity = request.common.identify(&mapping, status.size)?;
    let set = request.named_set(&identity, &status, segment);
    Ok(View {
        identity,
        object: Object::SysV { key: status.key, shm_id: segment.id(), sem_id: set.map(Semaphores::id) },
        size: status.size,
        attached: Some(status.attached),
        is_open: status.attached > 0
            && set.is_none_or(|set| set.attachments().map_or(true, |attachments| attachments > 0)),
        permissions: status.permissions(),
        creator: status.creator,
        locked: status.is_locked(),
        stale: false,
        roles: Box::new(SysvRoleLock::watch(segment, Key::new(status.key))),
        mapping,
    })
}

/// The segment that a semaphore set belongs to.
pub(crate) enum SetTarget {
    /// The segment with this identifier.
    Segment(i32),
    /// The set is not a pipe's, or was removed.
    NoPipe,
    /// We may not read the set.
    Denied,
}

/// The segment that the set in a row of `/proc/sysvipc/sem` belongs to.
pub(crate) fn target_of_set(row: &Row) -> SetTarget {
    if row.size != COUNT {
        return SetTarget::NoPipe;
    }
    let set = Semaphores::from_id(row.id);
    match set.stage().and_then(|stage| Ok((stage, set.segment()?))) {
        Ok((Stage::Created, id)) => SetTarget::Segment(id),
        Ok(_) | Err(RoleLockError::Gone) => SetTarget::NoPipe,
        Err(_) => SetTarget::Denied,
    }
}

/// The state of a pipe's set.
pub(crate) struct SetState {
    /// The identifier of the segment that it guards.
    pub(crate) segment: i32,
    /// Whether the segment is complete.
    pub(crate) is_complete: bool,
    /// Whether a process creates, opens or removes the pipe at this moment.
    pub(crate) is_locked: bool,
}

/// The state of the set of a row of `/proc/sysvipc/sem`. `None` if it is no pipe's, is gone, or may not be read.
pub(crate) fn set_state(row: &Row) -> Option<SetState> {
    if row.size != COUNT {
        return None;
    }
    let set = Semaphores::from_id(row.id);
    let is_complete = match set.stage().ok()? {
        Stage::Creating => false,
        Stage::Created => true,
        Stage::Initial | Stage::Foreign(_) => return None,
    };
    Some(SetState { segment: set.segment().ok()?, is_complete, is_locked: set.is_locked().ok()? })
}
