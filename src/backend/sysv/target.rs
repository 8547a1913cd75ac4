//! What a call on a System V pipe is about, and what may stand in its way: the errors of the system calls, in the
//! caller's words.

use super::limits;
use super::memory::{Memory, Status};
use super::semaphores::{COUNT, Semaphores, SetStatus, Stage};
use crate::address::{Address, AddressError, Key, Place, ftok};
use crate::error::SetupError;
use crate::os::sysvipc::segments;
use crate::protocol::layout::HEADER;
use crate::segment::identity::{Identity, Ready};
use crate::segment::pages;
use crate::segment::{Access, Asked, GuardError, Mapping, Trouble};
use std::io;

/// What a call asks for, and the key that follows from its address.
pub(super) struct Target<'a> {
    pub(super) asked: Asked<'a>,
    /// `None` for an address without one.
    pub(super) key: Option<Key>,
}

impl<'a> Target<'a> {
    pub(super) fn new(address: &'a Address, trusted: &'a [u32]) -> Result<Self, SetupError> {
        let key = match &address.0 {
            Place::Name(name) => Some(name.key()),
            Place::Key(key) => Some(*key),
            Place::Ftok { path, project } => {
                let key = ftok(path, *project).map_err(|source| SetupError::Os { call: "ftok", source })?;
                Some(key.ok_or(AddressError::KeyZero)?)
            }
            _ => None,
        };
        Ok(Target { asked: Asked::new(address, trusted), key })
    }

    pub(super) fn address(&self) -> &'a Address {
        self.asked.address
    }

    pub(super) fn denied(&self) -> SetupError {
        let key = self.key.map_or(libc::IPC_PRIVATE, Key::get);
        let row = segments().into_iter().flatten().find(|row| match self.address().0 {
            Place::Id(id) => row.id == id,
            _ => row.key == key && self.key.is_some(),
        });
        SetupError::PermissionDenied {
            address: self.address().clone(),
            key: Some(row.map_or(key, |row| row.key)),
            permissions: row.map(|row| row.permissions),
        }
    }

    /// The error of a call on the segment.
    pub(super) fn memory_error(&self, call: &'static str, source: io::Error) -> SetupError {
        match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => self.denied(),
            Some(libc::EINVAL | libc::EIDRM) => self.asked.not_found(),
            _ => SetupError::Os { call, source },
        }
    }

    /// The error of a call on the set.
    pub(super) fn set_error(&self, set: Option<Semaphores>, error: GuardError) -> Trouble {
        match error {
            GuardError::Gone => Trouble::Again,
            GuardError::Taken => Trouble::Failed(SetupError::Busy {
                address: self.address().clone(),
                pid: set.and_then(Semaphores::locker),
            }),
            GuardError::Unaccounted(attached) => Trouble::Failed(self.claims_lost(attached)),
            GuardError::Os { call, source } => match source.raw_os_error() {
                Some(libc::EACCES | libc::EPERM) => Trouble::Failed(self.denied()),
                Some(libc::ENOSPC | libc::EINVAL) if call == "semget" => {
                    Trouble::Failed(limits::of_sets(source))
                }
                _ => Trouble::Failed(SetupError::Os { call, source }),
            },
        }
    }

    /// The status of a segment that is not being removed.
    pub(super) fn status(&self, memory: Memory) -> Result<Status, SetupError> {
        let status = memory.status().map_err(|source| self.memory_error("shmctl(IPC_STAT)", source))?;
        if status.is_removed() { Err(self.asked.not_found()) } else { Ok(status) }
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
        (count == COUNT && self.is_known(status, creator) && named.guards(memory.id()).ok()?).then_some(named)
    }

    /// Whether who made a set is as good as who made the segment.
    pub(super) fn is_known(&self, segment: &Status, creator: u32) -> bool {
        creator == segment.creator || self.asked.is_trusted(creator)
    }

    /// Attaches a segment for reading alone and says what `ready` tells. A foreign one is not written to.
    pub(super) fn peek(&self, memory: Memory, status: &Status) -> Result<(Ready, Mapping), SetupError> {
        if status.size < HEADER {
            return Err(self.asked.foreign("the size of the segment in bytes", status.size, HEADER));
        }
        let mapping = Mapping::of_segment(memory.id(), status.size, Access::Read, None)
            .map_err(|source| self.memory_error("shmat", source))?;
        // One of huge pages may have none behind it.
        pages::check_start(&mapping)?;
        Ok((self.asked.readiness(&mapping)?, mapping))
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
        SetupError::HalfMade { address: self.address().clone(), pid: status.creator_pid }
    }

    pub(super) fn claims_lost(&self, attached: u64) -> SetupError {
        SetupError::ClaimsLost { address: self.address().clone(), attached }
    }
}
