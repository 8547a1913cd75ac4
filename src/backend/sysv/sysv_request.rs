//! A request for a System V pipe, and the translation of errors of system calls into [`SetupError`]s about that pipe.

use super::limits;
use super::semaphores::{COUNT, Semaphores, SetStatus, Stage};
use super::sysv_segment::{Status, SysvSegment};
use crate::address::{Address, AddressError, AddressForm, Key, ftok};
use crate::error::{Damage, SetupError, failed_to_map, os};
use crate::protocol::layout::HEADER;
use crate::segment::identity::{Identity, Ready};
use crate::segment::pages;
use crate::segment::{Access, AttemptError, Mapping, Request, RoleLockError};
use crate::sys::sysvipc::segments;
use std::io;

/// A request, with the key of its address.
pub(super) struct SysvRequest<'a> {
    pub(super) common: Request<'a>,
    /// `None` for an address without one.
    pub(super) key: Option<Key>,
}

impl<'a> SysvRequest<'a> {
    pub(super) fn new(address: &'a Address, trusted: &'a [u32]) -> Result<Self, SetupError> {
        let key = match &address.0 {
            AddressForm::Name(name) => Some(name.key()),
            AddressForm::Key(key) => Some(*key),
            AddressForm::Ftok { path, project } => {
                let key = ftok(path, *project).map_err(|source| os("ftok", source))?;
                Some(key.ok_or(AddressError::KeyZero)?)
            }
            _ => None,
        };
        Ok(SysvRequest { common: Request::new(address, trusted), key })
    }

    pub(super) fn address(&self) -> &'a Address {
        self.common.address
    }

    pub(super) fn denied(&self) -> SetupError {
        let key = self.key.map_or(libc::IPC_PRIVATE, Key::get);
        let row = segments().into_iter().flatten().find(|row| match self.address().0 {
            AddressForm::Id(id) => row.id == id,
            _ => row.key == key && self.key.is_some(),
        });
        SetupError::PermissionDenied {
            address: self.address().clone(),
            key: Some(row.map_or(key, |row| row.key)),
            permissions: row.map(|row| row.permissions),
        }
    }

    /// The error of a failed call on the segment.
    pub(super) fn segment_error(&self, call: &'static str, source: io::Error) -> SetupError {
        match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => self.denied(),
            Some(libc::EINVAL | libc::EIDRM) => self.common.not_found(),
            _ => os(call, source),
        }
    }

    /// The error of a segment of `size` bytes that could not be attached.
    pub(super) fn mapping_error(&self, source: io::Error, size: u64) -> SetupError {
        match source.raw_os_error() {
            Some(libc::ENOMEM) => failed_to_map("shmat", size)(source),
            _ => self.segment_error("shmat", source),
        }
    }

    /// The error of a failed call on the set.
    pub(super) fn set_error(&self, set: Option<Semaphores>, error: RoleLockError) -> AttemptError {
        match error {
            RoleLockError::Gone | RoleLockError::Elsewhere => AttemptError::Retry,
            RoleLockError::Taken => AttemptError::Failed(SetupError::Busy {
                address: self.address().clone(),
                pid: set.and_then(Semaphores::lock_pid),
            }),
            RoleLockError::Os { call, source } => match source.raw_os_error() {
                Some(libc::EACCES | libc::EPERM) => AttemptError::Failed(self.denied()),
                // The semaphore that counts the handles is at its largest value.
                Some(libc::ERANGE) if call == "semop" => AttemptError::Failed(limits::of_handles()),
                Some(libc::ENOSPC | libc::EINVAL) if call == "semget" => {
                    AttemptError::Failed(limits::of_sets(source))
                }
                _ => AttemptError::Failed(os(call, source)),
            },
        }
    }

    /// The status of a segment; `NotFound` if it was removed.
    pub(super) fn status(&self, segment: SysvSegment) -> Result<Status, SetupError> {
        let status = segment.status().map_err(|source| self.segment_error("shmctl(IPC_STAT)", source))?;
        if status.is_removed() { Err(self.common.not_found()) } else { Ok(status) }
    }

    /// The set that a segment names, if that set names the segment and has the same creator or a trusted one. A header alone is
    /// not evidence.
    pub(super) fn named_set(
        &self,
        identity: &Identity,
        status: &Status,
        segment: SysvSegment,
    ) -> Option<Semaphores> {
        let named = Semaphores::from_id(identity.sem_id);
        let SetStatus { count, creator, .. } = named.status().ok()?;
        (count == COUNT && self.is_trusted_creator(status, creator) && named.guards(segment.id()).ok()?)
            .then_some(named)
    }

    /// Whether the creator of a set is trusted, or is the creator of the segment.
    pub(super) fn is_trusted_creator(&self, segment: &Status, creator: u32) -> bool {
        creator == segment.creator || self.common.is_trusted(creator)
    }

    /// Attaches a segment read-only and returns the state of its `ready` word. Never writes to the segment, which may not be a
    /// pipe.
    pub(super) fn peek(&self, segment: SysvSegment, status: &Status) -> Result<(Ready, Mapping), SetupError> {
        if status.size < HEADER {
            return Err(self.common.foreign("the size of the segment in bytes", status.size, HEADER));
        }
        let mapping = Mapping::of_segment(segment.id(), status.size, Access::Read, None)
            .map_err(|source| self.mapping_error(source, status.size))?;
        // A segment of huge pages may have no memory behind it.
        pages::check_header_backed(&mapping)?;
        Ok((self.common.readiness(&mapping)?, mapping))
    }

    /// Whether a segment that is not ready is an incomplete pipe: it is marked as one, or its creator is the process that
    /// announced, in the set under the same key, that it was going to create one.
    pub(super) fn is_incomplete(&self, ready: &Ready, status: &Status, set: Option<Semaphores>) -> bool {
        let announced = |set: Semaphores| {
            set.stage().is_ok_and(|stage| stage == Stage::Creating)
                && set.stage_pid() == Some(status.creator_pid)
        };
        match ready {
            Ready::NotYet { marked } => *marked || set.is_some_and(announced),
            Ready::Yes | Ready::OtherByteOrder | Ready::Foreign(_) => false,
        }
    }

    /// The error for an incomplete segment whose creator died.
    pub(super) fn incomplete(&self, status: &Status) -> SetupError {
        SetupError::Damaged(Damage::Incomplete { address: self.address().clone(), pid: status.creator_pid })
    }
}
