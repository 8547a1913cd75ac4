//! What a call is about, and what may stand in its way: the errors of the system calls, in the caller's words, and the
//! checks that a segment has to pass before it is believed to be a pipe.

use super::memory::{Mapping, Memory, Status};
use super::proc::segments;
use super::semaphores::{COUNT, Semaphores, SetError, SetStatus, Stage};
use super::{Trouble, header, limits};
use crate::address::{Address, AddressError, Key, Name, Place, ftok};
use crate::error::SetupError;
use crate::identity::{Identity, READY, Ready};
use crate::layout::HEADER;
use std::io;

/// What a call is about: the address, what follows from it, and whom to trust.
pub(super) struct Target<'a> {
    pub(super) address: &'a Address,
    pub(super) name: Option<&'a Name>,
    /// `None` for an address without one.
    pub(super) key: Option<Key>,
    trusted: &'a [u32],
}

impl<'a> Target<'a> {
    /// The pipe at `address`, which root, we ourselves and the users `trusted` may have made.
    pub(super) fn new(address: &'a Address, trusted: &'a [u32]) -> Result<Self, SetupError> {
        let name = match &address.0 {
            Place::Name(name) => Some(name),
            _ => None,
        };
        let key = match &address.0 {
            Place::Name(name) => Some(name.key()),
            Place::Key(key) => Some(*key),
            Place::Ftok { path, project } => {
                let key = ftok(path, *project).map_err(|source| SetupError::Os { call: "ftok", source })?;
                Some(key.ok_or(AddressError::KeyZero)?)
            }
            Place::Id(_) | Place::Private => None,
        };
        Ok(Target { address, name, key, trusted })
    }

    pub(super) fn not_found(&self) -> SetupError {
        SetupError::NotFound { address: self.address.clone() }
    }

    pub(super) fn foreign(&self, what: &'static str, found: u64, expected: u64) -> SetupError {
        SetupError::Foreign { address: self.address.clone(), what, found, expected }
    }

    pub(super) fn denied(&self) -> SetupError {
        let key = self.key.map_or(libc::IPC_PRIVATE, Key::get);
        let row = segments().into_iter().flatten().find(|row| match self.address.0 {
            Place::Id(id) => row.id == id,
            _ => row.key == key && self.key.is_some(),
        });
        SetupError::PermissionDenied {
            address: self.address.clone(),
            key: row.map_or(key, |row| row.key),
            permissions: row.map(|row| row.permissions),
        }
    }

    /// The error of a call on the segment.
    pub(super) fn memory_error(&self, call: &'static str, source: io::Error) -> SetupError {
        match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => self.denied(),
            Some(libc::EINVAL | libc::EIDRM) => self.not_found(),
            _ => SetupError::Os { call, source },
        }
    }

    /// The error of a call on the set.
    pub(super) fn set_error(&self, set: Option<Semaphores>, error: SetError) -> Trouble {
        match error {
            SetError::Gone => Trouble::Again,
            SetError::Taken => Trouble::Failed(SetupError::Busy {
                address: self.address.clone(),
                pid: set.and_then(Semaphores::locker),
            }),
            SetError::Os { call, source } => match source.raw_os_error() {
                Some(libc::EACCES | libc::EPERM) => Trouble::Failed(self.denied()),
                Some(libc::ENOSPC | libc::EINVAL) => Trouble::Failed(limits::of_sets(source)),
                _ => Trouble::Failed(SetupError::Os { call, source }),
            },
        }
    }

    /// The status of a segment that is not being removed.
    pub(super) fn status(&self, memory: Memory) -> Result<Status, SetupError> {
        let status = memory.status().map_err(|source| self.memory_error("shmctl(IPC_STAT)", source))?;
        if status.is_removed() { Err(self.not_found()) } else { Ok(status) }
    }

    pub(super) fn is_trusted(&self, uid: u32) -> bool {
        // SAFETY: the call has no arguments and cannot fail.
        uid == 0 || uid == unsafe { libc::geteuid() } || self.trusted.contains(&uid)
    }

    /// Refuses a segment, or a set, that somebody not trusted has made or owns: its maker can always change it, and
    /// may have made it to look like a pipe.
    pub(super) fn check_trust(&self, uid: u32, creator: u32) -> Result<(), SetupError> {
        if self.is_trusted(uid) && self.is_trusted(creator) {
            return Ok(());
        }
        Err(SetupError::Untrusted { address: self.address.clone(), uid, creator })
    }

    /// The set that a segment names, if that set names the segment and was made by the same user or by one who is
    /// trusted: what a header says is not believed by itself.
    pub(super) fn named_set(
        &self,
        identity: &Identity,
        status: &Status,
        memory: Memory,
    ) -> Option<Semaphores> {
        let named = Semaphores::from_id(identity.sem_id);
        let SetStatus { count, creator, .. } = named.status().ok()?;
        let is_known = creator == status.creator || self.is_trusted(creator);
        (count == COUNT && is_known && named.guards(memory.id()).ok()?).then_some(named)
    }

    /// Attaches a segment for reading alone and says what `ready` tells. A foreign one is not written to.
    pub(super) fn peek(&self, memory: Memory, status: &Status) -> Result<(Ready, Mapping), SetupError> {
        if status.size < HEADER {
            return Err(self.foreign("the size of the segment in bytes", status.size, HEADER));
        }
        let mapping =
            memory.attach(status.size, true).map_err(|source| self.memory_error("shmat", source))?;
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

    /// Whether a segment that is not complete is a pipe all the same: marked as one, or made by the process that said
    /// in the set beside it that it was going to make one.
    pub(super) fn is_half_made(&self, ready: &Ready, status: &Status, set: Option<Semaphores>) -> bool {
        let announced = |set: Semaphores| {
            set.stage().is_ok_and(|stage| stage == Stage::Making) && set.stager() == Some(status.creator_pid)
        };
        match ready {
            Ready::NotYet { marked } => *marked || set.is_some_and(announced),
            Ready::Yes | Ready::OtherByteOrder | Ready::Foreign(_) => false,
        }
    }

    /// The error of a segment that is not complete and that nobody is making any more.
    pub(super) fn half_made(&self, status: &Status) -> SetupError {
        SetupError::HalfMade { address: self.address.clone(), pid: status.creator_pid }
    }

    pub(super) fn claims_lost(&self, attached: u64) -> SetupError {
        SetupError::ClaimsLost { address: self.address.clone(), attached }
    }
}
