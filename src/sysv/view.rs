//! Watching: a segment attached for reading alone, and which segments there are.

use super::memory::{Mapping, Memory};
use super::proc::Row;
use super::semaphores::{COUNT, Semaphores, SetError, Stage};
use super::target::Target;
use super::{LOOKING, header, named_set};
use crate::address::{Address, Key, Place};
use crate::error::{Permissions, SetupError};
use crate::identity::{Identity, Ready};
use crate::layout::Header;
use std::thread;
use std::time::{Duration, Instant};

/// A segment attached for reading alone, for watchers.
pub(crate) struct View {
    pub(crate) mapping: Mapping,
    pub(crate) identity: Identity,
    /// The set that guards it, unless that is gone.
    pub(crate) set: Option<Semaphores>,
    pub(crate) key: i32,
    pub(crate) shm_id: i32,
    pub(crate) size: u64,
    pub(crate) attached: u64,
    pub(crate) permissions: Permissions,
    pub(crate) creator: u32,
}

impl View {
    pub(crate) fn header(&self) -> &Header {
        header(&self.mapping)
    }
}

/// Attaches the pipe at `address` for reading alone, without a claim and without the lock.
pub(crate) fn view(address: &Address) -> Result<View, SetupError> {
    let target = Target::new(address);
    let memory = match (&address.0, target.key()?) {
        (Place::Id(id), _) => Memory::from_id(*id),
        (_, Some(key)) => Memory::find(key)
            .map_err(|source| target.memory_error(key.get(), "shmget", source))?
            .ok_or_else(|| target.not_found())?,
        (_, None) => return Err(SetupError::CannotMake { address: address.clone() }),
    };
    let deadline = Instant::now() + LOOKING;
    let (status, mapping) = loop {
        let status = target.status(target.key()?.map_or(0, Key::get), memory)?;
        match target.peek(memory, &status)? {
            (Ready::Yes, mapping) => break (status, mapping),
            // Its creator is at work, or is dead.
            _ if Instant::now() >= deadline => return Err(target.half_made(&status)),
            _ => thread::sleep(Duration::from_millis(5)),
        }
    };
    let identity = target.identify(&mapping)?;
    Ok(View {
        identity,
        set: named_set(&identity, &status, memory),
        key: status.key,
        shm_id: memory.id(),
        size: status.size,
        attached: status.attached,
        permissions: Permissions { uid: status.uid, gid: status.gid, mode: status.permissions() },
        creator: status.creator,
        mapping,
    })
}

/// The segment that a set guards; `None` if the set is none of ours, an error if it may not be asked.
pub(crate) fn guarded_by(set: Semaphores) -> Result<Option<i32>, SetError> {
    match set.stage()? {
        Stage::Made => set.segment().map(Some),
        Stage::Nothing | Stage::Making | Stage::Foreign(_) => Ok(None),
    }
}

/// Whether a row of `/proc/sysvipc/sem` has the shape of one of our sets.
pub(crate) fn looks_like_ours(row: &Row) -> bool {
    row.size == COUNT
}

/// The set of a row of `/proc/sysvipc/sem`.
pub(crate) fn set_of(row: &Row) -> Semaphores {
    Semaphores::from_id(row.id)
}
