//! What a call is about, and what may stand in its way: the errors of the system calls, in the caller's words, and the
//! checks that a segment has to pass before it is believed to be a pipe.

use super::memory::{Mapping, Memory, Status};
use super::proc::segments;
use super::semaphores::{Semaphores, SetError};
use super::{Trouble, header, limits};
use crate::address::{Address, Key, Name, Place, ftok};
use crate::error::SetupError;
use crate::identity::{Identity, READY, Ready};
use crate::layout::HEADER;
use std::io;

/// What a call is about: the address, and the key and the name that follow from it.
pub(super) struct Target<'a> {
    pub(super) address: &'a Address,
    pub(super) name: Option<&'a Name>,
}

impl<'a> Target<'a> {
    pub(super) fn new(address: &'a Address) -> Self {
        let name = match &address.0 {
            Place::Name(name) => Some(name),
            _ => None,
        };
        Target { address, name }
    }

    /// The key, or nothing for an address without one.
    pub(super) fn key(&self) -> Result<Option<Key>, SetupError> {
        match &self.address.0 {
            Place::Name(name) => Ok(Some(name.key())),
            Place::Key(key) => Ok(Some(*key)),
            Place::Ftok { path, project } => ftok(path, *project)
                .map_err(|source| SetupError::Os { call: "ftok", source })?
                .map(Some)
                .ok_or(SetupError::Address(crate::AddressError::KeyZero)),
            Place::Id(_) | Place::Private => Ok(None),
        }
    }

    pub(super) fn not_found(&self) -> SetupError {
        SetupError::NotFound { address: self.address.clone() }
    }

    pub(super) fn foreign(&self, what: &'static str, found: u64, expected: u64) -> SetupError {
        SetupError::Foreign { address: self.address.clone(), what, found, expected }
    }

    pub(super) fn denied(&self, key: i32) -> SetupError {
        let permissions = segments()
            .into_iter()
            .flatten()
            .find(|row| match self.address.0 {
                Place::Id(id) => row.id == id,
                _ => row.key == key && key != 0,
            })
            .map(|row| row.permissions);
        SetupError::PermissionDenied { address: self.address.clone(), key, permissions }
    }

    /// The error of a call on the segment.
    pub(super) fn memory_error(&self, key: i32, call: &'static str, source: io::Error) -> SetupError {
        match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => self.denied(key),
            Some(libc::EINVAL | libc::EIDRM) => self.not_found(),
            _ => SetupError::Os { call, source },
        }
    }

    /// The error of a call on the set.
    pub(super) fn set_error(&self, key: i32, set: Option<Semaphores>, error: SetError) -> Trouble {
        match error {
            SetError::Gone => Trouble::Again,
            SetError::Taken => Trouble::Failed(SetupError::Busy {
                address: self.address.clone(),
                pid: set.and_then(Semaphores::locker),
            }),
            SetError::Os { call, source } => match source.raw_os_error() {
                Some(libc::EACCES | libc::EPERM) => Trouble::Failed(self.denied(key)),
                Some(libc::ENOSPC) => Trouble::Failed(limits::of_sets(source)),
                _ => Trouble::Failed(SetupError::Os { call, source }),
            },
        }
    }

    /// The status of a segment that is not being removed.
    pub(super) fn status(&self, key: i32, memory: Memory) -> Result<Status, SetupError> {
        let status = memory.status().map_err(|source| self.memory_error(key, "shmctl(IPC_STAT)", source))?;
        if status.is_removed() { Err(self.not_found()) } else { Ok(status) }
    }

    /// Refuses a segment that somebody not trusted has made, owns, or may have made to look like a pipe.
    pub(super) fn check_trust(&self, status: &Status, trusted: &[u32]) -> Result<(), SetupError> {
        // SAFETY: the call has no arguments and cannot fail.
        let us = unsafe { libc::geteuid() };
        let is_trusted = |uid: u32| uid == 0 || uid == us || trusted.contains(&uid);
        if is_trusted(status.uid) && is_trusted(status.creator) {
            return Ok(());
        }
        Err(SetupError::Untrusted { address: self.address.clone(), uid: status.uid, creator: status.creator })
    }

    /// Attaches a segment for reading alone and says what `ready` tells. A foreign one is not written to.
    pub(super) fn peek(&self, memory: Memory, status: &Status) -> Result<(Ready, Mapping), SetupError> {
        if status.size < HEADER {
            return Err(self.foreign("the size of the segment in bytes", status.size, HEADER));
        }
        let mapping = memory
            .attach(status.size, true)
            .map_err(|source| self.memory_error(status.key, "shmat", source))?;
        match Ready::of(header(&mapping)) {
            Ready::OtherByteOrder => Err(SetupError::ByteOrder),
            Ready::Foreign(found) => Err(self.foreign("the first word", found, READY)),
            ready => Ok((ready, mapping)),
        }
    }

    /// Checks what a complete segment says of itself.
    pub(super) fn identify(&self, mapping: &Mapping) -> Result<Identity, SetupError> {
        let identity = Identity::read(header(mapping));
        identity.check(mapping.size())?;
        let found = identity.name().unwrap_or_default();
        match self.name {
            Some(asked) if asked.as_str() != found => {
                Err(SetupError::OtherName { asked: asked.as_str().to_owned(), found: found.to_owned() })
            }
            _ => Ok(identity),
        }
    }

    pub(super) fn half_made(&self, status: &Status) -> SetupError {
        SetupError::HalfMade { address: self.address.clone(), pid: status.creator_pid }
    }

    pub(super) fn claims_lost(&self, attached: u64) -> SetupError {
        SetupError::ClaimsLost { address: self.address.clone(), attached }
    }
}
